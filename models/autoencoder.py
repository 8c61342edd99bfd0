"""The autoencoders, GLAE's, its ablations and EfficientAD's, and the decoder that they share.

They predict the teacher's features of a whole image through a bottleneck, and so learn what
belongs where.
"""

from itertools import chain, pairwise

from torch import nn

from models.gfencoder import CHANNELS, Size, gfencoder, gfencoder_side, second_side
from models.pdn import TEACHER_CHANNELS, output_side
from models.recipe import PUBLISHED

LARGEST_SIDE = 4096  # pixels, of an image: more is a slip, or a file's lie
HALVINGS = 5  # of EfficientAD's encoder, before the convolution that leaves 1 x 1


def decoder_sides(side: int) -> list[int]:
    """Return what the decoder resizes to before each of its convolutions, in pixels.

    256 -> 3, 8, 15, 32, 63, 127. Source: EfficientAD, table 8; other inputs scale alike.
    """
    sides = (side // 64 - 1, side // 32, side // 16 - 1, side // 8, side // 4 - 1, side // 2 - 1)
    return [max(1, s) for s in sides]


def decoder(size: Size, dropout: float, skip: int = 0) -> nn.Sequential:
    """Build the decoder: (N, 64, h, w) -> (N, 384, H', W'), the PDN's output.

    `skip` leaves out its first stages; GLAE begins at the second.
    """
    sizes = list(zip(*(decoder_sides(side) for side in size), strict=True))[skip:]
    stages = (
        (
            nn.Upsample(stage, mode="bilinear"),
            nn.Conv2d(CHANNELS, CHANNELS, 4, padding=2),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        for stage in sizes
    )
    return nn.Sequential(
        *chain.from_iterable(stages),
        nn.Upsample(tuple(output_side(side) for side in size), mode="bilinear"),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(CHANNELS, TEACHER_CHANNELS, 3, padding=1),
    )


def glae_autoencoder(size: Size, dropout: float = PUBLISHED.dropout) -> nn.Sequential:
    """Build GLAE's autoencoder: (N, 3, H, W) -> (N, 384, h, w) as a PDN gives it."""
    return nn.Sequential(gfencoder(size), decoder(size, dropout, skip=1))


def glae_without_gfe(size: Size, dropout: float = PUBLISHED.dropout) -> nn.Sequential:
    """Build GLAE's autoencoder without its two GFE blocks: what do rows and columns add?

    The other convolutions are left as they are, so the bottleneck stays 7 x 7 for 256. The blocks
    are those of GLAE, section 3.2; that nothing takes their place is this project's reading.
    """
    return nn.Sequential(gfencoder(size, gfe=False), decoder(size, dropout, skip=1))


def glae_without_lfc(size: Size, dropout: float = PUBLISHED.dropout) -> nn.Sequential:
    """Build GLAE's autoencoder without the local feature constraint after its second GFE block.

    The decoder then resizes that block's output itself, 29 x 29 to 8 x 8 for 256. The constraint is
    that of GLAE, section 3.2; that nothing takes its place is this project's reading.
    """
    return nn.Sequential(gfencoder(size, lfc=False), decoder(size, dropout, skip=1))


def efficientad_autoencoder(size: Size, dropout: float = PUBLISHED.dropout) -> nn.Sequential:
    """Build EfficientAD's autoencoder: (N, 3, H, W) -> (N, 384, h, w).

    Its last kernel covers all that five halvings leave, so that the bottleneck is 1 x 1.
    """
    widths = (3, 32, 32, 64, 64, 64)
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
    last = tuple(side >> HALVINGS for side in size)
    encoder = nn.Sequential(*layers, nn.Conv2d(CHANNELS, CHANNELS, last))
    return nn.Sequential(encoder, decoder(size, dropout))


AUTOENCODERS = {
    "glae": glae_autoencoder,
    "glae_no_gfe": glae_without_gfe,
    "glae_no_lfc": glae_without_lfc,
    "efficientad": efficientad_autoencoder,
}
BOTTLENECK_SIDES = {
    "glae": gfencoder_side,
    "glae_no_gfe": gfencoder_side,
    "glae_no_lfc": second_side,
    "efficientad": lambda side: side >> HALVINGS,
}


def check_size(size: Size, model: str) -> None:
    """Raise ValueError when `model` cannot work on images of `size` (height, width)."""
    smallest = smallest_side(model)
    if min(size) < smallest or max(size) > LARGEST_SIDE:
        raise ValueError(
            f"an image size of {size[0]} x {size[1]} does not suit {model}: sides of {smallest} to "
            f"{LARGEST_SIDE} pixels do"
        )


def smallest_side(model: str) -> int:
    """Return the smallest image side, in pixels, that `model` can work on."""
    side = 1
    while min(output_side(side), BOTTLENECK_SIDES[model](side)) < 1:
        side += 1
    return side

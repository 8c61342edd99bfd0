"""The patch description network (PDN) of EfficientAD, small and medium.

A PDN describes every 33 x 33 patch of an image by a vector. Both sizes are plain
`nn.Sequential`s, so that their keys (`0.weight`, `3.weight`, ...) are those of the
published teacher files.
"""

import torch
from torch import nn
from torch.nn import functional as F

TEACHER_CHANNELS = 384
PATCH = 33  # pixels: the receptive field of one output vector
STRIDE = 4  # pixels from one output to the next


def pdn_small(out_channels: int = TEACHER_CHANNELS, padding: bool = False) -> nn.Sequential:
    """Build PDN-S: (N, 3, H, W) -> (N, out_channels, h, w); see `output_side`.

    `padding` gives H / 4 outputs a side instead of h; distillation uses it. Source:
    EfficientAD (Batzner et al., WACV 2024), table 6.
    """
    pad = int(padding)
    return nn.Sequential(
        nn.Conv2d(3, 128, 4, padding=3 * pad),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2, 2, padding=pad),
        nn.Conv2d(128, 256, 4, padding=3 * pad),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2, 2, padding=pad),
        nn.Conv2d(256, 256, 3, padding=pad),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, out_channels, 4),
    )


def pdn_medium(out_channels: int = TEACHER_CHANNELS, padding: bool = False) -> nn.Sequential:
    """Build PDN-M; arguments and shapes as in `pdn_small`. Source: EfficientAD, table 7."""
    pad = int(padding)
    return nn.Sequential(
        nn.Conv2d(3, 256, 4, padding=3 * pad),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2, 2, padding=pad),
        nn.Conv2d(256, 512, 4, padding=3 * pad),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2, 2, padding=pad),
        nn.Conv2d(512, 512, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(512, 512, 3, padding=pad),
        nn.ReLU(inplace=True),
        nn.Conv2d(512, out_channels, 4),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 1),
    )


PDNS = {"small": pdn_small, "medium": pdn_medium}


def output_side(side: int) -> int:
    """Return the side of the unpadded PDN's output for an input `side`, in pixels: 256 -> 56.

    Less than 1 means that the input is smaller than one patch. Output i of the unpadded
    network is output i + 4 of the padded one: both describe the same patch.
    """
    return ((side - 3) // 2 - 3) // 2 - 5


def places_of(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return which of the unpadded PDN's outputs, bool (h, w), have their centre among pixels.

    `pixels` are bool (H, W), of the input, or empty, which is none; `size` is (h, w).
    """
    if not pixels.numel():
        return pixels.new_zeros(size)
    return pixels[PATCH // 2 :: STRIDE, PATCH // 2 :: STRIDE][: size[0], : size[1]]


def reach(pixels: torch.Tensor) -> torch.Tensor:
    """Return the middles of all patches that any of `pixels` is in, bool (H, W) as they are."""
    return F.max_pool2d(pixels[None].float(), PATCH, stride=1, padding=PATCH // 2)[0] > 0


def covers(pixels: torch.Tensor) -> bool:
    """Tell whether every output has its centre among pixels, see `places_of`."""
    height, width = map(output_side, pixels.shape)
    return bool(pixels.numel()) and bool(places_of(pixels, (height, width)).all())

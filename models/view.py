"""What of an image a detector looks at: pixels that are filled, places that do not count."""

import torch
from torch import nn

from models.pdn import places_of, reach


class View(nn.Module):
    """The region that nobody looks at, bool (H, W) of what the detector sees, or empty.

    The pixels that a training `ignored` are filled with the mean good image, uint8 (3, H, W),
    `typical` in their place. Those that are `overlooked` later are not: training saw what is there,
    and the rim of what is filled would be an edge that no good image had. So all places that see
    any of them count for nothing, nor does what an image is made of as a whole; but the
    autoencoder, which sees all of it, sees them still.
    """

    def __init__(self):
        super().__init__()
        for name in ("ignored", "overlooked"):
            self.register_buffer(name, torch.empty(0, 0, dtype=torch.bool))
        self.register_buffer("typical", torch.empty(3, 0, 0, dtype=torch.uint8))

    def overlook(self, pixels: torch.Tensor) -> None:
        """Let no place count that sees any of these pixels, bool (H, W), if training saw them."""
        pixels = pixels.to(self.ignored.device)
        if self.ignored.numel():
            pixels = pixels & ~self.ignored
        if pixels.any():
            self.overlooked = either(self.overlooked, reach(pixels))

    @property
    def unseen(self) -> torch.Tensor:
        """Pixels at which no place counts, bool (H, W), or empty."""
        return either(self.ignored, self.overlooked)

    def filled(self, images: torch.Tensor) -> torch.Tensor:
        """Return images, uint8 (N, 3, H, W), with the mean good image at ignored pixels.

        So what lies there changes nothing, not even for the autoencoder.
        """
        if not self.ignored.numel():
            return images
        ignored, typical = (t.to(images.device) for t in (self.ignored, self.typical))
        return torch.where(ignored, typical, images)

    def places(self, maps: torch.Tensor) -> torch.Tensor:
        """Return which places of maps (..., h, w) count for nothing, bool (h, w)."""
        return places_of(self.unseen, maps.shape[-2:]).to(maps.device)

    def hide(self, raw: torch.Tensor) -> torch.Tensor:
        """Give distances (N, 1, h, w) 0 at places that count for nothing."""
        return raw.masked_fill(self.places(raw), 0) if self.unseen.numel() else raw

    def looked_at(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the values of maps (N, 1, h, w) at all other places, (n,)."""
        return maps[..., ~self.places(maps)].flatten()


def either(some: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """Return the pixels of two regions together, bool (H, W); either may be empty."""
    return some | more if some.numel() and more.numel() else some if some.numel() else more

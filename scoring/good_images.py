"""The good images of a category as the teacher sees them, chunk by chunk."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from data.images import normalise
from models.detector import Detector
from utils.devices import Compute
from utils.progress import progress

CHUNK = 32  # images at once
BATCH_SIZE = 8  # of the teacher


@dataclass
class GoodImages:
    """Good images in parts, each uint8 (n, 3, H, W), and what of their features is kept.

    These are the teacher's own outputs (n, h, w, C), or None: then they are computed at each pass.
    """

    detector: Detector
    compute: Compute
    parts: list[tuple[torch.Tensor, torch.Tensor | None]]

    @property
    def images(self) -> torch.Tensor:
        """All images together, on the CPU."""
        return torch.cat([images.cpu() for images, _ in self.parts])

    def chunks(self, what: str, imputed: bool = True) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield each chunk's first index and its normalised features (n, C, h, w).

        `what` is done with them, for the bar; `imputed` as `Detector.imputed`, for statistics.
        """
        number = sum(-(-len(images) // CHUNK) for images, _ in self.parts)
        for first, features in progress(what, number, "chunk", self._chunks()):
            yield first, self.detector.imputed(features) if imputed else features

    def _chunks(self) -> Iterator[tuple[int, torch.Tensor]]:
        first = 0
        for images, kept in self.parts:
            for start in range(0, len(images), CHUNK):
                some = slice(start, start + CHUNK)
                if kept is None:
                    yield first + start, described(self.detector, images[some], self.compute)
                else:
                    own = kept[some].to(self.compute.device).permute(0, 3, 1, 2)
                    yield first + start, self.detector.normalise_features(own)
            first += len(images)


@torch.no_grad()
def described(detector: Detector, images: torch.Tensor, compute: Compute) -> torch.Tensor:
    """Return the normalised features (N, C, h, w) of images, uint8 (N, 3, H, W)."""
    found = []
    for batch in images.split(BATCH_SIZE):
        with compute.autocast():
            own = detector.teacher(normalise(detector.view.filled(batch.to(compute.device))))
        found.append(detector.normalise_features(own))
    return torch.cat(found)

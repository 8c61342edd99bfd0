"""Score images with a trained detector, as fast as the machine can."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch

from data.images import Size, normalise
from models.detector import Detector
from models.experts import COMBINED
from models.fusion import score_maps
from utils.compilation import WARM_UP, CudaGraph
from utils.devices import Compute

SCORE = "score"  # an image's own, beside those of the experts
Named = dict[str, torch.Tensor]  # expert, or "combined" -> its tensor


class Found(NamedTuple):
    """What a detector finds in N images: see `Detector.distances`, `calibrated` and `scores`."""

    raw: Named  # (N, 1, h, w)
    maps: Named  # (N, 1, h + 8, w + 8)
    scores: Named  # (N,)

    def scored(self, shown: torch.Tensor) -> list[dict[str, float]]:
        """Return each image's scores: SCORE, which is what `shown` (N,) says, and its experts'."""
        rated = {SCORE: shown} | {n: own for n, own in self.scores.items() if n != COMBINED}
        columns = {name: values.tolist() for name, values in rated.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@torch.no_grad()
def look(detector: Detector, images: torch.Tensor) -> Found:
    """Return what the detector finds in images, uint8 (N, 3, H, W) on its device."""
    raw = detector.distances(normalise(detector.view.filled(images)))
    return Found(raw, detector.calibrated(raw), detector.scores(raw))


class Scorer:
    """A detector made ready to score: folded, in the precision, on CUDA a graph.

    Images are uint8 (N, 3, H, W), at most `compute.scoring_batch_size` at a time. A graph has one
    shape: smaller batches are filled up. `shown` is what counts, "combined" or an expert.
    """

    def __init__(self, detector: Detector, compute: Compute, shown: str = COMBINED):
        self.detector = compute.place(detector.for_scoring(compute.dtype))
        self.compute, self.shown = compute, shown
        self.images, self.graph = None, None  # what the graph reads, in one place

    def look(self, images: torch.Tensor) -> Found:
        """Return what the detector finds in images from anywhere, on the device."""
        images, number = self.compute.pinned(images), len(images)
        if self.compute.compiler == "none":
            return look(self.detector, images.to(self.compute.device, non_blocking=True))
        if self.graph is None:
            shape = (self.compute.scoring_batch_size, *images.shape[1:])
            self.images = torch.zeros(shape, dtype=images.dtype, device=self.compute.device)
            self.graph = CudaGraph(partial(look, self.detector, self.images))
        self.images[:number].copy_(images, non_blocking=True)
        # a replay reuses them
        return Found(*({k: t[:number].clone() for k, t in of.items()} for of in self.graph()))

    def warm_up(self, size: Size) -> None:
        """Let libraries choose their kernels, and a graph be captured, for images of `size`."""
        shape = (self.compute.scoring_batch_size, 3, *size)
        for _ in range(1 if self.compute.compiler == "none" else WARM_UP + 1):
            self.look(torch.zeros(shape, dtype=torch.uint8))

    def score(
        self, images: torch.Tensor, sizes: Sequence[Size]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the scores (N,) and each image's anomaly map, (height, width) of its own size.

        float32, on the device; see `Detector.score`.
        """
        return self.resized(self.look(images), sizes)

    def resized(
        self, found: Found, sizes: Sequence[Size]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return what `score` does of what was found."""
        shown = found.maps[self.shown]
        if len(set(sizes)) == 1:  # as a rule: then all at once
            maxima, maps = score_maps(shown, sizes[0])
            return found.scores.get(self.shown, maxima), list(maps)
        pairs = [score_maps(one, size) for one, size in zip(shown.split(1), sizes, strict=True)]
        maxima = torch.cat([maximum for maximum, _ in pairs])
        return found.scores.get(self.shown, maxima), [maps[0] for _, maps in pairs]

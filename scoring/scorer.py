"""Score images with a trained detector, as fast as the machine can."""

from collections.abc import Sequence
from functools import partial

import torch

from data.images import Size, normalise
from models.detector import Detector, Maps, score_maps
from utils.compilation import WARM_UP, CudaGraph
from utils.devices import Compute


@torch.no_grad()
def distances_and_maps(detector: Detector, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the two raw distances and the three calibrated maps of images.

    `images` is uint8 (N, 3, H, W) on the device; every map (N, 1, h, w) float32.
    """
    distances = detector.distances(normalise(images))
    return *distances, *detector.calibrated(*distances)


class Scorer:
    """A detector made ready to score: folded, in the precision, on CUDA a graph.

    Images are uint8 (N, 3, H, W), at most `compute.scoring_batch_size` at a time. A graph has one
    shape: smaller batches are filled up. `shown` is the map that counts, one of `Maps`.
    """

    def __init__(self, detector: Detector, compute: Compute, shown: str = "combined"):
        self.detector = compute.place(detector.for_scoring(compute.dtype))
        self.compute, self.shown = compute, shown
        self.images, self.graph = None, None  # what the graph reads, in one place

    def _run(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what `distances_and_maps` does, from images anywhere."""
        images, number = self.compute.pinned(images), len(images)
        if self.compute.compiler == "none":
            on_device = images.to(self.compute.device, non_blocking=True)
            return distances_and_maps(self.detector, on_device)
        if self.graph is None:
            shape = (self.compute.scoring_batch_size, *images.shape[1:])
            self.images = torch.zeros(shape, dtype=images.dtype, device=self.compute.device)
            self.graph = CudaGraph(partial(distances_and_maps, self.detector, self.images))
        self.images[:number].copy_(images, non_blocking=True)
        return tuple(found[:number].clone() for found in self.graph())  # a replay reuses them

    def warm_up(self, size: Size) -> None:
        """Let libraries choose their kernels, and a graph be captured, for images of `size`."""
        shape = (self.compute.scoring_batch_size, 3, *size)
        for _ in range(1 if self.compute.compiler == "none" else WARM_UP + 1):
            self._run(torch.zeros(shape, dtype=torch.uint8))

    def distances(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the uncalibrated maps, each (N, 1, h, w) float32 on the device."""
        return self._run(images)[:2]

    def maps(self, images: torch.Tensor) -> Maps:
        """Return the calibrated anomaly maps."""
        return Maps(*self._run(images)[2:])

    def score(
        self, images: torch.Tensor, sizes: Sequence[Size]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the scores (N,) and each image's anomaly map, (height, width) of its own size.

        float32, on the device; see `Detector.score`.
        """
        shown = getattr(self.maps(images), self.shown)
        if len(set(sizes)) == 1:  # as a rule: then all at once
            scores, maps = score_maps(shown, sizes[0])
            return scores, list(maps)
        pairs = [score_maps(one, size) for one, size in zip(shown.split(1), sizes, strict=True)]
        return torch.cat([score for score, _ in pairs]), [maps[0] for _, maps in pairs]

"""Score images with a trained detector, as fast as the machine can."""

import torch

from data.images import Size, normalise
from models.detector import Detector, Maps, score_maps
from utils.compilation import CudaGraph, compiled
from utils.devices import Compute


class Scorer:
    """A detector made ready to score: folded, in the precision, compiled.

    Images are uint8 (N, 3, H, W), `compute.scoring_batch_size` at a time as a rule.
    """

    def __init__(self, detector: Detector, compute: Compute):
        self.detector = compute.place(detector.for_scoring(compute.dtype))
        self.compute = compute
        self.networks = self.detector.distances
        if compute.compiler == "inductor":
            self.networks = compiled(self.detector.distances)
        self.graph, self.images = None, None

    @torch.no_grad()
    def distances(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the uncalibrated maps, each (N, 1, h, w) float32 on the device."""
        images = self.compute.pinned(images).to(self.compute.device, non_blocking=True)
        if self.compute.compiler != "graph" or len(images) != self.compute.scoring_batch_size:
            return self.networks(normalise(images))
        if self.images is None:
            self.images = torch.empty_like(images)
            self.graph = CudaGraph(lambda: self.networks(normalise(self.images)))
        self.images.copy_(images)
        return tuple(distances.clone() for distances in self.graph())

    def maps(self, images: torch.Tensor) -> Maps:
        """Return the calibrated anomaly maps."""
        return self.detector.calibrated(*self.distances(images))

    def score(self, images: torch.Tensor, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores (N,) and the anomaly maps (N, height, width) of `size`, on the device.

        float32; see `Detector.score`.
        """
        return score_maps(self.maps(images), size)

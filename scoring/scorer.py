"""Score images with a trained detector, as fast as the machine can."""

from collections.abc import Callable
from functools import partial

import torch

from data.images import Size, normalise
from models.detector import Detector, Maps, score_maps
from utils.compilation import Compiled, CudaGraph
from utils.devices import Compute


@torch.no_grad()
def describe_strangeness(
    detector: Detector, distances: Callable, images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, Maps]:
    """Return the student's and the autoencoder's raw distances and the calibrated maps.

    `distances` are the detector's, perhaps compiled; `images` is uint8 (N, 3, H, W) on the device;
    every map (N, 1, h, w) float32.
    """
    student, autoencoder = distances(normalise(images))
    return student, autoencoder, detector.calibrated(student, autoencoder)


class Scorer:
    """A detector made ready to score: folded, in the precision, compiled.

    Images are uint8 (N, 3, H, W), at most `compute.scoring_batch_size` at a time. What is compiled
    has one shape: smaller batches are filled up.
    """

    def __init__(self, detector: Detector, compute: Compute):
        self.detector = compute.place(detector.for_scoring(compute.dtype))
        self.compute = compute
        self.held, self.accelerated = None, None  # images in one place; what may fall back
        distances = self.detector.distances
        if compute.compiler == "inductor":
            distances = self.accelerated = Compiled(distances)
        self.run = partial(describe_strangeness, self.detector, distances)

    def _maps(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Maps]:
        """Return what `describe_strangeness` does, from images anywhere."""
        images, number = self.compute.pinned(images), len(images)
        if self.compute.compiler == "none":
            return self.run(images.to(self.compute.device, non_blocking=True))
        if self.held is None:
            shape = (self.compute.scoring_batch_size, *images.shape[1:])
            self.held = torch.zeros(shape, dtype=images.dtype, device=self.compute.device)
            self.run = partial(self.run, self.held)
            if self.compute.compiler == "graph":
                self.run = self.accelerated = CudaGraph(self.run)
        self.held[:number].copy_(images, non_blocking=True)
        student, autoencoder, maps = self.run()
        kept = (m[:number].clone() for m in (student, autoencoder, *maps))  # a replay reuses them
        student, autoencoder, *maps = kept
        return student, autoencoder, Maps(*maps)

    def distances(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the uncalibrated maps, each (N, 1, h, w) float32 on the device."""
        student, autoencoder, _ = self._maps(images)
        return student, autoencoder

    def maps(self, images: torch.Tensor) -> Maps:
        """Return the calibrated anomaly maps."""
        return self._maps(images)[-1]

    def score(self, images: torch.Tensor, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores (N,) and the anomaly maps (N, height, width) of `size`, on the device.

        float32; see `Detector.score`.
        """
        return score_maps(self.maps(images), size)

"""Calibrate a detector on good images: teacher statistics, map quantiles, thresholds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.images import Size, image_batches
from models.detector import THRESHOLDS, Detector, Maps, score_maps
from scoring.scorer import Scorer
from utils.devices import Compute, in_float64
from utils.progress import progress

# The least standard deviation of a channel. Good images without contrast have none, and noise would
# become features; on the least contrasted product that was measured the least is 0.045.
LEAST_STD = 1e-3


@dataclass
class ChannelMoments:
    """Running mean and variance of features for each channel: one pass, any number of images.

    Sums are float64, where a sum of squares loses nothing that float32 statistics could show.
    """

    count: int = 0
    total: torch.Tensor | float = 0.0
    squares: torch.Tensor | float = 0.0

    def add(self, features: torch.Tensor) -> None:
        """Take in features (N, C, h, w)."""
        wide = in_float64(features)
        self.count += wide[:, 0].numel()
        self.total = self.total + wide.sum((0, 2, 3))
        self.squares = self.squares + wide.square().sum((0, 2, 3))

    def mean_std(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the channels' means and standard deviations, float32 (1, C, 1, 1)."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0)
        shape = (1, -1, 1, 1)
        return mean.float().view(shape), variance.sqrt().float().clamp(min=LEAST_STD).view(shape)


def calibrate(
    detector: Detector, paths: list[Path], size: Size, workers: int, compute: Compute
) -> None:
    """Set the quantiles and then the threshold of each map from good validation images.

    A threshold is the highest score of a good validation image: what scores above it is
    stranger than anything known to be good. Source: EfficientAD, section 3.4.
    """
    scorer, bits = Scorer(detector.eval(), compute), int(detector.bits)
    raw, sizes = [], []  # each batch's two maps, the size of every image's file
    with progress("calibrating", len(paths), "img") as bar:
        count = compute.scoring_batch_size
        for batch, originals in image_batches(paths, size, workers, count, bits):
            raw.append(torch.stack(scorer.distances(batch)).cpu())
            sizes += originals
            bar.update(len(originals))
    raw = torch.cat(raw, 1)  # (2, N, 1, h, w)
    buffers = (detector.student_quantiles, detector.autoencoder_quantiles)
    for buffer, maps in zip(buffers, raw, strict=True):
        quantiles = np.quantile(maps.flatten().numpy(), detector.recipe.map_quantiles)
        buffer.copy_(torch.from_numpy(quantiles).float())
    scores = []  # of each image, (3,)
    for pair, original in zip(raw.split(1, 1), sizes, strict=True):
        maps = detector.calibrated(*pair.to(compute.device))
        scores.append(torch.cat([score_maps(one, original)[0] for one in maps]))
    for name, highest in zip(Maps._fields, torch.stack(scores).amax(0), strict=True):
        getattr(detector, THRESHOLDS[name]).copy_(highest)

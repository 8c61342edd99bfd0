"""Calibrate a detector on good images: teacher statistics, map quantiles, threshold."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.images import Size, image_batches, normalise
from models.detector import UNCALIBRATED, Detector

BATCH_SIZE = 8
QUANTILES = (0.9, 0.995)


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
        wide = features.double()
        self.count += wide[:, 0].numel()
        self.total = self.total + wide.sum((0, 2, 3))
        self.squares = self.squares + wide.square().sum((0, 2, 3))

    def mean_std(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the channels' means and standard deviations, float32 (1, C, 1, 1)."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0)
        shape = (1, -1, 1, 1)
        return mean.float().view(shape), variance.sqrt().float().clamp(min=1e-6).view(shape)


@torch.no_grad()
def set_teacher_statistics(detector: Detector, images: torch.Tensor, device: torch.device) -> None:
    """Store the teacher's channel mean and std over the training images, uint8 (N, 3, H, W)."""
    moments = ChannelMoments()
    batches = tqdm(images.split(BATCH_SIZE), "teacher statistics", leave=False)
    for batch in batches:
        moments.add(detector.teacher(normalise(batch.to(device))).float())
    mean, std = moments.mean_std()
    detector.teacher_mean.copy_(mean)
    detector.teacher_std.copy_(std)


def calibrate(
    detector: Detector, paths: list[Path], size: Size, device: torch.device, workers: int
) -> None:
    """Set the map quantiles, then the threshold, from good validation images.

    The threshold is the highest score of a good validation image: what scores above it is
    stranger than anything known to be good. Source of the quantiles: EfficientAD, section 3.4.
    """
    detector.eval()
    detector.student_quantiles.copy_(detector.student_quantiles.new_tensor(UNCALIBRATED))
    detector.autoencoder_quantiles.copy_(detector.autoencoder_quantiles.new_tensor(UNCALIBRATED))
    student, autoencoder = [], []
    for batch, _ in image_batches(paths, size, workers, "map quantiles"):
        maps = detector.maps(normalise(batch.to(device)))
        student.append(maps.student.cpu().numpy())
        autoencoder.append(maps.autoencoder.cpu().numpy())
    for buffer, maps in (
        (detector.student_quantiles, student),
        (detector.autoencoder_quantiles, autoencoder),
    ):
        values = np.concatenate([m.ravel() for m in maps])
        buffer.copy_(torch.from_numpy(np.quantile(values, QUANTILES)))

    scores = [
        detector.score(normalise(batch.to(device)), original)[0].max()
        for batch, original in image_batches(paths, size, workers, "threshold")
    ]
    detector.threshold.copy_(torch.stack(scores).max())

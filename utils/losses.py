"""The record of a training's losses: a CSV file and, where it is installed, TensorBoard."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from utils.files import written_aside

NOT_FINITE = "try --precision fp32"


class LossLog:
    """Means of the loss terms over a window of steps: a CSV file, TensorBoard, progress bar.

    Sums stay on the device; only `write` waits for it.
    """

    def __init__(self, path: Path, terms: Sequence[str], start: int, device: torch.device):
        self.path, self.terms, self.start = path, terms, start
        self.sums = torch.zeros(len(terms), device=device)
        self.count = 0
        kept = self._rows_before(start)
        with written_aside(self.path) as aside, aside.open("w", newline="") as file:
            csv.writer(file).writerows([("step", "total", *terms, "learning_rate"), *kept])
        self.file = self.path.open("a", newline="")
        self.tensorboard = open_tensorboard(path.parent, start)

    def _rows_before(self, step: int) -> list[list[str]]:
        """Return the rows that a resumed run keeps: those of the steps it will not repeat."""
        if not step or not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return [row for row in list(csv.reader(file))[1:] if int(row[0]) <= step]

    def add(self, terms: torch.Tensor) -> None:
        """Count in one step's terms, (T,), without waiting for the device."""
        self.sums += terms
        self.count += 1

    def write(self, step: int, rate: float) -> float:
        """Write the means since the last call; return their total.

        Raises FloatingPointError when the loss is no longer finite.
        """
        total = self.write_means(step, rate, (self.sums / self.count).tolist())
        self.sums.zero_()
        self.count = 0
        return total

    def write_means(self, step: int, rate: float, means: list[float]) -> float:
        """Write means that were taken elsewhere, as `write` does."""
        total = sum(means)
        if not np.isfinite(total):
            raise FloatingPointError(f"the loss is {total} near step {step}: {NOT_FINITE}")
        csv.writer(self.file).writerow((step, total, *means, rate))
        self.file.flush()
        if self.tensorboard:
            for name, value in zip(self.terms, means, strict=True):
                self.tensorboard.add_scalar(f"loss/{name}", value, step)
        return total

    def check(self, step: int) -> None:
        """Raise FloatingPointError when a loss since the last row is not finite."""
        if not self.sums.isfinite().all():
            raise FloatingPointError(f"the loss is not finite near step {step}: {NOT_FINITE}")

    def close(self) -> None:
        self.file.close()
        if self.tensorboard:
            self.tensorboard.close()


def open_tensorboard(folder: Path, start: int):
    """Return a TensorBoard writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=start)

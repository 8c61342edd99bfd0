"""The record of a training's losses: a CSV file and, where it is installed, TensorBoard."""

import csv
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from utils.files import written_aside

MOST_ROWS = 1000  # about
NOT_FINITE = "training anew with --precision fp32 or another --seed may help"


def row_every(steps: int) -> int:
    """Return how many of a training's `steps` one row is the mean of."""
    return max(1, steps // MOST_ROWS)


class LossLog:
    """Means of the loss terms over a window of steps: a CSV file, TensorBoard, progress bar.

    A window is `size` steps at most. Its losses stay on the device; only `write` waits for it.
    `begun` are those of a window that a checkpoint cut in two, see `unwritten`. Of the `absent`
    terms, which are 0 in every step, nothing is shown.
    """

    def __init__(
        self,
        path: Path,
        terms: Sequence[str],
        start: int,
        device: torch.device,
        size: int = 1,
        begun: Sequence[Sequence[float]] = (),
        absent: Sequence[str] = (),
    ):
        self.path, self.terms, self.step, self.absent = path, terms, start, absent
        self.window, self.count = torch.zeros(size, len(terms), device=device), len(begun)
        if begun:
            self.window[: len(begun)] = torch.tensor(begun)
        kept = self._rows_before(start)
        with (
            written_aside(self.path) as aside,
            aside.open("w", encoding="utf-8", newline="") as file,
        ):
            csv.writer(file).writerows([("step", "total", *terms, "learning_rate"), *kept])
        self.file = self.path.open("a", encoding="utf-8", newline="")
        self.tensorboard = open_tensorboard(path.parent, start)

    def _rows_before(self, step: int) -> list[list[str]]:
        """Return the rows that a resumed run keeps: those of the steps it will not repeat.

        A row that a crash cut short, or that is no row of ours, is dropped.
        """
        if not step or not self.path.is_file():
            return []
        with self.path.open(encoding="utf-8", errors="replace") as file:
            rows = [line.rstrip("\n").split(",") for line in file]
        rows = [row for row in rows if len(row) == len(self.terms) + 3]
        return [row for row in rows if re.fullmatch("[0-9]{1,9}", row[0]) and int(row[0]) <= step]

    def add(self, terms: torch.Tensor) -> None:
        """Note the next step's terms, (T,), without waiting for the device."""
        self.window[self.count] = terms
        self.count += 1
        self.step += 1

    def write(self, rate: float) -> float:
        """Write the means since the last call, which end with the last step; return their total.

        Raises FloatingPointError naming the step whose loss is not finite.
        """
        self.check()
        means = self.window[: self.count].mean(0).tolist()
        self.write_means(self.step, rate, means)
        self.count = 0
        return sum(means)

    def write_means(self, step: int, rate: float, means: list[float]) -> None:
        """Write means that were taken elsewhere, as `write` does."""
        if not np.isfinite(sum(means)):
            raise FloatingPointError(f"the loss is {sum(means)} near step {step}; {NOT_FINITE}")
        named = dict(zip(self.terms, means, strict=True))
        shown = ["" if name in self.absent else value for name, value in named.items()]
        try:
            csv.writer(self.file).writerow((step, sum(means), *shown, rate))
            self.file.flush()
        except OSError as error:  # which does not name the file
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        if self.tensorboard:
            for name in named.keys() - set(self.absent):
                self.tensorboard.add_scalar(f"loss/{name}", named[name], step)

    def check(self) -> None:
        """Raise FloatingPointError naming the first step since the last row whose loss is bad."""
        losses = self.window[: self.count].cpu()
        for place, term in (~losses.isfinite()).nonzero()[:1].tolist():
            step = self.step - self.count + place + 1
            what = f"the loss {self.terms[term]} is {losses[place, term]:g} at step {step}"
            raise FloatingPointError(f"{what}; {NOT_FINITE}")

    def unwritten(self) -> list[list[float]]:
        """Return the losses since the last row, one list a step."""
        return self.window[: self.count].tolist()

    def close(self) -> None:
        with suppress(OSError):  # of a full disk, after the error that told so
            self.file.close()
        if self.tensorboard:
            with suppress(OSError):
                self.tensorboard.close()


def open_tensorboard(folder: Path, start: int):
    """Return a TensorBoard writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=start)

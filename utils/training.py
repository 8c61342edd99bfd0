"""The training loop: EfficientAD's protocol, which GLAE shares."""

import argparse
import csv
import pickle
import time
from collections.abc import Iterator
from functools import lru_cache
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.images import Size, jitter, normalise
from data.natural import NaturalImages, natural_loader, penalty_view
from data.samples import InputError
from models.detector import Detector
from utils.devices import autocast
from utils.files import written_aside
from utils.interrupts import Interrupts
from utils.runs import Run

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 1e-5
DECAY_AT, DECAY = 0.95, 0.1  # after this part of the steps the learning rate is multiplied by that
CHECKPOINT_SECONDS = 60
MOST_ROWS = 1000  # of losses.csv, about
TERMS = ("hard", "autoencoder", "student_autoencoder", "penalty")


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of an epoch's images."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def batch_indices(step: int, batch_size: int, count: int, seed: int) -> list[int]:
    """Return which training images `step` sees: epochs of shuffled images without a gap."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [int(permutation(seed, p // count, count)[p % count]) for p in positions]


def decay_factor(step: int, steps: int) -> float:
    """Return what the learning rate is multiplied by at `step`."""
    return 1.0 if step < DECAY_AT * steps else DECAY


class Optimisation:
    """What changes from step to step beside the detector: optimiser, schedule, scaler, RNG."""

    def __init__(self, detector: Detector, steps: int, device: torch.device, dtype: torch.dtype):
        self.device = device
        self.adam = torch.optim.Adam(
            detector.trained_parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.adam, lambda step: decay_factor(step, steps)
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step(self, loss: torch.Tensor) -> None:
        """Take one step down the gradient of `loss`."""
        self.adam.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.adam)
        self.scaler.update()
        self.schedule.step()

    def state_dict(self) -> dict:
        """Return everything that a bit-for-bit continuation needs, as tensors and numbers."""
        on_device = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return {
            "adam": self.adam.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "device_rng": on_device,
        }

    def load_state_dict(self, state: dict) -> None:
        """Take up where `state_dict` left off."""
        self.adam.load_state_dict(state["adam"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if state["device_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_rng"], self.device)


class LossLog:
    """Means of the loss terms over a window of steps: losses.csv, TensorBoard, progress bar.

    Sums stay on the device; only `write` waits for it.
    """

    def __init__(self, run: Run, start: int, device: torch.device):
        self.path, self.start = run.losses_file, start
        self.sums = torch.zeros(len(TERMS), device=device)
        self.zero = torch.zeros((), device=device)
        self.count = 0
        kept = self._rows_before(start)
        with written_aside(self.path) as aside, aside.open("w", newline="") as file:
            csv.writer(file).writerows([("step", "total", *TERMS, "learning_rate"), *kept])
        self.file = self.path.open("a", newline="")
        self.tensorboard = open_tensorboard(run.folder, start)

    def _rows_before(self, step: int) -> list[list[str]]:
        """Return the rows that a resumed run keeps: those of the steps it will not repeat."""
        if not step or not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return [row for row in list(csv.reader(file))[1:] if int(row[0]) <= step]

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        """Count in one step's terms, without waiting for the device."""
        self.sums += torch.stack([losses.get(term, self.zero).detach() for term in TERMS])
        self.count += 1

    def write(self, step: int, learning_rate: float) -> float:
        """Write the means since the last call; return their total.

        Raises FloatingPointError when the loss is no longer finite.
        """
        means = (self.sums / self.count).tolist()
        total = sum(means)
        if not np.isfinite(total):
            raise FloatingPointError(f"the loss is {total} near step {step}: try --precision fp32")
        csv.writer(self.file).writerow((step, total, *means, learning_rate))
        self.file.flush()
        if self.tensorboard:
            for name, value in zip(TERMS, means, strict=True):
                self.tensorboard.add_scalar(f"loss/{name}", value, step)
        self.sums.zero_()
        self.count = 0
        return total

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


def natural_batches(
    paths: list[Path] | None, size: Size, options: argparse.Namespace, steps: range
) -> Iterator[torch.Tensor | None]:
    """Yield the penalty's natural images for each step, uint8 (B, 3, H, W); None without any."""
    if not paths:
        return repeat(None)
    images = NaturalImages(paths, size, options.seed, penalty_view)
    return iter(natural_loader(images, options.batch_size, steps, options.workers))


def fit(
    detector: Detector,
    images: torch.Tensor,
    natural: list[Path] | None,
    run: Run,
    options: argparse.Namespace,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Train student and autoencoder on `images`, uint8 (N, 3, H, W).

    Goes on from the run's checkpoint if there is one. Checkpoints once a minute, and when
    interrupted, which raises KeyboardInterrupt. The same options and seed give the same weights.
    """
    steps, seed = options.train_steps, options.seed
    detector.train()
    optimisation = Optimisation(detector, steps, device, dtype)
    start, seconds = load_checkpoint(run, detector, optimisation, device)
    log = LossLog(run, start, device)
    every = max(1, steps // MOST_ROWS)
    begun = saved = time.monotonic()

    def checkpoint(step: int) -> None:
        spent = seconds + time.monotonic() - begun
        save_checkpoint(run, detector, optimisation, step, spent)

    images = images.to(device)
    streamed = natural_batches(natural, images.shape[-2:], options, range(start, steps))
    bar = tqdm(range(start, steps), "training", steps, initial=start, unit="step", leave=False)
    try:
        with Interrupts() as interrupts:
            for step, views in zip(bar, streamed, strict=False):
                indices = batch_indices(step, options.batch_size, len(images), seed)
                batch = torch.stack([images[i] for i in indices])  # a list as index would wait
                jittered = jitter(batch, np.random.default_rng((seed, step)))
                inputs = [batch, jittered]
                if views is not None:
                    inputs.append(views.to(device, non_blocking=True))
                with autocast(device, dtype):
                    losses = detector.losses(*map(normalise, inputs))
                optimisation.step(sum(losses.values()))
                log.add(losses)
                done = step + 1
                if done % every == 0 or done == steps:  # reading the loss waits for the device
                    total = log.write(done, optimisation.schedule.get_last_lr()[0])
                    bar.set_postfix(loss=f"{total:.4f}")
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    checkpoint(done)
                    saved = time.monotonic()
                if interrupts.requested:
                    checkpoint(done)
                    raise KeyboardInterrupt(f" at step {done}; --resume goes on from there")
    finally:
        bar.close()
        log.close()
    if start < steps:
        checkpoint(steps)


def save_checkpoint(
    run: Run, detector: Detector, optimisation: Optimisation, step: int, seconds: float
) -> None:
    """Write the training state after `step` steps, one dict of tensors and numbers."""
    trained = {k: v for k, v in detector.state_dict().items() if not k.startswith("teacher.")}
    state = {"step": step, "seconds": seconds, "detector": trained}
    with written_aside(run.checkpoint_file) as aside:
        torch.save(state | {"optimisation": optimisation.state_dict()}, aside)


def load_checkpoint(
    run: Run, detector: Detector, optimisation: Optimisation, device: torch.device
) -> tuple[int, float]:
    """Continue from the run's checkpoint: (steps done, seconds spent); (0, 0) without one."""
    if not run.checkpoint_file.exists():
        return 0, 0.0
    try:
        state = torch.load(run.checkpoint_file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{run.checkpoint_file} is damaged: begin anew with --overwrite"
        ) from error
    detector.load_state_dict(state["detector"], strict=False)  # the teacher comes from its own file
    optimisation.load_state_dict(state["optimisation"])
    return state["step"], state["seconds"]

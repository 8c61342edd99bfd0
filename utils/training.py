"""The training loop: EfficientAD's protocol, which GLAE shares."""

import argparse
import hashlib
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import repeat

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from data.images import Size, draw_jitter
from data.natural import Files, NaturalImages, load_batches, penalty_view
from data.samples import InputError, permutation
from data.shards import Shards
from models.detector import Detector
from utils.devices import Compute
from utils.files import written_aside
from utils.interrupts import Interrupts
from utils.losses import LossLog
from utils.runs import Run
from utils.steps import TERMS, Optimisation, TrainingStep, learning_rate

CHECKPOINT_SECONDS = 60
MOST_ROWS = 1000  # of losses.csv, about


def batch_indices(step: int, batch_size: int, count: int, seed: int) -> list[int]:
    """Return which training images `step` sees: epochs of shuffled images without a gap."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [int(permutation(seed, p // count, count)[p % count]) for p in positions]


def natural_batches(
    source: Files | Shards | None, size: Size, options: argparse.Namespace, steps: range
) -> Iterator[torch.Tensor | None]:
    """Yield the penalty's natural images for each step, uint8 (B, 3, H, W); None without any."""
    if source is None:
        yield from repeat(None, len(steps))
        return
    images = NaturalImages(source, size, options.seed, penalty_view)
    yield from load_batches(images, options.batch_size, steps, options.workers)


def fit(
    detector: Detector,
    images: torch.Tensor,
    features: torch.Tensor | None,
    natural: Files | Shards | None,
    run: Run,
    options: argparse.Namespace,
    compute: Compute,
) -> None:
    """Train student and autoencoder on `images`, uint8 (N, 3, H, W), on the device.

    `features` are the teacher's of these images, see `TrainingStep`. Goes on from the run's
    checkpoint if there is one. Checkpoints once a minute, and when interrupted, which raises
    KeyboardInterrupt. The same options and seed give the same weights.
    """
    steps, seed, count = options.train_steps, options.seed, options.batch_size
    detector.train()
    optimisation = Optimisation(detector, steps, compute)
    start, seconds = load_checkpoint(run, detector, optimisation)
    train_step = TrainingStep(detector, optimisation, images, features, count, compute)
    log = LossLog(run.losses_file, TERMS, start, compute.device)
    saving = Saving(run, detector, optimisation, log, seconds)
    every = max(1, steps // MOST_ROWS)
    streamed = natural_batches(natural, images.shape[-2:], options, range(start, steps))
    bar = tqdm(range(start, steps), "training", steps, initial=start, unit="step", leave=False)
    try:
        with closing(streamed), Interrupts() as interrupts:  # which ends its processes
            for step, views in zip(bar, streamed, strict=True):
                indices = batch_indices(step, count, len(images), seed)
                changes = draw_jitter(count, np.random.default_rng((seed, step)))
                optimisation.set_learning_rate(step)
                log.add(train_step(indices, changes, views))
                done = step + 1
                if done % every == 0 or done == steps:  # reading the loss waits for the device
                    total = log.write(done, learning_rate(step, steps))
                    bar.set_postfix(loss=f"{total:.4f}")
                if saving.due() or done == steps or interrupts.requested:
                    saving.save(done)
                if interrupts.requested:
                    raise KeyboardInterrupt(f" at step {done}; --resume goes on from there")
    finally:
        bar.close()
        log.close()
        optimisation.adam.zero_grad(set_to_none=True)  # a graph's memory would stay with them


class Saving:
    """When and how the training state is saved: one dict of tensors and numbers."""

    def __init__(
        self, run: Run, detector: Detector, optimisation: Optimisation, log: LossLog, spent: float
    ):
        self.run, self.detector, self.optimisation = run, detector, optimisation
        self.log, self.spent = log, spent  # seconds of earlier sessions
        self.teacher = fingerprint(detector.teacher)
        self.begun = self.saved = time.monotonic()

    def due(self) -> bool:
        """Tell whether the last checkpoint is old."""
        return time.monotonic() - self.saved > CHECKPOINT_SECONDS

    def save(self, step: int) -> None:
        """Write the checkpoint after `step` steps, unless the loss has ceased to be finite."""
        self.log.check(step)
        state = {
            "step": step,
            "seconds": self.spent + time.monotonic() - self.begun,
            "teacher": self.teacher,
            "detector": without_teacher(self.detector),
            "optimisation": self.optimisation.state_dict(),
        }
        with written_aside(self.run.checkpoint_file) as aside:
            torch.save(state, aside)
        self.saved = time.monotonic()


def without_teacher(detector: Detector) -> dict[str, torch.Tensor]:
    """Return what of a detector is not in the teacher's own file."""
    return {k: v for k, v in detector.state_dict().items() if not k.startswith("teacher.")}


def fingerprint(network: nn.Module) -> str:
    """Return what tells a network's weights from others'."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_checkpoint(run: Run, detector: Detector, optimisation: Optimisation) -> tuple[int, float]:
    """Continue from the run's checkpoint: (steps done, seconds spent); (0, 0) without one.

    Raises InputError when it is damaged, or was made with another teacher.
    """
    path = run.checkpoint_file
    if not path.exists():
        return 0, 0.0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        same = state["teacher"] == fingerprint(detector.teacher)
        if same:
            detector.load_state_dict(state["detector"], strict=False)
            optimisation.load_state_dict(state["optimisation"], state["step"])
    except Exception as error:  # a cut file fails in any way
        raise InputError(f"{path} is damaged: begin anew with --overwrite ({error})") from error
    if not same:
        raise InputError(f"{path} was trained with another teacher: give its --weights")
    return state["step"], state["seconds"]

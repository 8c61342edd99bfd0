"""Distil teachers: the networks that learn, the loop, its checkpoint, and how well they learnt."""

import argparse
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch
from torch import nn

from data.images import normalise
from data.samples import InputError, report_faults
from data.workers import WorkerDied
from distillation.targets import BORDER, Cached, Streamed
from models.pdn import PDNS, TEACHER_CHANNELS
from scoring.calibration import ChannelMoments
from training.adam import (
    adam_tensors,
    empty_adam_tensors,
    prefixed,
    restore_adam,
    without_prefix,
)
from training.checkpoints import Due, check_finite
from training.loss_log import LossLog
from utils.devices import Compute, in_float64, seed_everything
from utils.files import DAMAGED
from utils.interrupts import Interrupts
from utils.processes import Processes
from utils.progress import progress
from utils.tensors import read_about, read_tensors, save_tensors

REPORT_STEPS = 20  # reading a loss waits for the device, and so does agreeing on an interrupt
WARM_UP = 0.02  # part of the steps, for the cosine schedule
WEIGHT_DECAY = 1e-5
RECIPE = (
    "backbone",
    "backbone_layers",
    "model_size",
    "image_size",
    "train_steps",
    "batch_size",
    "learning_rate",
    "schedule",
    "cached_views",
    "crop_size",
    "seed",
    "precision",
    "train_images",
)


def recipe(options: argparse.Namespace) -> dict:
    """Return what made the teachers, as opposed to places on somebody's disk."""
    return {name: getattr(options, name) for name in RECIPE}


def checkpoint_path(options: argparse.Namespace) -> Path:
    """Return where the state of an unfinished distillation lies."""
    return options.output_dir / "checkpoint.safetensors"


class Pupils(nn.ModuleDict):
    """The PDNs that learn from one backbone side by side, by size.

    Each is as it would be alone: the losses are independent, and so are the initial weights. (But
    in fp16 a step is left out for all when one overflows.)
    """

    def __init__(self, sizes: list[str], padding: bool, seed: int):
        pdns = {}
        for size in sizes:
            seed_everything(seed)
            pdns[size] = PDNS[size](padding=padding)
        super().__init__(pdns)

    def forward(self, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return each one's mean squared error, (sizes,): normalised images and features in."""
        images = images.contiguous(memory_format=torch.channels_last)
        outputs = (pdn(images).float() for pdn in self.values())
        return torch.stack([(output - target).square().mean() for output in outputs])


def learning_rate(step: int, options: argparse.Namespace) -> float:
    """Return the learning rate at `step`."""
    if options.schedule == "constant":
        return options.learning_rate
    progress = step / options.train_steps
    rise = min(1.0, (progress + 1 / options.train_steps) / WARM_UP)
    return options.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * progress))


class State:
    """What a checkpoint holds: networks, optimiser, the features' mean and std, steps done.

    `unreadable` counts the images that were skipped, in all processes.
    """

    def __init__(self, pupils: Pupils, options: argparse.Namespace, compute: Compute):
        self.pupils, self.options, self.device = compute.place(pupils), options, compute.device
        self.adam = torch.optim.Adam(pupils.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
        half = compute.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=half)
        self.mean = self.std = torch.empty(0)
        self.step = self.unreadable = 0

    def learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        return learning_rate(self.step, self.options)

    def descend(self, losses: torch.Tensor) -> None:
        """Take one step of the optimiser; the sum's gradient is that of each loss by itself."""
        for group in self.adam.param_groups:
            group["lr"] = self.learning_rate()
        self.adam.zero_grad(set_to_none=True)
        self.scaler.scale(losses.sum()).backward()
        self.scaler.step(self.adam)
        self.scaler.update()
        self.step += 1

    def save(self) -> None:
        """Write the checkpoint. Raises FloatingPointError when a weight is not finite."""
        check_finite(self.pupils.parameters(), self.step)
        tensors = prefixed("pupils", self.pupils.state_dict())
        tensors |= prefixed("adam", adam_tensors(self.adam)) | {"mean": self.mean, "std": self.std}
        about = {
            "step": self.step,
            "unreadable": self.unreadable,
            "scaler": self.scaler.state_dict(),
        }
        save_tensors(
            tensors, checkpoint_path(self.options), about | {"recipe": recipe(self.options)}
        )

    def load(self, processes: Processes) -> bool:
        """Go on from the checkpoint, if there is one; tell whether there was.

        The leading process reads it for all, so only that one needs the folder.
        """
        found = processes.from_leader(self._read() if processes.leads else None)
        if found is None:
            return False
        about, tensors = found
        self.pupils.load_state_dict(without_prefix("pupils", tensors))
        restore_adam(self.adam, without_prefix("adam", tensors))
        self.scaler.load_state_dict(about["scaler"])
        self.step, self.unreadable = about["step"], about["unreadable"]
        self.mean, self.std = (tensors[name].to(self.device) for name in ("mean", "std"))
        return True

    def _read(self) -> tuple[dict, dict[str, torch.Tensor]] | None:
        """Read the checkpoint. Raises InputError if it is damaged or of another recipe."""
        path, now = checkpoint_path(self.options), recipe(self.options)
        if not path.exists():
            return None
        try:
            about = read_about(path)
            former, numbers = about["recipe"], (about["step"], about["unreadable"])
            whole = all(type(number) is int and number >= 0 for number in numbers)
            if not (isinstance(former, dict) and isinstance(about["scaler"], dict) and whole):
                raise ValueError("its numbers are none")
            if about["step"] > self.options.train_steps:
                raise ValueError(f"step {about['step']} of {self.options.train_steps}")
            changed = [key for key in now if now[key] != former.get(key)]
            report_faults([f"--resume: {k} was {former.get(k)}, not {now[k]}" for k in changed])
            tensors = read_tensors(path, self.empty_tensors())
            check_finite(tensors.values(), about["step"])
            return about, tensors
        except (*DAMAGED, FloatingPointError) as error:
            raise InputError(f"{path} is damaged: begin anew with --overwrite ({error})") from error

    def empty_tensors(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint holds, as far as shapes go."""
        moments = torch.empty(1, TEACHER_CHANNELS, 1, 1, device="meta")
        tensors = prefixed("pupils", self.pupils.state_dict()) | {"mean": moments, "std": moments}
        return tensors | prefixed("adam", empty_adam_tensors(self.pupils.parameters()))


class Record:
    """Losses and speed on the way: losses.csv and a progress bar, of all processes together.

    `report` is called by every process at the same steps; only there do they wait for each other
    and for the device.
    """

    def __init__(self, state: State, source: Cached | Streamed, processes: Processes):
        self.state, self.source, self.processes = state, source, processes
        self.before = state.unreadable
        steps, sizes = state.options.train_steps, list(state.pupils)
        hidden = not (processes.leads and steps)
        self.bar = progress(
            "distilling", steps, "step", initial=state.step, disable=hidden, leave=True
        )
        self.sums, self.count = torch.zeros(len(sizes), device=state.device), 0
        self.log = None
        if processes.leads:
            path = state.options.output_dir / "losses.csv"
            self.log = LossLog(path, sizes, state.step, state.device)

    def add(self, losses: torch.Tensor) -> None:
        """Count in one step's losses, (sizes,), without waiting for the device."""
        self.sums += losses
        self.count += 1
        self.bar.update()

    def report(self) -> None:
        """Write the mean losses since the last call.

        Raises FloatingPointError when a loss is not finite.
        """
        skipped = self.sums.new_tensor([self.source.unreadable.number])
        shared = torch.cat([self.sums / self.count / self.processes.count, skipped])
        *means, skipped = self.processes.sum(shared).tolist()
        self.state.unreadable = self.before + int(skipped)
        self.sums.zero_()
        self.count = 0
        if self.log:
            rate = learning_rate(self.state.step - 1, self.state.options)
            self.log.write_means(self.state.step, rate, means)
            figures = self.bar.format_dict
            images = (figures["rate"] or 0) * self.state.options.batch_size
            waited = self.source.waited / max(figures["elapsed"], 1e-9)
            losses = ", ".join(f"{s} {m:.4f}" for s, m in zip(self.log.terms, means, strict=True))
            text = f"{losses}, {images:.0f} img/s, waiting {waited:.0%}"
            self.bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        self.bar.close()
        if self.log:
            self.log.close()


def fit(state: State, source: Cached | Streamed, compute: Compute, processes: Processes) -> None:
    """Train `state.pupils` to the last step, from the checkpoint if the options say so.

    Checkpoints by --checkpoint_every, when interrupted, which raises KeyboardInterrupt, and when no
    image comes any more.
    """
    options, device = state.options, compute.device
    if not (options.resume and state.load(processes)):
        moments = source.moments(processes)
        state.mean, state.std = (t.to(device) for t in moments.mean_std())
    network = processes.wrap(state.pupils)
    batches = source.batches(range(state.step, options.train_steps), processes)
    record = Record(state, source, processes)
    checkpoint = Due(options.checkpoint_every, state.step)
    with closing(record), closing(batches), Interrupts() as interrupts:
        while state.step < options.train_steps:
            try:
                images, features = next(batches)
            except (InputError, WorkerDied):  # between two steps, so what was learnt is whole
                if processes.leads and state.step > checkpoint.step:
                    state.save()
                raise
            inputs = normalise(images.to(device, non_blocking=True))
            target = (features.to(device, non_blocking=True).float() - state.mean) / state.std
            with compute.autocast():
                losses = network(inputs, target)
            state.descend(losses)
            record.add(losses.detach())
            stop, due = interrupts.requested, checkpoint(state.step)
            if processes.count > 1:  # all or none; asking a GPU at every step would slow it down
                wanted, stop, due = [float(stop), float(due)], False, False
                if device.type == "cpu" or state.step % REPORT_STEPS == 0:
                    flags = torch.tensor(wanted, device=device)
                    stop, due = (processes.sum(flags) > 0).tolist()
            due |= stop or state.step == options.train_steps
            if due or state.step % REPORT_STEPS == 0:
                record.report()
            if due:
                checkpoint.saved(state.step)
                if processes.leads:
                    state.save()
            if stop:
                processes.wait()  # or the launcher would end the leader while it saves
                if not processes.leads:
                    raise SystemExit(130)  # as the leader, which says so
                raise KeyboardInterrupt(f" after step {state.step}")


@torch.no_grad()
def explained_variance(pdn: nn.Module, pairs: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Return 1 - squared error / variance of `pdn` over (image, normalised features) pairs.

    uint8 (N, 3, S, S) and (N, C, S / 4, S / 4); judged where the unpadded PDN has outputs.
    """
    error, moments, device = 0.0, ChannelMoments(), next(pdn.parameters()).device
    for images, features in pairs:
        target = features[..., BORDER:-BORDER, BORDER:-BORDER].to(device).float()
        output = pdn(normalise(images.to(device))).float()
        error += in_float64(output - target).square().sum().item()
        moments.add(target)
    _, std = moments.mean_std()
    return 1 - error / (moments.count * std.double().square().sum().item())

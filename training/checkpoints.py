"""Checkpoints: when one is due, what it holds, and how one from a stranger is read.

A checkpoint is tensors and numbers in a .safetensors file. It is written aside, so the one before
stays until the new one is whole.
"""

import math
import time
import warnings
from collections.abc import Iterable

import torch
from torch import nn

from data.draws import DRAWS
from data.samples import InputError
from models.detector import LATER, Detector
from training.adam import adam_tensors, empty_adam_tensors, prefixed, without_prefix
from training.loss_log import NOT_FINITE, LossLog, row_every
from training.steps import TERMS, Optimisation, from_text
from utils.files import DAMAGED
from utils.runs import Run
from utils.teachers import weights_hash
from utils.tensors import check_tensors, read_about, read_tensors, save_tensors

SECONDS = {"s": 1, "m": 60, "h": 3600}


class Due:
    """Tells when the next checkpoint is due by --checkpoint_every; `step` is the last one's."""

    def __init__(self, every: str, step: int):
        seconds = SECONDS.get(every[-1])
        self.steps = math.inf if seconds else int(every)
        self.seconds = seconds * int(every[:-1]) if seconds else math.inf
        self.saved(step)

    def __call__(self, step: int) -> bool:
        """Tell whether one is due after `step` steps."""
        return step - self.step >= self.steps or time.monotonic() - self.time >= self.seconds

    def saved(self, step: int) -> None:
        """Begin to wait anew."""
        self.step, self.time = step, time.monotonic()


def check_finite(tensors: Iterable[torch.Tensor], step: int) -> None:
    """Raise FloatingPointError when a weight has ceased to be a finite number by `step`."""
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise FloatingPointError(f"a weight is not finite after step {step}; {NOT_FINITE}")


class Saving:
    """When and how the state of a detector's training is saved.

    `former` is what `load_checkpoint` returned, `every` is --checkpoint_every.
    """

    def __init__(
        self,
        run: Run,
        detector: Detector,
        optimisation: Optimisation,
        log: LossLog,
        former: dict,
        every: str,
    ):
        self.run, self.detector, self.optimisation, self.log = run, detector, optimisation, log
        self.spent = former["seconds"]  # of earlier sessions
        self.teacher = weights_hash(detector.teacher)
        self.begun, self.due = time.monotonic(), Due(every, former["step"])

    def save(self, step: int) -> None:
        """Write the checkpoint after `step` steps.

        Raises FloatingPointError instead when a loss or a weight is not finite: then the one before
        stays.
        """
        self.log.check()
        check_finite(self.detector.trained_parameters(), step)
        optimisation = self.optimisation.state_dict()
        tensors = prefixed("detector", without_teacher(self.detector))
        tensors |= prefixed("adam", adam_tensors(self.optimisation.adam))
        about = {
            "step": step,
            "seconds": self.spent + time.monotonic() - self.begun,
            "teacher": self.teacher,
            "draws": DRAWS,
            "losses": self.log.unwritten(),
            **optimisation,
        }
        save_tensors(tensors, self.run.checkpoint_file, about)
        self.due.saved(step)

    def kept(self) -> str:
        """Say what --resume would go on from."""
        there = self.run.checkpoint_file.exists()
        return (
            f"the checkpoint of step {self.due.step} is kept" if there else "nothing was saved yet"
        )


def without_teacher(detector: Detector) -> dict[str, torch.Tensor]:
    """Return what of a detector is not in the teacher's own file.

    Nor what earlier versions' checkpoints lack: it is found before or after training.
    """
    tensors = detector.state_dict().items()
    others = (*LATER, *detector.of_statistics())
    return {k: v for k, v in tensors if not k.startswith("teacher.") and k not in others}


def checkpoint_tensors(detector: Detector) -> dict[str, torch.Tensor]:
    """Return what a checkpoint of the detector's training holds, as far as shapes go."""
    adam = empty_adam_tensors(detector.trained_parameters())
    return prefixed("detector", without_teacher(detector)) | prefixed("adam", adam)


def check_checkpoint(run: Run, detector: Detector, teacher: nn.Module, steps: int) -> dict:
    """Return the numbers of the run's checkpoint; {} without one.

    Reads no more than its header. Raises InputError when it is damaged, or of another training
    than that of `detector`, which may be an empty one, with `teacher` for `steps` steps.
    """
    path = run.checkpoint_file
    if not path.exists():
        return {}
    try:
        check_tensors(path, checkpoint_tensors(detector))
        about = read_about(path)
        about["seconds"] = float(about["seconds"])
        if not (type(about["step"]) is int and 0 < about["step"] <= steps):
            raise ValueError(f"step {about['step']} of {steps}")
        if not 0 <= about["seconds"] < math.inf:
            raise ValueError(f"{about['seconds']} seconds")
        rows = torch.tensor(about["losses"]).view(-1, len(TERMS))
        if len(rows) >= row_every(steps):
            raise ValueError(f"{len(rows)} losses without a row")
        torch.Generator().set_state(from_text(about["rng"]))
        same = about["teacher"] == weights_hash(teacher)
    except DAMAGED as error:
        raise damaged(run, error) from error
    if not same:
        raise InputError(f"{path} was trained with another teacher: give its --weights")
    return about


def damaged(run: Run, error: Exception) -> InputError:
    """Return the error for a checkpoint that cannot be used."""
    return InputError(f"{run.checkpoint_file} is damaged: begin anew with --overwrite ({error})")


def load_checkpoint(run: Run, detector: Detector, optimisation: Optimisation) -> dict:
    """Continue from the run's checkpoint; return its "step", "seconds" and "losses".

    Without one, those of the beginning. Raises InputError as `check_checkpoint` does.
    """
    about = check_checkpoint(run, detector, detector.teacher, optimisation.steps)
    if not about:
        return {"step": 0, "seconds": 0.0, "losses": []}
    try:
        tensors = read_tensors(run.checkpoint_file, checkpoint_tensors(detector))
        detector.load_state_dict(without_prefix("detector", tensors), strict=False)
        check_finite(detector.trained_parameters(), about["step"])
        optimisation.load_state_dict(without_prefix("adam", tensors), about)
    except (*DAMAGED, FloatingPointError) as error:
        raise damaged(run, error) from error
    if about.get("draws") != DRAWS:
        text = "is of a version that drew other random numbers: no undisturbed run ends like this"
        warnings.warn(f"{run.checkpoint_file} {text}", stacklevel=2)
    return about

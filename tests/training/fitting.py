"""What tests of the training loop share: a short training, and what it leaves."""

import argparse
import csv
from pathlib import Path

import torch

from tests.training import stepping
from tests.training.stepping import some_images
from training.features import describe_training_images
from training.loop import fit
from utils.devices import Compute
from utils.runs import Run

COMPUTE = Compute(torch.device("cpu"))


def options(**changes) -> argparse.Namespace:
    defaults = {
        "train_steps": 6,
        "batch_size": 1,
        "seed": 5,
        "workers": 0,
        "checkpoint_every": "1m",
    }
    return argparse.Namespace(**defaults | changes)


def run_in(folder: Path) -> Run:
    run = Run(folder, "demo", "kit")
    run.folder.mkdir(parents=True)
    return run


def new_detector(size: str = "small"):
    """Return an untrained detector that knows its teacher's statistics."""
    detector = stepping.new_detector(size=size)
    describe_training_images(detector, some_images(), COMPUTE, budget=0)
    return detector


def fit_to(detector, run: Run, natural=None, compute: Compute = COMPUTE, **changes) -> None:
    """Train on some images with the teacher's features kept, as main.py does."""
    images = some_images().to(compute.device)
    features = describe_training_images(detector, images, compute, budget=64)
    assert features is not None
    fit(detector, images, features, natural, run, options(**changes), compute)


def train(folder: Path, natural=None, **changes):
    run, detector = run_in(folder), new_detector()
    fit_to(detector, run, natural, **changes)
    return run, detector


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def losses_of(run: Run) -> list[dict]:
    with run.losses_file.open() as file:
        return list(csv.DictReader(file))

"""Benchmark of a training step, alone or against the published one."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import matmul_rate, peak_memories, speed_settings
from benchmarks.published import PublishedTraining
from benchmarks.timing import OURS, blocks, compared, time_blocks
from data.catalog import find_root, read_category
from data.images import load_images
from data.natural import Files, find_natural_images
from data.samples import InputError
from models.building import build_detector
from models.recipe import PUBLISHED
from training.features import describe_training_images
from training.loop import batch_indices, jitter_changes, natural_batches
from training.steps import TERMS, Optimisation, TrainingStep, for_training, teacher_in
from utils.devices import Compute, seed_everything
from utils.options import dataset_path, image_size

ENDLESS = 10**9  # steps


class OurTraining:
    """The training step as main.py takes it, with its loader."""

    def __init__(
        self,
        images: torch.Tensor,
        natural: Files | None,
        options: argparse.Namespace,
        compute: Compute,
    ):
        self.options, self.compute, self.natural = options, compute, natural
        size = images.shape[-2:]
        detector = compute.place(build_detector(options.model, options.model_size, size))
        self.detector, self.images = detector.train(), images.to(compute.device)
        features = describe_training_images(detector, self.images, compute, options.feature_memory)
        self.optimisation = Optimisation(detector, ENDLESS, compute)
        self.train_step = TrainingStep(
            detector, self.optimisation, self.images, features, options.batch_size, compute
        )
        self.sums = torch.zeros(len(TERMS), device=compute.device)

    @contextmanager
    def running(self) -> Iterator[Callable[[], None]]:
        """Start the loader's processes; give the step; stop them."""
        size, numbers = self.images.shape[-2:], count()
        steps = range(ENDLESS)
        views = natural_batches(self.natural, size, self.options, PUBLISHED, steps, self.compute)

        def step() -> None:
            number, size, seed = next(numbers), self.options.batch_size, self.options.seed
            indices = batch_indices(number, size, len(self.images), seed)
            changes = jitter_changes(number, size, seed, PUBLISHED.jitter)
            self.optimisation.set_learning_rate(number)
            self.sums += self.train_step(indices, changes, next(views))

        with closing(views):
            yield step

    def operations(self) -> int:
        """Return the floating-point operations of one step, counted while it runs eagerly."""
        with FlopCounterMode(display=False) as counter:
            self.train_step.eager()
        return counter.get_total_flops()


def compare(
    ours: OurTraining,
    paths: list[Path],
    photographs: list[Path],
    options: argparse.Namespace,
    compute: Compute,
) -> tuple[dict, dict[str, int]]:
    """Time our steps, and the published ones beside them if asked for; return our peaks, too."""
    warm_up, steps, repeats = blocks(options, compute)
    contenders = {OURS: ours.running}
    time_blocks(contenders, compute.device, warm_up, 1, 1)
    peaks = peak_memories(compute)  # before the opponent takes any
    if options.against:
        size = image_size(options)
        detector = build_detector(options.model, options.model_size, size)
        contenders[options.against] = PublishedTraining(
            detector, paths, photographs, size, options.batch_size, compute.device
        ).running
    seconds = time_blocks(contenders, compute.device, warm_up, steps, repeats)
    return compared(seconds, "step"), peaks


def benchmark_training(options: argparse.Namespace, compute: Compute) -> dict:
    """Time training steps; return the figures and the settings that gave them."""
    root = find_root(options.dataset, dataset_path(options, options.dataset))
    category = read_category(options.dataset, root, options.subdataset, options.seed)
    paths = [sample.image for sample in category.train]
    natural = None
    if options.imagenet_train_path:
        natural = find_natural_images(options.imagenet_train_path)
        if not isinstance(natural, Files):
            raise InputError("benchmark.py takes natural images as files, not in shards")
    photographs = natural.paths if natural else []
    size, compute = image_size(options), for_training(compute)
    seed_everything(options.seed)
    ours = OurTraining(load_images(paths, size, options.workers), natural, options, compute)
    with teacher_in(compute.dtype, ours.detector):  # once: a graph reads that very copy
        result, peaks = compare(ours, paths, photographs, options, compute)
    operations, rate = ours.operations(), matmul_rate(compute)
    result |= {
        "batch_size": options.batch_size,
        "steps_per_second": 1 / result["seconds_per_step"],
        "images_per_second": options.batch_size / result["seconds_per_step"],
        "operations_per_step": operations,
        "matmul_operations_per_second": rate,
        "share_of_matmul": operations / result["seconds_per_step"] / rate,
    }
    settings = {"dataset": options.dataset, "subdataset": category.name, "images": len(paths)}
    names = ("model", "model_size", "image_size", "batch_size", "feature_memory", "workers")
    settings |= {name: getattr(options, name) for name in (*names, "repeats", "seed")}
    warm_up, steps, _ = blocks(options, compute)
    settings |= {"natural_images": len(photographs), "steps": steps, "warm_up": warm_up}
    settings |= speed_settings(compute)
    return {"benchmark": "train", **result, **peaks, "settings": settings}

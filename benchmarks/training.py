"""Benchmark of a training step, alone or against the published one."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import matmul_rate, peak_memories, speed_settings
from benchmarks.published import PublishedTraining
from benchmarks.timing import OURS, compared, time_blocks
from data.catalog import find_root, read_category
from data.images import draw_jitter, load_images
from data.natural import list_natural_images
from models.detector import build_detector
from utils.devices import Compute, seed_everything
from utils.features import describe_training_images
from utils.options import dataset_path, image_size
from utils.steps import TERMS, Optimisation, TrainingStep
from utils.training import batch_indices, natural_batches

ENDLESS = 10**9  # steps


class OurTraining:
    """The training step as main.py takes it, with its loader."""

    def __init__(self, images: torch.Tensor, natural: list, options, compute: Compute):
        self.options, self.compute, self.natural = options, compute, natural
        size = images.shape[-2:]
        detector = compute.place(build_detector(options.model, options.model_size, size))
        self.images = images.to(compute.device)
        features = describe_training_images(detector, self.images, compute, options.feature_memory)
        optimisation = Optimisation(detector.train(), ENDLESS, compute)
        self.train_step = TrainingStep(
            detector, optimisation, self.images, features, options.batch_size, compute
        )
        self.sums = torch.zeros(len(TERMS), device=compute.device)

    @contextmanager
    def running(self) -> Iterator[Callable[[], None]]:
        """Start the loader's processes; give the step; stop them."""
        size, numbers = self.images.shape[-2:], count()
        views = natural_batches(self.natural, size, self.options, range(ENDLESS))

        def step() -> None:
            number = next(numbers)
            indices = batch_indices(
                number, self.options.batch_size, len(self.images), self.options.seed
            )
            rng = np.random.default_rng((self.options.seed, number))
            changes = draw_jitter(self.options.batch_size, rng)
            self.train_step.optimisation.set_learning_rate(number)
            self.sums += self.train_step(indices, changes, next(views))

        try:
            yield step
        finally:
            if self.natural:
                views.close()

    def operations(self) -> int:
        """Return the floating-point operations of one step, counted while it runs."""
        with self.running() as step, FlopCounterMode(display=False) as counter:
            self.train_step.run = self.train_step._run  # a replay shows nothing to a counter
            step()
        return counter.get_total_flops()


def benchmark_training(options: argparse.Namespace, compute: Compute) -> dict:
    """Time training steps; return the figures and the settings that gave them."""
    root = find_root(options.dataset, dataset_path(options, options.dataset))
    category = read_category(options.dataset, root, options.subdataset, options.seed)
    paths = [sample.image for sample in category.train]
    natural = []
    if options.imagenet_train_path:
        natural = list_natural_images(options.imagenet_train_path)
    size = image_size(options)
    seed_everything(options.seed)
    ours = OurTraining(load_images(paths, size, options.workers), natural, options, compute)
    contenders = {OURS: ours.running}
    time_blocks(contenders, compute.device, options.warm_up, 1, 1)
    peaks = peak_memories(compute)  # before the opponent takes any
    if options.against:
        detector = build_detector(options.model, options.model_size, size)
        contenders[options.against] = PublishedTraining(
            detector, paths, natural, size, options.batch_size, compute.device
        ).running
    counts = (options.warm_up, options.steps, options.repeats)
    result = compared(time_blocks(contenders, compute.device, *counts), "step")
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
    names += ("steps", "warm_up", "repeats", "seed")
    settings |= {name: getattr(options, name) for name in names}
    settings |= {"natural_images": len(natural), **speed_settings(compute)}
    return {"benchmark": "train", **result, **peaks, "settings": settings}

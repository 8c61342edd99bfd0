"""From a grid's tasks to jobs: what main.py is called with, where it writes, what it needs."""

import argparse
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from data.catalog import find_root, survey_category
from data.images import Size
from models.pdn import TEACHER_CHANNELS
from sweeping.attempt import Job, place
from sweeping.finished import hash_of_options
from sweeping.grid import Task
from utils.options import Parser, dataset_path, image_size
from utils.presets import parse
from utils.runs import Run

MIB, GIB = 2**20, 2**30
# Of a process with the small networks at 256 x 256, 209 images' features aside: 2.1 GiB were
# measured. What grows with the image's size is about half of it.
FIXED, PER_PIXEL = 1280 * MIB, 1280 * MIB / 256**2
STRIDE, HALF = 4, 2  # of the teacher's features; bytes of each number


@dataclass(frozen=True)
class Planned:
    """A job, main.py's options for it, and the run that it makes in the sweep's own output."""

    job: Job
    options: argparse.Namespace
    run: Run


def planned(
    task: Task, root: str | Path | None, sweep: argparse.Namespace, parser: Parser
) -> Planned:
    """Return what is to be done for a task whose data set lies in `root` on this machine.

    `sweep` are sweep.py's options, `parser` is main.py's. Raises InputError for what main.py would
    refuse.
    """
    output = sweep.output_dir.resolve() / task.point
    start = "--overwrite" if sweep.overwrite else "--resume"
    line = [*place(task, root), f"--output_dir={output}", start, *task.arguments]
    options = parse(parser, line)
    folder, storage = output, None
    if sweep.storage:  # then a node has but a scratch folder of its own
        storage = "/".join(filter(None, (sweep.storage.rstrip("/"), task.point)))
        run = f"{storage}/{task.dataset}/{task.category}"
        own = hashlib.blake2b(run.encode(), digest_size=8).hexdigest()
        folder = sweep.cache.resolve() / "runs" / own
    job = Job(
        task,
        hash_of_options(options),
        folder,
        log_of(folder, task),
        start,
        sweep.cache.resolve(),
        int(sweep.cache_size * GIB),
        Path.cwd(),
        storage,
    )
    return Planned(job, options, Run(output, task.dataset, task.category))


def log_of(output: Path, task: Task) -> Path:
    """Return where the log of a task's attempts lies below its output folder."""
    return output / "logs" / task.dataset / f"{task.category}.log"


def host_memory(options: argparse.Namespace) -> int:
    """Return about how many bytes of memory a training takes, its features on the host."""
    root = dataset_path(options, options.dataset)
    count = training_images(options.dataset, root, options.subdataset)
    return memory_of(count, image_size(options), options.feature_memory * MIB)


@cache
def training_images(dataset: str, root: Path | None, name: str) -> int:
    """Return how many training images a category has, about: seeds hold out others, as many."""
    return len(survey_category(dataset, find_root(dataset, root), name, seed=0).train)


def memory_of(count: int, size: Size, budget: int) -> int:
    """Return about how many bytes a training on `count` images takes; features have a `budget`."""
    pixels = size[0] * size[1]
    features = count * TEACHER_CHANNELS * pixels // STRIDE**2 * HALF
    return int(FIXED + PER_PIXEL * pixels) + 3 * count * pixels + min(features, budget)

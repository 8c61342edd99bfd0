"""Benchmark of exported files: each format, precision and runtime beside torch's own way."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import metadata
from itertools import cycle
from pathlib import Path

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import int8_rate, matmul_rate
from benchmarks.timing import repeated, spread, time_blocks
from benchmarks.ways import (
    DETECTORS,
    ROOT,
    Way,
    exported_ways,
    judged,
    published_way,
    threaded,
    train,
)
from data.catalog import find_root, read_category
from data.images import decode, image_size
from data.samples import Category, InputError, Sample, evenly
from deployment.description import spread_of
from deployment.formats import FORMATS
from deployment.runtimes import RUNTIMES
from evaluation.image_metrics import auroc
from models.autoencoder import AUTOENCODERS
from models.pdn import PDNS
from prediction.predictor import load_detector
from utils.commands import say
from utils.devices import Compute
from utils.options import (
    Parser,
    add_dataset_options,
    check_image_size,
    check_not_negative,
    check_positive,
    dataset_path,
)
from utils.runs import Run

CPU = torch.device("cpu")
REFERENCE, OWN, PUBLISHED = "torch fp32", "torch bf16", "published fp32"


def add_deployment_options(command: Parser) -> None:
    """Add the options of the benchmark of exported files."""
    add_dataset_options(command, default="demo")
    group = command.add_argument_group("what is exported")

    def several(name: str, choices: Iterable[str], text: str) -> None:
        group.add_argument(name, nargs="+", choices=[*choices], default=[*choices], help=text)

    several("--model_size", PDNS, "of teacher and student")
    several("--detectors", DETECTORS, "the statistics alone; all four experts, after one step")
    several("--formats", FORMATS, "of export.py; what cannot be written or run is left out")
    group.add_argument("--model", choices=list(AUTOENCODERS), default="glae", help="autoencoder")
    text = "one side, or height and width"
    group.add_argument("--image_size", type=int, nargs="+", default=[256], help=text)
    text = "that statistics are fitted to; more change no time"
    group.add_argument("--good_images", type=int, default=20, help=text)
    group = command.add_argument_group("benchmark")
    group.add_argument("--threads", type=int, default=os.cpu_count(), help="of every way")
    text = "pictures timed in one block; all blocks go through the test images"
    group.add_argument("--steps", type=int, default=2, help=text)
    group.add_argument("--warm_up", type=int, default=1, help="pictures before them")
    group.add_argument("--repeats", type=int, default=5, help="blocks that the median is of")
    group.add_argument("--starts", type=int, default=3, help="fresh processes of each way")


def check_deployment(options: argparse.Namespace) -> list[str]:
    """Return the faults of these options."""
    faults = check_positive(options, "good_images", "threads", "steps", "repeats", "starts")
    return faults + check_not_negative(options, "warm_up") + check_image_size(options)


def link_good_images(category: Category, product: Path, count: int) -> None:
    """Make a product's folder of at most `count` good images to train on, and to validate on."""
    for split in ("train", "validation"):
        (product / split / "good").mkdir(parents=True)
        for number, sample in enumerate(evenly(getattr(category, split), count)):
            link = product / split / "good" / f"{number:05}{sample.image.suffix}"
            link.symlink_to(sample.image.resolve())


def taking_turns(
    way: Way, pictures: list[Image.Image], found: dict[int, tuple]
) -> Callable[[], None]:
    """Return a step that scores the next picture, after the last one the first.

    What is found is kept in `found` by the picture's number.
    """
    turns = cycle(enumerate(pictures))

    def step() -> None:
        number, picture = next(turns)
        found[number] = way.score(picture)

    return step


def compared(seconds: dict[str, list[float]], name: str) -> dict[str, float]:
    """Return a way's seconds a picture and, block by block, how many times as fast it is."""
    row = spread(seconds[name], "seconds_per_image")
    for other, key in ((OWN, "times_torch_bf16"), (PUBLISHED, "times_published")):
        pairs = zip(seconds[other], seconds[name], strict=True)
        row |= spread([theirs / ours for theirs, ours in pairs], key)
    return row


def agreement(
    found: dict[int, tuple], reference: dict[int, tuple], labels: list[int], deviation: float
) -> dict:
    """Return how far scores, verdicts and AUROC are from the reference's, of what was timed.

    Both have (score, anomalous) of each picture; `deviation` is that of good images' scores.
    """
    own, theirs = ([of[number] for number in sorted(found)] for of in (found, reference))
    aurocs = [auroc(labels, [score for score, _ in of]) for of in (own, theirs)]
    pairs = [*zip(own, theirs, strict=True)]
    return {
        "score_differs_by": max(abs(ours[0] - other[0]) for ours, other in pairs) / deviation,
        "other_verdicts": sum(ours[1] != other[1] for ours, other in pairs),
        "auroc": aurocs[0],
        "auroc_differs_by": None if None in aurocs else aurocs[0] - aurocs[1],
    }


def first_result(way: Way, picture: Path, options: argparse.Namespace) -> tuple[float, int]:
    """Return the seconds from a fresh process's start to its first result, its peak in bytes."""
    line = [sys.executable, "-m", "benchmarks.first_result", way.file, picture.resolve()]
    line += [way.runtime, way.loaded, str(options.threads)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    begun = time.perf_counter()
    with subprocess.Popen(line, cwd=ROOT, env=threaded(options), text=True, **pipes) as process:
        process.stdout.readline()
        seconds, peak = time.perf_counter() - begun, process.stdout.readline()
    if not peak:
        raise RuntimeError(f"{way.file} gave no result of {picture} in {way.runtime}")
    return seconds, int(peak)


def fresh(way: Way, picture: Path, options: argparse.Namespace) -> dict:
    """Return the bytes of a file and, of fresh processes, the seconds and the peak of memory."""
    firsts = [first_result(way, picture, options) for _ in range(options.starts)]
    size = sum(file.stat().st_size for file in way.file.parent.glob(f"{way.file.stem}.*"))
    row = {"file_bytes": size} | spread([seconds for seconds, _ in firsts], "first_result_seconds")
    return row | {"peak_memory_bytes": max(peak for _, peak in firsts)}


def operations(way: Way, picture: Image.Image) -> int:
    """Return the floating-point operations that one of torch's ways takes of a picture."""
    with FlopCounterMode(display=False) as counter:
        way.score(picture)
    return counter.get_total_flops()


def rates(options: argparse.Namespace) -> dict[str, float]:
    """Return the operations a second of large matrix products in each precision."""
    floats = {name: matmul_rate(Compute(CPU, name)) for name in ("fp32", "bf16")}
    return floats | {"int8": int8_rate(options.threads)}


def measure(
    run: Run, model_size: str, samples: list[Sample], options: argparse.Namespace
) -> list[dict]:
    """Return a row for each way to score by a run's detector, all of them timed in turn."""
    own = {name: load_detector(run.detector_file, "cpu", name) for name in ("fp32", "bf16")}
    ways = {
        f"torch {name}": Way(judged(predictor), name, run.detector_file, "torch", name)
        for name, predictor in own.items()
    }
    ways |= {PUBLISHED: published_way(model_size, options), **dict(exported_ways(run, options))}
    pictures, found = [decode(sample.image) for sample in samples], {name: {} for name in ways}
    steps = {name: repeated(taking_turns(way, pictures, found[name])) for name, way in ways.items()}
    seconds = time_blocks(steps, CPU, options.warm_up, options.steps, options.repeats)
    most = rates(options)
    deviation = spread_of(own["fp32"].good_scores.tolist())
    rows, labels = [], [sample.label for sample in samples]
    needed = {n: operations(ways[n], pictures[0]) for n in (REFERENCE, PUBLISHED)}
    for name, way in ways.items():
        row = {"what": name, "precision": way.precision} | compared(seconds, name)
        if way.file:
            row |= fresh(way, samples[0].image, options)
            row |= agreement(found[name], found[REFERENCE], labels, deviation)
        rows.append(row | share(needed.get(name, needed[REFERENCE]), row, most[way.precision]))
    return rows


def share(operations: int, row: dict, most: float) -> dict[str, float]:
    """Return a way's operations a picture, and which share of the `most` a second they are."""
    return {
        "operations_per_image": operations,
        "matmul_operations_per_second": most,
        "share_of_matmul": operations / row["seconds_per_image"] / most,
    }


def runtime_versions() -> dict[str, str]:
    """Return the versions of the runtimes that are installed."""
    versions = {}
    for name in RUNTIMES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def benchmark_deployment(options: argparse.Namespace) -> dict:
    """Return a row for each detector and way to score, and the settings that gave them."""
    root = find_root(options.dataset, dataset_path(options, options.dataset))
    category = read_category(options.dataset, root, options.subdataset, options.seed)
    samples = evenly(category.test, options.repeats * (options.warm_up + options.steps))
    if not samples:
        raise InputError(f"{root} has no test images of {category.name}: there is nothing to score")
    torch.set_num_threads(options.threads)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        product = Path(name) / "product"
        link_good_images(category, product, options.good_images)
        for model_size in options.model_size:
            for experts in options.detectors:
                say(f"{model_size}, {experts}: training, exporting, timing")
                output = Path(name) / f"{model_size}_{experts}"
                run = train(product, output, model_size, experts, options)
                of = {"model_size": model_size, "experts": experts}
                rows += [of | row for row in measure(run, model_size, samples, options)]
    settings = {"dataset": options.dataset, "subdataset": category.name, "images": len(samples)}
    settings |= {"map_size": image_size(samples[0].image), "runtimes": runtime_versions()}
    names = ("model", "image_size", "good_images", "threads", "steps", "warm_up", "repeats")
    settings |= {name: getattr(options, name) for name in (*names, "starts", "seed")}
    return {"benchmark": "deployment", "rows": rows, "settings": settings}

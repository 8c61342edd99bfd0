"""Measure how fast the parts are, on this machine: `python3 benchmark.py --help`.

Every figure is the median of several runs, each in a process of its own, so that its peak memory is
what the work takes from start to end.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import tifffile
from tabulate import tabulate
from tqdm import tqdm

from data.catalog import find_root, read_category
from data.images import image_size
from data.samples import Category, InputError, Sample
from utils.evaluation import map_path, measure, versions
from utils.ground_truth import read_mask
from utils.options import (
    Parser,
    add_dataset_options,
    check_positive,
    dataset_path,
    report_faults,
    run_command,
)

MAP_SIDE = 64  # outputs of a detector at 256 pixels a side, padded; maps are resized from there


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("Measure how fast the parts are, on this machine.", presets=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = "metrics from maps on disk: a test set's real masks, generated maps of its images' size"
    evaluation = commands.add_parser("evaluation", help=text, description=text, presets=False)
    add_dataset_options(evaluation, default="demo")
    group = evaluation.add_argument_group("benchmark")
    group.add_argument(
        "--images",
        type=int,
        nargs="+",
        help="how many, several for the cost against the count; more than there are repeat them; "
        "default: the test set, a half and a quarter of it",
    )
    group.add_argument("--repeats", type=int, default=3, help="runs that the median is of")
    group.add_argument("--workers", type=int, default=os.cpu_count(), help="threads")
    group.add_argument("--seed", type=int, default=0, help="of the maps")
    group.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def generate_map(sample: Sample, rng: np.random.Generator) -> np.ndarray:
    """Return a map as detectors make them, float32 of the image's size: smooth, often right."""
    size = image_size(sample.image)
    scores = rng.exponential(0.05, (MAP_SIDE, MAP_SIDE))
    for path in sample.masks:
        mask = (read_mask(path, size) > 0).astype(np.float32)
        small = cv2.resize(mask, scores.shape, interpolation=cv2.INTER_AREA)
        scores += rng.uniform(0, 0.4) * small
    return cv2.resize(scores.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def generate_test_set(category: Category, count: int, folder: Path, seed: int) -> Category:
    """Return `category` with `count` test images, evenly chosen or repeated; write their maps."""
    real, test = category.test, []
    for number in tqdm(range(count), "generating maps", unit="map", leave=False):
        sample = (
            real[number * len(real) // count] if count < len(real) else real[number % len(real)]
        )
        image = folder / "images" / sample.defect / f"{number:05}{sample.image.suffix}"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.symlink_to(sample.image.resolve())
        test.append(replace(sample, image=image))
        path = map_path(folder, test[-1])
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, generate_map(test[-1], np.random.default_rng((seed, number))))
    return replace(category, test=test)


def measure_once(category: Category, folder: Path, workers: int) -> tuple[float, int]:
    """Measure the maps in `folder`: (seconds, peak memory of this process in bytes)."""
    begun = time.perf_counter()
    measure(category, folder, workers)
    return time.perf_counter() - begun, peak_memory()


def peak_memory() -> int:
    """Return the most memory in bytes that this process had resident."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent had before it started this one
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def in_fresh_process(function, *arguments):
    """Return what `function` returns in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def benchmark_evaluation(options: argparse.Namespace) -> dict:
    """Return the rows of the evaluation benchmark and the settings that gave them."""
    root = find_root(options.dataset, dataset_path(options, options.dataset))
    category = read_category(options.dataset, root, options.subdataset, options.seed)
    if not any(sample.masks for sample in category.test):
        raise InputError(f"{root} has no masks for {category.name}: there is nothing to measure")
    there = len(category.test)
    rows = []
    for count in options.images or sorted({max(1, there // 4), max(1, there // 2), there}):
        with tempfile.TemporaryDirectory() as folder:
            chosen = generate_test_set(category, count, Path(folder), options.seed)
            runs = [
                in_fresh_process(measure_once, chosen, Path(folder), options.workers)
                for _ in range(options.repeats)
            ]
        seconds = [run[0] for run in runs]
        rows.append(
            {
                "images": count,
                "seconds": statistics.median(seconds),
                "seconds_min": min(seconds),
                "seconds_max": max(seconds),
                "seconds_per_image": statistics.median(seconds) / count,
                "images_per_second": count / statistics.median(seconds),
                "peak_memory_bytes": max(run[1] for run in runs),
            }
        )
    settings = {"dataset": options.dataset, "subdataset": category.name}
    settings["image_size"] = list(image_size(category.test[0].image))
    settings |= {"workers": options.workers, "repeats": options.repeats, "seed": options.seed}
    return {"benchmark": "evaluation", **rows[-1], "rows": rows, "settings": settings}


def machine() -> dict:
    """Return what a figure depends on beside the code."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return {"processor": name, "cores": os.cpu_count(), "system": platform.system(), **versions()}


def print_rows(result: dict) -> None:
    """Print a benchmark's rows as a table."""
    header = ["images", "seconds", "images/s", "ms/image", "peak memory, MiB"]
    body = [
        (
            row["images"],
            f"{row['seconds']:.2f} ({row['seconds_min']:.2f}-{row['seconds_max']:.2f})",
            f"{row['images_per_second']:.1f}",
            f"{1000 * row['seconds_per_image']:.1f}",
            f"{row['peak_memory_bytes'] / 2**20:.0f}",
        )
        for row in result["rows"]
    ]
    print(tabulate(body, header, colalign=("right",) * len(header), disable_numparse=True))


def check(options: argparse.Namespace) -> None:
    """Raise one InputError with every fault that the options alone show."""
    faults = check_positive(options, "repeats", "workers")
    if min(options.images or [1]) < 1:
        faults.append(f"--images must be at least 1, not {min(options.images)}")
    if options.seed < 0:
        faults.append(f"--seed must not be negative, as {options.seed} is")
    report_faults(faults)


def main(options: argparse.Namespace) -> None:
    """Run one benchmark and print its figures."""
    check(options)
    result = benchmark_evaluation(options) | {"machine": machine()}
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print_rows(result)


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

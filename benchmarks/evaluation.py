"""Benchmark of the metrics: a category's real masks, generated maps of its images' size.

Every figure is the median of several runs, each in a process of its own, so that its peak memory is
what the work takes from start to end.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import tifffile

from benchmarks.machine import in_fresh_process
from benchmarks.memory import peak_memory
from benchmarks.timing import spread
from data.catalog import find_root, read_category
from data.images import image_size
from data.mask_values import read_defect
from data.samples import Category, InputError, Sample
from evaluation.evaluation import measure
from evaluation.maps import map_path
from utils.options import dataset_path
from utils.progress import progress

MAP_SIDE = 64  # outputs of a detector at 256 pixels a side, padded; maps are resized from there


def generate_map(sample: Sample, rng: np.random.Generator) -> np.ndarray:
    """Return a map as detectors make them, float32 of the image's size: smooth, often right."""
    size = image_size(sample.image)
    scores = rng.exponential(0.05, (MAP_SIDE, MAP_SIDE))
    for path in sample.masks:
        mask = read_defect(path, size).astype(np.float32)
        small = cv2.resize(mask, scores.shape, interpolation=cv2.INTER_AREA)
        scores += rng.uniform(0, 0.4) * small
    return cv2.resize(scores.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def generate_test_set(category: Category, count: int, folder: Path, seed: int) -> Category:
    """Return `category` with `count` test images, evenly chosen or repeated; write their maps."""
    real, test = category.test, []
    for number in progress("generating maps", count, "map", range(count)):
        sample = (
            real[number * len(real) // count] if count < len(real) else real[number % len(real)]
        )
        image = folder / "images" / sample.defect / f"{number:05}{sample.image.suffix}"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.symlink_to(sample.image.resolve())
        test.append(replace(sample, image=image, within=None))
        path = map_path(folder, test[-1])
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, generate_map(test[-1], np.random.default_rng((seed, number))))
    return replace(category, test=test)


def measure_once(category: Category, folder: Path, workers: int) -> tuple[float, int]:
    """Measure the maps in `folder`: (seconds, peak memory of this process in bytes)."""
    begun = time.perf_counter()
    measure(category, folder, workers)
    return time.perf_counter() - begun, peak_memory()


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
        result = spread([run[0] for run in runs], "seconds")
        rows.append(
            {
                "images": count,
                **result,
                "seconds_per_image": result["seconds"] / count,
                "images_per_second": count / result["seconds"],
                "peak_memory_bytes": max(run[1] for run in runs),
            }
        )
    settings = {"dataset": options.dataset, "subdataset": category.name}
    settings["image_size"] = list(image_size(category.test[0].image))
    settings |= {"workers": options.workers, "repeats": options.repeats, "seed": options.seed}
    return {"benchmark": "evaluation", **rows[-1], "rows": rows, "settings": settings}

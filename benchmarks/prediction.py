"""Benchmark of predict.py: how near it comes to the bare network's rate, its start, its memory."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks.machine import in_fresh_process, speed_settings
from benchmarks.memory import peak_memory
from benchmarks.timing import spread
from data.images import Size, image_size, in_background, load_image
from prediction.exported_files import check_trained
from prediction.inputs import find_images
from prediction.output import Output, predict_files
from prediction.predictor import TrainedPredictor, load_detector
from prediction.records import columns_of, csv_file
from utils.devices import synchronise
from utils.progress import progress

MACHINE = ("device", "device_gpu", "precision", "compile", "scoring_batch_size")
ROOT = Path(__file__).parents[1]
SIDE = 900  # pixels of a drawn picture, as MVTec AD's
TINY = 64  # of one that only memory is measured with: then names and rows are what may grow
DIFFERENT = 12  # drawn pictures at most; links repeat them
GRAIN = 3.0  # grey levels, the standard deviation of a drawn picture's noise: a good camera's
NETWORK, DECODING, ROWS = "network", "decoding", "--csv"
IMPORTS = """
import time
begun = time.perf_counter()
import torch
middle = time.perf_counter()
import predict
print(middle - begun, time.perf_counter() - middle)
"""


def draw_pictures(folder: Path, count: int, side: int, seed: int) -> None:
    """Fill a folder with `count` PNG as photographs are to a decoder: smooth shades, and noise."""
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:06}.png"
        if number >= DIFFERENT:
            path.symlink_to(f"{number % DIFFERENT:06}.png")
            continue
        rng = np.random.default_rng((seed, number))
        shades = rng.uniform(40, 215, (6, 6, 3)).astype(np.float32)
        smooth = cv2.resize(shades, (side, side), interpolation=cv2.INTER_CUBIC)
        noisy = smooth + rng.normal(0, GRAIN, smooth.shape)
        Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8)).save(path)


def load(options: argparse.Namespace) -> TrainedPredictor:
    """Read the detector, to compute as the options say."""
    check_trained(options.detector)
    return load_detector(options.detector, **{name: getattr(options, name) for name in MACHINE})


def predict_all(
    predictor: TrainedPredictor, names: list[Path], workers: int, folder: Path, output: Output
) -> None:
    """Do what predict.py does with pictures after its start."""
    found = predict_files(predictor, find_images(names), output, workers, {})
    with csv_file(folder / "seen.csv", columns_of(predictor, False)) as row, closing(found):
        for prediction in found:
            row(prediction)


def score_loaded(predictor: TrainedPredictor, images: list[tuple[torch.Tensor, Size]]) -> None:
    """Score images that are in memory, in batches of the same size, and nothing else."""
    compute = predictor.scorer.compute
    for start in range(0, len(images), compute.scoring_batch_size):
        batch, sizes = zip(*images[start : start + compute.scoring_batch_size], strict=True)
        predictor.scorer.score(torch.stack(batch), sizes)
        synchronise(compute.device)


def ways(
    predictor: TrainedPredictor, images: list[Path], workers: int, folder: Path
) -> dict[str, Callable[[], object]]:
    """Return what is timed: the bare network, decoding alone, and all that predict.py does."""
    decode = partial(load_image, size=predictor.size, bits=int(predictor.detector.bits))
    loaded = list(in_background(decode, images, workers))
    work = partial(predict_all, predictor, images, workers, folder)
    maps, pictures = folder / "maps", folder / "pictures"
    return {
        NETWORK: partial(score_loaded, predictor, loaded),
        DECODING: lambda: list(in_background(lambda path: decode(path)[1], images, workers)),
        ROWS: partial(work, Output(None, None)),
        "--csv --maps": partial(work, Output(maps, None)),
        "--csv --pictures": partial(work, Output(None, pictures)),
    }


def time_ways(
    timed: dict[str, Callable[[], object]], count: int, repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """Time each way in turn, all of them `repeats` times after one that does not count.

    Returns for each its seconds and its cores' seconds, of one of `count` images.
    """
    found = {name: [] for name in timed}
    for number in progress("timing", repeats + 1, "round", range(repeats + 1)):
        for name, way in timed.items():
            begun, cores = time.perf_counter(), time.process_time()
            way()
            spent = time.perf_counter() - begun, time.process_time() - cores
            if number:
                found[name].append(tuple(seconds / count for seconds in spent))
    return found


def rates(found: dict[str, list[tuple[float, float]]]) -> list[dict]:
    """Return a row for each way: images a second, their share of the bare network's, cores."""
    bare = [seconds for seconds, _ in found[NETWORK]]
    rows = []
    for name, repeats in found.items():
        seconds, cores = zip(*repeats, strict=True)
        shares = [network / own for network, own in zip(bare, seconds, strict=True)]  # neighbours
        row = {"what": name} | spread([1 / one for one in seconds], "images_per_second")
        row |= spread(shares, "share_of_network")
        rows.append(row | {"core_seconds_per_image": statistics.median(cores)})
    return rows


def possible(rows: list[dict], cores: int) -> dict[str, float]:
    """Return the rate that nothing can exceed that decodes and computes on these cores alone."""
    by_name = {row["what"]: row for row in rows}
    needed = sum(by_name[name]["core_seconds_per_image"] for name in (NETWORK, DECODING))
    bare = by_name[NETWORK]["images_per_second"]
    rate = min(cores / needed, bare)
    return {"images_per_second": rate, "share_of_network": rate / bare}


def first_result(options: argparse.Namespace, image: Path) -> float:
    """Return the seconds from the command's start to its first line of results."""
    line = [sys.executable, ROOT / "predict.py", options.detector, image]
    line += [f"--{name}={v}" for name in MACHINE if (v := getattr(options, name)) is not None]
    begun = time.perf_counter()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(line, text=True, **pipes) as command:
        _, first = command.stdout.readline(), command.stdout.readline()  # below the header
        seconds = time.perf_counter() - begun
    if not first:
        raise RuntimeError(f"predict.py gave no result of {image}")
    return seconds


def imports() -> tuple[float, float]:
    """Return the seconds that torch takes to be imported, and what predict.py imports beside."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    torchs, ours = map(float, done.stdout.split())
    return torchs, ours


def starts(options: argparse.Namespace, image: Path) -> dict[str, dict[str, float]]:
    """Return the seconds to a first result, and of imports; files are in the system's cache."""
    found = {"first_result": [], "import_torch": [], "import_ours": []}
    for number in range(options.repeats + 1):
        row = (first_result(options, image), *imports())
        if number:
            for own, seconds in zip(found.values(), row, strict=True):
                own.append(seconds)
    return {name: spread(own, "seconds") for name, own in found.items()}


def memory_of(options: argparse.Namespace, count: int) -> int:
    """Return the peak of this process's memory in bytes, when it has scored `count` pictures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_pictures(folder / "images", count, TINY, options.seed)
        pictures = [folder / "images"]
        predict_all(load(options), pictures, options.workers, folder, Output(None, None))
    return peak_memory()


def benchmark_prediction(options: argparse.Namespace) -> dict:
    """Return the rates, the start, the peaks of memory and the settings that gave them."""
    predictor = load(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not options.images:
            draw_pictures(folder / "images", options.drawn, SIDE, options.seed)
        images = [*find_images(options.images or [folder / "images"])]
        rows = rates(
            time_ways(
                ways(predictor, images, options.workers, folder), len(images), options.repeats
            )
        )
        result = {"rows": rows, "possible": possible(rows, os.cpu_count())}
        settings = {"images": len(images), "image_size": image_size(images[0])}
        settings["mean_bytes"] = round(statistics.mean(path.stat().st_size for path in images))
        result |= starts(options, images[0])
    result["memory"] = [
        {"images": count, "peak_memory_bytes": in_fresh_process(memory_of, options, count)}
        for count in options.memory
    ]
    about, compute = predictor.about, predictor.scorer.compute
    settings |= {key: about[key] for key in ("model", "model_size")} | {"sees": predictor.size}
    settings |= {"experts": predictor.detector.experts, "batch_size": compute.scoring_batch_size}
    settings |= {name: getattr(options, name) for name in ("workers", "repeats", "seed")}
    return {"benchmark": "predict"} | result | {"settings": settings | speed_settings(compute)}

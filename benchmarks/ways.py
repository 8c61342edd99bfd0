"""The ways to score a picture that `benchmark.py deployment` compares: torch's, exported files'."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from benchmarks.published import ProductTransform, PublishedScoring
from data.samples import InputError
from deployment.formats import FORMATS
from deployment.runtimes import USUAL, load_exported
from models.building import build_detector
from prediction.exported import ExportedPredictor
from prediction.verdicts import Predictor
from utils.commands import printable, say
from utils.devices import seed_everything
from utils.options import image_size
from utils.runs import Run

ROOT = Path(__file__).parents[1]
# What is trained: one step tells how fast networks are as well as many do.
DETECTORS = {"statistics": 0, "all": 1}  # experts -> steps
MORE = {"torch": (("--compiled",),)}  # format -> options by which export.py writes another, too
# What else runs a file than the runtime of USUAL, and in which precision if not the file's.
ALSO = {".onnx": (("openvino", ""), ("openvino", "bf16"))}


class Way(NamedTuple):
    """A way to score a picture; the published one has no file."""

    score: Callable[[Image.Image], tuple]  # a picture's score, and whether it is anomalous
    precision: str  # of the networks
    file: Path | None = None
    runtime: str = ""  # of an exported file
    loaded: str = ""  # the precision that it is opened in; of a file, its own where it is empty


def threaded(options: argparse.Namespace) -> dict[str, str]:
    """Return the environment of a process whose torch has the threads of the options."""
    return {**os.environ, "OMP_NUM_THREADS": str(options.threads)}


def run_script(options: argparse.Namespace, *line: object) -> None:
    """Run one of our scripts. Raises InputError with the last line that it says if it fails."""
    command = [sys.executable, *map(str, line)]
    done = subprocess.run(
        command, cwd=ROOT, env=threaded(options), capture_output=True, text=True, check=False
    )
    if done.returncode:
        *_, last = done.stderr.splitlines() or [f"{line[0]} ended with {done.returncode}"]
        raise InputError(last.removeprefix("error: "))


def train(
    images: Path, output: Path, model_size: str, experts: str, options: argparse.Namespace
) -> Run:
    """Train a detector on a product's folder as main.py does; return its run."""
    line = ["main.py", "--dataset=folder", "--folder_path", images, "--output_dir", output]
    line += ["--model", options.model, "--model_size", model_size, "--seed", options.seed]
    line += ["--train_steps", DETECTORS[experts], "--image_size", *options.image_size]
    run_script(options, *line, "--device=cpu", "--workers", options.threads)
    return Run(output, "folder", images.name)


def export(run: Run, kind: str, how: list[str], options: argparse.Namespace) -> Path:
    """Write a run's detector as export.py does; return its file, which has its own folder."""
    folder = run.exports_folder / "".join((kind, *how))
    run_script(options, "export.py", run.folder, "--format", kind, *how, "--out", folder)
    return next(folder.glob(f"*{FORMATS[kind].suffix}"))


def judged(predictor: Predictor) -> Callable[[Image.Image], tuple[float, bool]]:
    """Return what takes a decoded picture to its map, its score and its verdict."""

    def score(picture: Image.Image) -> tuple[float, bool]:
        found = predictor.predict(picture)
        return found.score, found.anomalous

    return score


def published_way(model_size: str, options: argparse.Namespace) -> Way:
    """Return the published way to score: eager, fp32, three networks one after another."""
    seed_everything(options.seed)
    size = image_size(options)
    networks = build_detector(options.model, model_size, size)
    published, seen = PublishedScoring(networks, torch.device("cpu")), ProductTransform(size).plain

    def score(picture: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
        return published.score(seen(picture)[None], (picture.height, picture.width))

    return Way(score, "fp32")


@contextmanager
def left_out(name: str) -> Iterator[None]:
    """Tell on stderr what cannot be written or run here."""
    try:
        yield
    except InputError as error:
        say(printable(f"left out: {name}: {error}"))


def exported_ways(run: Run, options: argparse.Namespace) -> Iterator[tuple[str, Way]]:
    """Yield each format, precision and runtime that can be written and run here, by its name."""
    for kind in options.formats:
        for precision, more in product(FORMATS[kind].precisions, ((), *MORE.get(kind, ()))):
            name = " ".join((kind, *(option.removeprefix("--") for option in more)))
            with left_out(f"{name} {precision}"):
                file = export(run, kind, ["--precision", precision, *more], options)
                yield from opened_ways(file, name, precision, options)


def opened_ways(
    file: Path, name: str, precision: str, options: argparse.Namespace
) -> Iterator[tuple[str, Way]]:
    """Yield each runtime that opens a file of a precision; `name` is that of its format."""
    for runtime, loaded in ((USUAL[file.suffix], ""), *ALSO.get(file.suffix, ())):
        shown = loaded or precision
        called = f"{name} in {runtime} {shown}"
        with left_out(called):
            exported = load_exported(
                file, runtime, "cpu", loaded or None, options.threads, trusted=True
            )
            predictor = ExportedPredictor(exported, None)
            yield called, Way(judged(predictor), shown, file, runtime, loaded)

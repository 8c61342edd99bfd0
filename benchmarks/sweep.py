"""Benchmark of sweep.py: what it adds to a training, on this machine and on Ray."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.machine import in_fresh_process
from benchmarks.prediction import draw_pictures
from benchmarks.timing import spread
from sweeping.board import GO_ON, Board, Progress
from sweeping.journal import read_journal
from utils.commands import say
from utils.options import Parser
from utils.progress import progress
from utils.ray_cluster import connect

ROOT = Path(__file__).resolve().parent.parent
ALONE, HERE, ON_RAY = "main.py", "sweep.py", "sweep.py --ray local"
IMAGES = {"train/good": 8, "validation/good": 2, "test/good": 2, "test/dent": 2}
SIDE = 64  # pixels: what is added does not depend on what is trained
TINY = ("--model_size=small", "--train_steps=0", f"--image_size={SIDE}", "--workers=1")
# One training at a time, with the same thread, in all ways.
SERIAL = {"OMP_NUM_THREADS": "1", "RAY_OVERRIDE_RESOURCES": '{"CPU": 1}'}
RUN = 300  # seconds of a training that the overhead is a share of
BEATS = 1000
# Seconds to begin and to end, and of each task between.
Way = Callable[[Path], tuple[float, float]]


def add_sweep_options(command: Parser) -> None:
    """Add the options of the benchmark of sweep.py."""
    text = "how many trainings, statistics alone, one after another; 2 at least"
    command.add_argument("--tasks", type=int, default=8, help=text)
    command.add_argument("--repeats", type=int, default=5, help="rounds that the median is of")


def check_sweep(options: argparse.Namespace) -> list[str]:
    least = {"tasks": 2, "repeats": 1}
    found = {name: getattr(options, name) for name in least}
    return [
        f"--{name} must be at least {least[name]}, not {value}"
        for name, value in found.items()
        if value < least[name]
    ]


def run_script(script: str, *arguments: object) -> float:
    """Return the seconds that a script takes, from its call to its end."""
    line = [sys.executable, ROOT / script, *arguments, *TINY, "--device=cpu"]
    begun = time.perf_counter()
    done = subprocess.run(
        [*map(str, line)], capture_output=True, text=True, env=os.environ | SERIAL, check=False
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{script}: {done.stderr}")
    return seconds


def train_each(product: Path, tasks: int, output: Path) -> tuple[float, float]:
    """Train with each seed in a plain loop; see Way."""
    place = ("--dataset=folder", f"--folder_path={product}")
    total = sum(
        run_script("main.py", *place, f"--seed={seed}", f"--output_dir={output / str(seed)}")
        for seed in range(tasks)
    )
    return 0.0, total / tasks


def sweep_all(product: Path, tasks: int, more: list[str], output: Path) -> tuple[float, float]:
    """Train the same in one sweep; see Way."""
    seeds = ("--seeds", *range(tasks))
    total = run_script("sweep.py", "folder", product, *seeds, f"--output_dir={output}", *more)
    return parts(total, begins(output / "sweep" / "journal.jsonl"))


def begins(journal: Path) -> list[float]:
    """Return when the trainings of a sweep began, in seconds."""
    entries = read_journal(journal)
    times = [entry["time"] for entry in entries if entry["event"] == "begun"]
    return [datetime.fromisoformat(time).timestamp() for time in times]


def parts(total: float, times: list[float]) -> tuple[float, float]:
    """Divide a sweep's seconds by when its trainings began; see Way.

    From one to the next is a training with all that a sweep adds to it.
    """
    each = (max(times) - min(times)) / (len(times) - 1)
    return total - len(times) * each, each


def time_ways(ways: dict[str, Way], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Take each way in turn, all of them `repeats` times, into an output folder of its own."""
    found = {name: [] for name in ways}
    for _ in progress("timing", repeats, "round", range(repeats)):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as output:
                found[name].append(way(Path(output)))
    return found


def overheads(found: dict[str, list[tuple[float, float]]]) -> list[dict]:
    """Return a row for each way: its seconds, and what it adds to main.py's of the same round."""
    alone = [each for _, each in found[ALONE]]
    rows = []
    for name, rounds in found.items():
        start, each = zip(*rounds, strict=True)
        added = [own - mains for own, mains in zip(each, alone, strict=True)]
        row = {"what": name} | spread(start, "seconds_to_begin_and_end")
        row |= spread(each, "seconds_per_task") | spread(added, "added_seconds_per_task")
        rows.append(row | {"share_of_run": row["added_seconds_per_task"] / RUN})
    return rows


def seconds_per_beat(count: int) -> float:
    """Return how long an attempt on Ray waits for the board, which it asks twice a second."""
    ray = connect("local")
    board = ray.remote(num_cpus=0)(Board).remote()
    ray.get(board.exchange.remote(GO_ON))  # it is there
    told = ("mvtec_loco/screw_bag seed=0", Progress("node", 1000, "training: 12 %"))
    begun = time.perf_counter()
    for _ in range(count):
        ray.get(board.beat.remote(*told))
    return (time.perf_counter() - begun) / count


def benchmark_sweep(options: argparse.Namespace) -> dict:
    """Return what a sweep adds to each training, and what it takes once."""
    with tempfile.TemporaryDirectory() as folder:
        product = Path(folder, "product")
        for place, count in IMAGES.items():
            (product / place).parent.mkdir(parents=True, exist_ok=True)
            draw_pictures(product / place, count, SIDE, options.seed)
        own = partial(sweep_all, product, options.tasks)
        ways = {ALONE: partial(train_each, product, options.tasks), HERE: partial(own, [])}
        if find_spec("ray"):
            ways[ON_RAY] = partial(own, ["--ray=local"])
        else:
            say("without Ray: pip install -r requirements-ray.txt")
        train_each(product, 1, Path(folder, "first"))  # so that files are in the system's cache
        result = {"benchmark": "sweep", "rows": overheads(time_ways(ways, options.repeats))}
    beat = in_fresh_process(seconds_per_beat, BEATS) if ON_RAY in ways else None
    settings = {name: getattr(options, name) for name in ("tasks", "repeats", "seed")}
    return result | {"seconds_per_beat": beat, "settings": settings | {"run_seconds": RUN}}

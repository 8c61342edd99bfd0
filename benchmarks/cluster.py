"""Benchmark of predict.py --ray on this machine: one scorer, two, and predict.py without a cluster.

Each is a whole command, one after another in each round. Its steady rate leaves out its start: it
is that of the pictures after the first row, or part, until the last one.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks.prediction import ROOT, TINY, draw_pictures
from benchmarks.timing import spread
from prediction.cluster_options import BLOCK
from utils.files import user_path
from utils.options import Parser, check_positive
from utils.progress import progress

ALONE = "alone"
PAUSE = 0.5  # seconds between two looks at memory
PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


class Run(NamedTuple):
    """What a command took."""

    seconds: float
    images_per_second: float
    steady_images_per_second: float
    peak_memory_bytes: int  # of the command itself
    peak_scorer_memory_bytes: int  # of the largest scorer; 0 where there is none


def add_cluster_benchmark(command: Parser) -> None:
    """Add the options of the benchmark of predict.py --ray."""
    command.add_argument("detector", type=user_path, metavar="DETECTOR", help="as of predict.py")
    group = command.add_argument_group("benchmark")
    text = f"how many, drawn, PNG of {TINY} x {TINY} pixels"
    group.add_argument("--images", type=int, default=20_000, help=text)
    text = "numbers of scorers, each with one core"
    group.add_argument("--scorers", type=int, nargs="+", default=[1, 2], help=text)
    group.add_argument("--block", type=int, default=BLOCK, help="pictures a part")
    group.add_argument("--repeats", type=int, default=3, help="rounds that the median is of")


def check_cluster(options: argparse.Namespace) -> list[str]:
    """Return the faults of these options."""
    faults = check_positive(options, "block", "repeats")
    if options.images < 2 * options.block * max(options.scorers):
        faults.append("--images must be two blocks for each scorer, or more")
    if min(options.scorers) < 1:
        faults.append("--scorers must be at least 1")
    return faults


def benchmark_cluster(options: argparse.Namespace) -> dict:
    """Return the times, rates and peaks of memory of each way, and how they compare."""
    names = {ALONE: 0} | {f"scorers: {count}": count for count in options.scorers}
    runs: dict[str, list[Run]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_pictures(folder / "images", options.images, TINY, options.seed)
        for number in progress("timing", options.repeats, "round", range(options.repeats)):
            for way, count in names.items():
                out = folder / f"rows{number}.{count}"
                runs[way].append(time_command(options, folder / "images", out, count))
    rows = [row_of(way, count, runs) for (way, count) in names.items()]
    settings = {name: getattr(options, name) for name in ("images", "block", "repeats", "seed")}
    return {"benchmark": "cluster", "rows": rows, "settings": settings | {"side": TINY}}


def row_of(way: str, count: int, runs: dict[str, list[Run]]) -> dict:
    """Return a way's figures, and for several scorers their part of as many times one's rate."""
    row: dict = {"what": way, "scorers": count}
    for name in Run._fields:
        row |= spread([getattr(run, name) for run in runs[way]], name)
    if count and "scorers: 1" in runs:
        pairs = [*zip(runs[way], runs["scorers: 1"], strict=True)]  # neighbours in time
        for name in ("images_per_second", "steady_images_per_second"):
            shares = [getattr(ours, name) / count / getattr(one, name) for ours, one in pairs]
            row |= spread(shares, f"share_of_{name}")
    return row


def time_command(options: argparse.Namespace, images: Path, out: Path, scorers: int) -> Run:
    """Run predict.py on the CPU over a folder of images; 0 scorers is without a cluster."""
    line = [sys.executable, ROOT / "predict.py", options.detector, images, "--device", "cpu"]
    line += ["--csv", f"{out}/" if scorers else out]
    if scorers:
        line += ["--ray", "local", "--scorers", scorers, "--block", options.block]
    begun = time.perf_counter()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    peaks = [0, 0]
    with subprocess.Popen([*map(str, line)], **pipes) as process:
        threading.Thread(target=watch_memory, args=(process.pid, peaks), daemon=True).start()
        try:
            printed = [time.perf_counter() for _ in process.stdout][1:]  # below the header
            process.wait()
        finally:
            process.terminate()  # where this is interrupted
    if process.returncode:
        raise RuntimeError(f"predict.py failed with exit code {process.returncode}")
    seconds = time.perf_counter() - begun
    if scorers:
        printed = sorted(part.stat().st_mtime for part in out.glob("part-*"))
    step = options.block if scorers else 1  # but for the last part, which may be smaller
    count = options.images - step
    return Run(seconds, options.images / seconds, count / (printed[-1] - printed[0]), *peaks)


def watch_memory(command: int, peaks: list[int]) -> None:
    """Keep in `peaks` the peaks of memory, in bytes, of a command and of its largest scorer."""
    while Path("/proc", str(command), "status").exists():
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                own = int(process.name) == command
                scores = b"BlockScorer" in (process / "cmdline").read_bytes()
                if (own or scores) and (found := PEAK.search((process / "status").read_text())):
                    peaks[scores] = max(peaks[scores], 1024 * int(found[1]))
        time.sleep(PAUSE)

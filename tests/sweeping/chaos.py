"""A sweep as a process on a cluster of Ray, and what its trainings do, to be killed by a test."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from models.pdn import pdn_small
from sweeping.journal import read_journal
from tests.conftest import REPOSITORY, fill, make_mvtec_ad
from tests.sweeping.cluster import ENVIRONMENT, Nodes, remaining
from utils.runs import Run
from utils.tensors import read_about

if TYPE_CHECKING:
    from psutil import Process  # which Ray brings along

LIMIT = 180  # seconds that anything may take on a machine that has more to do
TINY = ["--image_size", "64", "--workers", "1", "--device", "cpu", "--cpus_per_run", "1"]
CATEGORIES = ("bottle", "cable", "tile")


def make_world(folder: Path, *names: str) -> Path:
    """Put a data set of these categories, or of all, and a teacher into a folder."""
    for index, name in enumerate(names or CATEGORIES):
        make_mvtec_ad(folder / "data", name)
        fill(folder / "data" / name / "train" / "good", 6 + index)  # else all were the same
    torch.manual_seed(0)
    torch.save(pdn_small().state_dict(), folder / "teacher.pth")
    return folder


@dataclass
class Training:
    """A main.py that runs: its process, and the run that it makes."""

    process: "Process"
    run: Run

    @property
    def saved(self) -> int:
        """The step of its last checkpoint; 0 before one."""
        file = self.run.checkpoint_file
        return int(read_about(file)["step"]) if file.exists() else 0


class Driver:
    """sweep.py over the categories of a world, in a process and a group of its own."""

    def __init__(self, world: Path, home: Path, *more: object):
        home.mkdir(exist_ok=True)
        line = [sys.executable, REPOSITORY / "sweep.py", "mvtec_ad", world / "data", *TINY]
        line += ["--weights", world / "teacher.pth", *more]
        self.home, self.errors = home, home / "errors.txt"
        with self.errors.open("a") as errors, (home / "table.txt").open("w") as table:
            self.process = subprocess.Popen(
                [*map(str, line)],
                cwd=home,
                stdout=table,
                stderr=errors,
                env=os.environ | ENVIRONMENT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.errors.read_text()

    @property
    def journal(self) -> list[dict]:
        return read_journal(self.home / "output" / "sweep" / "journal.jsonl")

    def tasks(self, event: str) -> list[str]:
        """Return the tasks to which that has happened, one as often as it has."""
        return [entry["task"] for entry in self.journal if entry["event"] == event]

    def wait(self) -> int:
        """Return the exit code."""
        return self.process.wait(5 * LIMIT)

    def wait_for(self, there: Callable):
        """Return what there is as soon as it is true; the sweep must not end before."""
        deadline = time.monotonic() + LIMIT
        while not (found := there()):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)
        return found

    def interrupt(self) -> None:
        """Press Ctrl-C: a terminal sends it to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def trainings(self) -> list[Training]:
        """Return what runs of this sweep, on whatever node."""
        import psutil

        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            named = dict(
                word[2:].split("=", 1) for word in line if word.startswith("--") and "=" in word
            )
            output = Path(named.get("output_dir", "/"))
            if "tethered.py" not in " ".join(line) and output.is_relative_to(self.home):
                found.append(Training(process, Run(output, "mvtec_ad", named["subdataset"])))
        return found


@contextmanager
def sweeping(world: Path, home: Path, *more: object) -> Iterator[Driver]:
    """Start a sweep; at the end of the block neither it nor a training of it is left."""
    driver = Driver(world, home, *more)
    try:
        yield driver
    finally:
        driver.process.kill()
        driver.process.wait()
        left = remaining([training.process for training in driver.trainings()])
    assert left == []


def node_of(training: Training, nodes: Nodes) -> int | None:
    """Return which node a training runs on."""
    ancestors = {process.pid for process in training.process.parents()}
    of = [index for index in range(len(nodes.nodes)) if nodes.raylet(index).pid in ancestors]
    return of[0] if of else None

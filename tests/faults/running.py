"""Run main.py in processes of their own that a test may kill, forked where torch is loaded."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import main
from models.pdn import pdn_small
from tests.conftest import fill, make_product
from utils.commands import run_command
from utils.runs import Run

CONTEXT = multiprocessing.get_context("forkserver")
# The others are imported by the first step of an optimiser and by the first metric.
CONTEXT.set_forkserver_preload(["tests.faults.running", "torch._dynamo", "sklearn.metrics"])
LIMIT = 120  # seconds
STEPS = 12


def make_world(folder: Path) -> Path:
    """Put a product, natural images and a teacher into a folder."""
    make_product(folder / "bolt")
    fill(folder / "natural", 4)
    torch.manual_seed(0)
    torch.save(pdn_small().state_dict(), folder / "teacher.pth")
    return folder


def command(world: Path, output: Path, *more: str) -> list[str]:
    """Return the options of a tiny run that saves itself at every second step."""
    line = ["--dataset", "folder", "--folder_path", world / "bolt", "--weights"]
    line += [world / "teacher.pth", "--output_dir", output, "--image_size", "64", "--precision"]
    line += ["fp32", "--workers", "1", "--train_steps", STEPS, "--checkpoint_every", "2", *more]
    return list(map(str, line))


def run_of(output: Path) -> Run:
    return Run(output, "folder", "bolt")


class Child:
    """main.py in a process of its own; `prepare` is called in it first."""

    def __init__(self, line: list[str], log: Path, prepare: Callable | None = None):
        self.log = log
        log.write_text("")
        self.process = CONTEXT.Process(target=run, args=(line, log, prepare))
        self.process.start()

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def wait(self) -> int:
        """Return the exit code, of a killed process its signal's number below 0."""
        self.process.join(LIMIT)
        assert not self.process.is_alive(), self.text()
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def wait_for(self, there: Callable[[], bool]) -> None:
        """Wait until something is there; the process must not end before."""
        deadline = time.monotonic() + LIMIT
        while not there():
            assert self.process.is_alive(), self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.001)

    def text(self) -> str:
        """Return what it wrote, without progress bars."""
        lines = self.log.read_text().replace("\r", "\n").splitlines()
        return "\n".join(line for line in lines if line.strip() and "it/s" not in line)


def run(line: list[str], log: Path, prepare: Callable | None) -> None:
    """Be main.py with these options; write what it says into a file."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_start_method("fork", force=True)  # of decoding processes, as for a user
    torch.set_num_threads(1)
    sys.argv = ["main.py", *line]
    if prepare:
        prepare()
    sys.exit(run_command(main.main, main.get_parser))


def finish(line: list[str], log: Path, prepare: Callable | None = None) -> tuple[int, str]:
    """Run main.py to its end; return its exit code and what it said."""
    child = Child(line, log, prepare)
    return child.wait(), child.text()

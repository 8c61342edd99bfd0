"""One attempt at a task: main.py as a process of its own, followed until it ends."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from data.catalog import DATASETS
from sweeping.board import GO_ON, SAVE, STOP, Progress, Stopped
from sweeping.finished import hash_of_tests, write_mark
from sweeping.grid import Task
from sweeping.mirror import Mirror
from utils.cache import cached
from utils.files import user_path
from utils.runs import Run
from utils.storage import Store, is_url

ROOT = Path(__file__).resolve().parent.parent
PAUSE = 0.5  # seconds between two looks at a training
TAIL = 4096  # bytes of a log that its last line is looked for in
INTERRUPTED = 130  # main.py's exit code, too


@dataclass(frozen=True)
class Job:
    """All that an attempt at a task needs, wherever it is made."""

    task: Task
    options: str  # see `hash_of_options`
    output: Path  # main.py's --output_dir; with a storage, a scratch folder of the node
    log: Path  # likewise
    start: str  # --resume or --overwrite
    cache: Path  # where data sets from URLs lie
    cache_size: int  # bytes
    folder: Path  # that relative paths among the task's arguments start from
    storage: str | None = None  # the URL of the task's output
    again: bool = False  # not the first attempt of this sweep

    @property
    def run(self) -> Run:
        """The run that is trained: beside a former one that is overwritten, while there is such."""
        run = Run(self.output, self.task.dataset, self.task.category)
        new = replace(run, replacement=True)
        return new if new.config_file.exists() else run

    @property
    def how(self) -> str:
        """What main.py is to do: of an --overwrite, a later attempt goes on with the first's."""
        begun = self.again and (self.storage or self.run.replacement)
        return "--resume" if begun else self.start

    @property
    def log_place(self) -> str:
        """Where people find the log."""
        kept = self.log.relative_to(self.output).as_posix()
        return f"{self.storage}/{kept}" if self.storage else str(self.log)


class Slot(NamedTuple):
    """Where an attempt runs."""

    device: str | None = None  # which its options may overrule; None: theirs, else the usual one
    threads: int | None = None  # of the processor; None: as the environment says


class Ending(NamedTuple):
    """How an attempt ended."""

    code: int  # main.py's exit code; the negative number of the signal that ended it
    line: str  # the last one of its log
    node: str


def attempt(job: Job, slot: Slot, beat: Callable[[str, Progress], int]) -> Ending:
    """Train and evaluate a task's category in a slot.

    `beat` is `Board.beat`. Raises OSError or InputError where data or storage cannot be reached.
    """
    node = " ".join(filter(None, (socket.gethostname(), slot.device)))

    def ask(line: str = "") -> int:
        progress = Progress(node, last_step(job.run), line or last_line(job.log))
        return beat(job.task.name, progress)

    try:
        with ExitStack() as stack:
            mirror = stack.enter_context(mirrored(job, ask)) if job.storage else None
            root = job.task.root
            if root and is_url(root):
                ask(f"fetching {root}")
                root = stack.enter_context(cached(root, job.cache, job.cache_size))
            with training(command(job, root, slot.device), job, slot.threads) as process:
                code = followed(process, ask, mirror)
            if code == 0:
                write_mark(job.run, job.options, hash_of_tests(*data_of(job, root)))
            if mirror:
                mirror.send()
            return Ending(code, last_line(job.log), node)
    except Stopped:
        return Ending(INTERRUPTED, "stopped while files were fetched or sent", node)


def command(job: Job, root: str | Path | None, device: str | None) -> list[str]:
    """Return main.py's command line; a device that the task's own options name wins."""
    line = [sys.executable, str(ROOT / "main.py"), *place(job.task, root)]
    line += [f"--output_dir={job.output}", job.how]
    return [*line, *([f"--device={device}"] if device else []), *job.task.arguments]


def place(task: Task, root: str | Path | None) -> list[str]:
    """Return main.py's arguments for a task's category, whose data set lies in `root`."""
    option = DATASETS[task.dataset].option
    where = [f"--{option}={root}"] if option and root else []
    return [f"--dataset={task.dataset}", f"--subdataset={task.category}", *where]


def data_of(job: Job, root: str | Path | None) -> tuple[str, Path, str]:
    """Return the data set that main.py reads, where it lies, and the category."""
    task = job.task
    path = cwd_of(job) / user_path(str(root or DATASETS[task.dataset].default_path))
    return task.dataset, path, task.category


def cwd_of(job: Job) -> Path:
    """Return where relative paths start from."""
    return job.folder if job.folder.is_dir() else Path.cwd()


@contextmanager
def training(line: list[str], job: Job, threads: int | None) -> Iterator[subprocess.Popen]:
    """Start main.py, which writes into the log; at the end of the block it has ended."""
    tether = [sys.executable, "-I", str(ROOT / "sweeping" / "tethered.py"), str(os.getpid())]
    share = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(line)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [*(tether if sys.platform == "linux" else []), *line],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | share,
            cwd=cwd_of(job),
            start_new_session=True,  # a terminal's Ctrl-C is the sweep's, which passes it on
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def followed(
    process: subprocess.Popen, ask: Callable[[], int], mirror: Mirror | None = None
) -> int:
    """Wait for main.py, tell of its progress, do what is asked; return its exit code.

    `ask` tells of it and returns what to do.
    """
    done = GO_ON
    while True:
        try:
            asked = ask()
            if asked > done:
                (process.kill if asked == STOP else process.terminate)()
                done = asked
            if mirror:
                mirror.send_checkpoint()
            return process.wait(PAUSE)
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:  # what cancels a task of Ray
            process.terminate()
            done = max(done, SAVE)


@contextmanager
def mirrored(job: Job, ask: Callable[[str], int]) -> Iterator[Mirror]:
    """Give the mirror of the task's output in the storage, fetched; a node keeps nothing of it.

    What is to be replaced is removed there first, unless an earlier attempt has done so: a training
    beside it, as main.py begins one, could go on nowhere else.
    """
    mirror = Mirror(Store(job.storage), job.run, job.log, ask)
    try:
        if job.start == "--overwrite" and (not job.again or mirror.is_finished()):
            mirror.clear()
        else:
            mirror.fetch()
        yield mirror
    finally:
        mirror.remove()


def last_step(run: Run) -> int:
    """Return how many steps of a run its losses tell of; 0 before any."""
    row = tail(run.losses_file).rpartition("\n")[0].rpartition("\n")[2]
    found = re.match(r"\d{1,9},", row)
    return int(found[0][:-1]) if found else 0


def last_line(log: Path) -> str:
    """Return the last line of a log that says anything; "" without one."""
    lines = (line.strip() for line in reversed(re.split(r"[\r\n]", tail(log))))
    return next(filter(None, lines), "")


def tail(file: Path) -> str:
    """Return the end of a text file; "" where there is none."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - TAIL))
            return opened.read().decode(errors="replace")
    except FileNotFoundError:
        return ""

"""What tests of a watched folder share: a watcher in a thread, and how predict.py is ended."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import predict
from prediction.journal import Version
from prediction.watching import Watcher
from utils.commands import run_command

LIMIT = 60  # seconds


def wait_for(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Watched:
    """Within the block, a watcher of a folder at work; `found` is what it gave, by its names."""

    def __init__(self, folder: Path, known: set[int] | None = None):
        self.folder, self.over = folder, False
        self.lists: list[list[Version]] = []
        self.watcher = Watcher(folder, set() if known is None else known, lambda: self.over)
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for versions in self.watcher.lists():
            self.lists.append(versions)

    @property
    def found(self) -> list[str]:
        versions = [version for some in self.lists for version in some]
        return [version.path.relative_to(self.folder).as_posix() for version in versions]

    def __enter__(self) -> "Watched":
        self.thread.start()
        wait_for(lambda: self.folder in self.watcher.entered and self.watcher.events.observed)
        return self

    def wait_for(self, *names: str) -> None:
        wait_for(lambda: len(self.found) >= len(names))
        assert sorted(self.found) == sorted(names)

    def __exit__(self, *exception) -> None:
        self.over = True
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()


@contextmanager
def interrupted_when(there: Callable[[], bool]) -> Iterator[None]:
    """Send this process SIGINT once something is there, as a user who has seen enough.

    And after LIMIT, or a test that fails would never end; but not behind the block.
    """
    over = threading.Event()

    def interrupt() -> None:
        deadline = time.monotonic() + LIMIT
        while not (there() or over.wait(0.005) or time.monotonic() > deadline):
            pass
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def lines_of(path: Path) -> list[str]:
    return path.read_text("utf-8", "surrogateescape").splitlines() if path.exists() else []


def be_predict(line: list[str], log: Path) -> None:
    """Be predict.py with these options, in a process of its own; add what it says to a file."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    torch.set_num_threads(1)
    sys.argv = ["predict.py", *line]
    sys.exit(run_command(predict.main, predict.get_parser))

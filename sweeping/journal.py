"""What happened in a sweep, a line of JSON each, which survive kill -9."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from sweeping.standing import Standing
from utils.commands import print_warning


class Journal:
    """Appends to `path`, whose folder is made; raises OSError where it cannot be opened.

    A disk that fills later is told of once, and what then happens is not noted.
    """

    def __init__(self, path: Path):
        self.path, self.told = path, set()
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self.descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)

    def note(self, standing: Standing, event: str, **more: object) -> None:
        """Note what happened to a task: begun, done, failed, lost, stopped or found.

        `more` are further fields, such as the exit code. The line is on the disk on return.
        """
        entry = {"time": timestamp(), "task": standing.name, "event": event}
        entry |= {"attempt": standing.attempt, "node": standing.node}
        entry |= {"seconds": standing.seconds(time.time()), "line": standing.line} | more
        with dispensable(self.path, self.told):
            line = f"{self.mend()}{json.dumps(entry)}\n".encode()
            while line:  # one write, but on a disk that fills
                line = line[os.write(self.descriptor, line) :]
            os.fsync(self.descriptor)

    def mend(self) -> str:
        """Return what ends a line that a kill or a full disk has torn."""
        length = os.lseek(self.descriptor, 0, os.SEEK_END)
        if length:
            os.lseek(self.descriptor, length - 1, os.SEEK_SET)
        return "\n" if length and os.read(self.descriptor, 1) != b"\n" else ""

    def close(self) -> None:
        os.close(self.descriptor)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def dispensable(path: Path, told: set[Path]) -> Iterator[None]:
    """Let the sweep go on where a file about it cannot be written; say so once."""
    try:
        yield
    except OSError as error:
        if path not in told:
            print_warning(f"{path}: {error.strerror}: the sweep goes on without it")
        told.add(path)


def timestamp() -> str:
    """Return the time in UTC by ISO 8601, in milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def read_journal(path: Path) -> list[dict]:
    """Return the entries of a journal, without what a kill or a full disk has torn."""
    entries = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries

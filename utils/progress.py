"""Progress on stderr: a bar in a terminal, a line a minute in a log file."""

import sys
from collections.abc import Iterable
from typing import TextIO

from tqdm import tqdm

PAUSE = 60  # seconds between two lines of a log file


class Lines:
    """A file for a bar that is not on a terminal: what would be drawn over is a line of its own."""

    def __init__(self, file: TextIO):
        self.file = file

    def write(self, text: str) -> None:
        if line := text.strip():
            self.file.write(f"{line}\n")

    def flush(self) -> None:
        self.file.flush()


def progress(what: str, total: int, unit: str, items: Iterable | None = None, **more) -> tqdm:
    """Return a bar of `total` units, over `items` if given; `more` is tqdm's.

    It leaves nothing behind, and short work leaves nothing in a log file at all.
    """
    more = {"leave": False, "desc": what, "total": total, "unit": unit} | more
    if not sys.stderr.isatty():
        more |= {"file": Lines(sys.stderr), "delay": PAUSE, "miniters": 1}
        more |= {"mininterval": PAUSE, "maxinterval": PAUSE}
    return tqdm(items, **more)

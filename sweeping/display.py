"""How a sweep stands: a table in a terminal, lines in a log file, status.json for programs."""

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from sweeping.journal import dispensable, timestamp
from sweeping.standing import Standing, count, seconds_left
from sweeping.table import Table, summary, table_lines, title, window
from utils.commands import printable
from utils.files import written_aside
from utils.progress import PAUSE

REDRAWN, WRITTEN = 0.5, 2.0  # seconds between two tables, two status files


class Display:
    """Shows `standings`, which the sweep changes; `slots` tells how many tasks run at once."""

    def __init__(
        self,
        standings: list[Standing],
        slots: Callable[[], int],
        status_file: Path,
        stream: TextIO | None = None,
    ):
        self.standings, self.slots, self.status_file = standings, slots, status_file
        self.stream = stream or sys.stderr
        drawable = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.table = Table(self.stream) if drawable else None
        self.shown = self.written = float("-inf")
        self.counted = time.monotonic()
        self.begun = [standing.begun for standing in standings]
        self.told: set[Path] = set()

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def say(self, line: str) -> None:
        """Print a line, in a terminal above the table."""
        with suppress(OSError):  # nobody reads it any more, or the log's disk is full
            tqdm.write(printable(line), file=self.stream)

    def show(self, last: bool = False) -> None:
        """Show how all stands, unless that was just done; the `last` time the counts alone."""
        now = time.monotonic()
        if now - self.shown < REDRAWN and not last:
            return
        self.shown = now
        counts = count(self.standings)
        left = seconds_left(self.standings, self.slots(), time.time())
        if self.table is None:
            self.log(summary(counts, left), now, last)
        else:
            size = window(self.stream)
            shown = [] if last else self.standings
            self.table.lines = table_lines(shown, summary(counts, left), size)
            with suppress(OSError):
                self.table.refresh()
        if now - self.written >= WRITTEN or last:
            self.written = now
            self.write_status(counts, left)

    def log(self, counted: str, now: float, last: bool) -> None:
        """Say what has begun, and once a minute how many tasks are in each state."""
        for index, standing in enumerate(self.standings):
            if standing.begun != self.begun[index]:
                self.begun[index] = standing.begun
                self.say(title(standing))
        if now - self.counted >= PAUSE or last:
            self.counted = now
            self.say(counted)

    def write_status(self, counts: dict[str, int], left: float | None) -> None:
        """Write all that is known as JSON; who reads it finds a whole file at any time."""
        now, status = time.time(), {"updated": timestamp(), "counts": counts, "eta_seconds": left}
        status["tasks"] = {standing.name: record(standing, now) for standing in self.standings}
        path = self.status_file
        with dispensable(path, self.told), written_aside(path, durable=False) as aside:
            aside.write_text(json.dumps(status))

    def close(self) -> None:
        """Leave the counts as the last line, and status.json as all stands now."""
        self.show(last=True)
        if self.table is not None:
            with suppress(OSError):
                self.table.close()


def record(standing: Standing, now: float) -> dict[str, object]:
    """Return what status.json says of a task."""
    return {
        "state": standing.state,
        "attempt": standing.attempt,
        "node": standing.node,
        "step": standing.step,
        "steps": standing.steps,
        "steps_per_second": standing.rate,
        "seconds": standing.seconds(now),
        "line": standing.line,
        "log": standing.log,
    }

"""The table of a sweep, redrawn in place, of the size of the terminal's window."""

import os
import textwrap
import time
from collections.abc import Sequence
from typing import TextIO

from tqdm import tqdm

from sweeping.fitting import columns, fitted
from sweeping.standing import DONE, FAILED, FOUND, RUNNING, STOPPED, WAITING, Standing
from utils.commands import printable

LATEST = 5  # failed tasks that are shown
LEAST = 12  # columns that are of use to a text
HEADINGS = ("task", "step", "steps/s", "time", "node", "last line")
TEXTS = ("task", "node", "last line")  # they may be cut, numbers may not
PLAIN, DIM, RED, RESET = "", "\x1b[2m", "\x1b[31m", "\x1b[m"
ERASE, ERASE_BELOW = "\x1b[K", "\x1b[J"
# A terminal may draw a sign wider than Unicode says: then the line is cut, not broken in two.
UNBROKEN, BROKEN = "\x1b[?7l", "\x1b[?7h"
GAP = "  "  # between two columns
Line = tuple[str, str]  # style, text


class Table(tqdm):
    """Styled lines that are drawn over; tqdm takes them away while something else is written."""

    monitor_interval = 0  # no thread that redraws

    def __init__(self, stream: TextIO):
        self.lines: list[Line] = []
        self.drawn: list[int] = []  # columns of the lines that are there
        super().__init__(total=0, file=stream)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the lines over the former, in one write, so that nothing flickers."""
        lines = "\r\n".join(f"{ERASE}{styled(style, text)}" for style, text in self.lines)
        self.fp.write(f"{self.top()}{UNBROKEN}{lines}{ERASE_BELOW}{BROKEN}")
        self.fp.flush()
        self.drawn = [columns(text) for _, text in self.lines]

    def clear(self, nolock: bool = False) -> None:
        """Take the lines away."""
        self.fp.write(f"{self.top()}{ERASE_BELOW}")
        self.drawn = []

    def top(self) -> str:
        """Return what moves to the first line; a window made narrower has broken the long ones."""
        width = window(self.fp).columns
        rows = sum(max(1, -(-length // width)) for length in self.drawn)
        return f"\r\x1b[{rows - 1}A" if rows > 1 else "\r"


def styled(style: str, text: str) -> str:
    """Return a text as a terminal is to show it, see no-color.org."""
    return f"{style}{text}{RESET}" if style and not os.environ.get("NO_COLOR") else text


def window(stream: TextIO) -> os.terminal_size:
    """Return the columns and lines of a terminal, of one that does not know 80 and 24."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        size = os.terminal_size((0, 0))
    return size if all(size) else os.terminal_size((80, 24))


def table_lines(standings: Sequence[Standing], counted: str, size: os.terminal_size) -> list[Line]:
    """Return the lines of a table that fits into the window.

    The tasks that run come first, then those that failed, the latest first, then the counts.
    """
    width = max(1, size.columns - 1)  # in the last, terminals differ on where the cursor is
    counts = [(PLAIN, line) for line in textwrap.wrap(counted, width)][: size.lines]
    room = max(0, size.lines - 1 - len(counts))
    rows = running_lines([one for one in standings if one.state == RUNNING], width)
    if len(rows) > room:
        kept = max(0, room - 1)
        rows[kept:] = [(DIM, fitted(f"… and {len(rows) - kept} more", width))]
    failed = [standing for standing in standings if standing.state == FAILED]
    failed.sort(key=lambda standing: standing.ended or 0.0, reverse=True)
    rows += [failed_line(standing, width) for standing in failed[:LATEST]]
    return [*rows[:room], *counts]


def running_lines(running: Sequence[Standing], width: int) -> list[Line]:
    """Return a heading and a line for each task, of as many columns of cells as have room."""
    if not running:
        return []
    now, left, parts = time.time(), width, []
    for column in zip(HEADINGS, *(cells(one, now) for one in running), strict=True):
        needed, text = max(map(columns, column)), column[0] in TEXTS
        size = min(needed, left, width if column[0] == HEADINGS[-1] else width // 2)
        if size < (min(needed, LEAST) if text else needed):
            break
        parts.append([fitted(cell, size) if text else cell.rjust(size) for cell in column])
        left -= size + len(GAP)
    lines = [GAP.join(row) for row in zip(*parts, strict=True)]
    return [(PLAIN if number else DIM, line) for number, line in enumerate(lines)]


def cells(standing: Standing, now: float) -> tuple[str, ...]:
    """Return what the table says of a task that runs, below HEADINGS."""
    return (
        title(standing),
        f"{standing.step}/{standing.steps}" if standing.steps else "",
        f"{standing.rate:.2f}" if standing.rate else "",
        tqdm.format_interval(standing.seconds(now) or 0),
        printable(standing.node),
        printable(standing.line),
    )


def failed_line(standing: Standing, width: int) -> Line:
    """Return the line of a task that failed: the last of its log is the reason."""
    name = title(standing)
    text = f"failed: {fitted(name, min(columns(name), width // 2))}: "
    reason = fitted(standing.line, max(1, width - columns(text)))
    return RED, fitted(text + reason, width)


def title(standing: Standing) -> str:
    """Return a task's name, and which attempt it is, if it is not the first."""
    again = f" (attempt {standing.attempt})" if standing.attempt > 1 else ""
    return f"{printable(standing.name)}{again}"


def summary(counts: dict[str, int], left: float | None) -> str:
    """Return how many tasks are in each state, and when about all have ended."""
    done = counts[DONE] + counts[FOUND]
    said = f"{counts[RUNNING]} running, {counts[WAITING]} waiting, {done} done"
    said += f", {counts[FAILED]} failed"
    said += f", {counts[STOPPED]} stopped" if counts[STOPPED] else ""
    return f"{said}, about {roughly(left)} left" if left else said


def roughly(seconds: float) -> str:
    """Return a time in the unit in which it is a small number."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"

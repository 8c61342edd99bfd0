"""What a sweep and its attempts know of each other while they run."""

import threading
from typing import NamedTuple

GO_ON, SAVE, STOP = range(3)  # what attempts are asked to do: STOP without saving


class Stopped(Exception):
    """An attempt has left off, as it was asked to."""


class Progress(NamedTuple):
    """How far an attempt is."""

    node: str  # the machine that it runs on
    step: int = 0  # of the training, by the last row of its losses
    line: str = ""  # the last one of its log


class Board:
    """Where attempts leave their progress, and read what they are asked to do.

    On Ray this is an actor, in whose methods nothing waits. It may begin anew, so it is told again
    and again what to ask for.
    """

    def __init__(self):
        self.lock = threading.Lock()  # attempts on this machine are threads
        self.asked, self.found = GO_ON, {}

    def beat(self, name: str, progress: Progress) -> int:
        """Note a task's progress; return what its attempt is to do."""
        with self.lock:
            self.found[name] = progress
            return self.asked

    def exchange(self, asked: int) -> dict[str, Progress]:
        """Ask all attempts to do `asked`; return each task's progress since the last call."""
        with self.lock:
            self.asked, found, self.found = asked, self.found, {}
            return found

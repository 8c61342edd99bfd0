"""Ctrl-C and SIGTERM as a request that a loop grants between two steps."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

SAME = 1.0  # seconds: a terminal and a parent process may both pass on one Ctrl-C


class Interrupts:
    """Within the block, the first SIGINT or SIGTERM only sets `requested`; a later one raises.

    Training can then stop where its state is whole, not in the middle of an optimiser's step. The
    first one also calls `asked`, for a loop that may be long between two steps.
    """

    def __init__(self, asked: Callable[[], None] | None = None):
        self.asked = asked
        self.since: float | None = None

    @property
    def requested(self) -> bool:
        return self.since is not None

    def __enter__(self) -> "Interrupts":
        self._former = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere no handler can be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.since is None:
            self.since = now
            if self.asked:  # in a thread of its own: this one may hold any lock
                threading.Thread(target=self.asked).start()
        elif now - self.since > SAME:
            raise KeyboardInterrupt

    def __exit__(self, *exception) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

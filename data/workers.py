"""Processes that decode images: what they do when interrupted, and what is known when one dies."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import RawArray, active_children

GRACE = 20  # seconds that a worker goes on after SIGTERM
PATIENCE = 2  # seconds, for a process whose connection is lost to be gone


class WorkerDied(RuntimeError):
    """A decoding process ended without being asked to."""


class Reading:
    """What each of several worker processes reads at the moment, in case that it dies of it."""

    def __init__(self, workers: int):
        self.pids = RawArray("q", workers)
        self.names = [RawArray("c", 4096) for _ in range(workers)]

    def note(self, name: str = "") -> None:
        """Note that this process reads `name`, or nothing any more."""
        from torch.utils.data import get_worker_info

        worker = get_worker_info()
        if worker:
            self.pids[worker.id] = os.getpid()
            self.names[worker.id].value = os.fsencode(name)[:4095]

    def of_the_dead(self, patience: float) -> list[str]:
        """Return what each worker that is gone was reading, "" for nothing.

        One that is about to be gone is waited for, `patience` seconds.
        """
        deadline = time.monotonic() + patience
        while True:
            alive = {child.pid for child in active_children()}
            places = zip(self.pids, self.names, strict=True)
            dead = [os.fsdecode(name.value) for pid, name in places if pid and pid not in alive]
            if dead or not any(self.pids) or time.monotonic() > deadline:
                return dead
            time.sleep(0.01)


@contextmanager
def raised_at_next() -> Iterator[None]:
    """Keep a loader made within from raising a worker's death anywhere, amid a step of training.

    It then raises only where a batch is asked for. The handler of torch that an earlier loader has
    left behind goes, too.
    """
    main = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    former = signal.getsignal(signal.SIGCHLD) if main else None
    yield
    if main:
        of_torch = getattr(former, "__module__", "").startswith("torch.")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if of_torch else former or signal.SIG_DFL)


def leave_interrupts_to_parent(worker: int) -> None:
    """Go on in a worker after Ctrl-C or SIGTERM: to stop cleanly, training still needs its batch.

    A launcher sends SIGTERM to all processes of a group. GRACE is for a parent that was killed, or
    that ends this worker by SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))

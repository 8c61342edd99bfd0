"""Attempts on this machine: one at a time on each slot, a part of a GPU or of the processor."""

import os
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue

from sweeping.attempt import Ending, Job, Slot, attempt
from sweeping.board import GO_ON, SAVE, STOP, Board, Progress
from utils.commands import say


class LocalExecutor:
    """Makes attempts in threads of this process, each in one of the slots."""

    def __init__(self, slots: list[Slot]):
        self.slots, self.board, self.asked = len(slots), Board(), GO_ON
        self.pool, self.free = ThreadPoolExecutor(len(slots) or 1), SimpleQueue()
        self.jobs: dict[Future, Job] = {}
        for slot in slots:
            self.free.put(slot)

    def start(self, job: Job) -> None:
        """Make an attempt as soon as a slot is free."""
        self.jobs[self.pool.submit(self._attempt, job)] = job

    def _attempt(self, job: Job) -> Ending:
        slot = self.free.get()
        try:
            return attempt(job, slot, self.board.beat)
        finally:
            self.free.put(slot)

    def ended(self, seconds: float) -> list[tuple[Job, Ending | Exception | None]]:
        """Return how attempts have ended since the last call; wait for one for some seconds.

        None is for one that was taken back before it began.
        """
        done = wait(self.jobs, seconds, FIRST_COMPLETED).done
        return [(self.jobs.pop(one), outcome(one)) for one in done]

    def progress(self) -> dict[str, Progress]:
        return self.board.exchange(self.asked)

    def save(self) -> None:
        """Let what runs save and end; begin nothing more."""
        self.asked = SAVE
        self.progress()
        for one in self.jobs:
            one.cancel()

    def close(self) -> None:
        """End what still runs, at once."""
        self.board.exchange(STOP)
        self.pool.shutdown(cancel_futures=True)


def outcome(future: Future) -> Ending | Exception | None:
    """Return what a future gives or raises; None when it was cancelled."""
    return None if future.cancelled() else future.exception() or future.result()


def slots_here(
    gpus: list[str], gpus_per_run: float | None, cpus_per_run: int | None, memory: int
) -> list[Slot]:
    """Return the slots of this machine, no more than its memory holds; one at least.

    `gpus` are numbers of GPUs; without any a slot is `cpus_per_run` cores, or all. A training takes
    about `memory` bytes.
    """
    cores = os.cpu_count() or 1
    devices = [f"cuda:{gpu}" for gpu in gpus for _ in range(int(1 / (gpus_per_run or 1)))]
    devices = devices or [None] * max(1, cores // (cpus_per_run or cores))
    fit = max(1, memory_here() // memory) if hasattr(os, "sysconf") else len(devices)
    if len(devices) > fit:
        say(f"warning: of {len(devices)} trainings at once the memory holds {fit}: so many run")
    number = min(len(devices), fit)
    share = max(1, cores // number) if number > 1 else None
    return [Slot(device, cpus_per_run or share) for device in devices[:number]]


def memory_here() -> int:
    """Return how many bytes of memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

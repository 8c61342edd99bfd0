"""How the tasks of a sweep stand, and how long they will still take."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
FOUND = "found"  # finished by an earlier sweep
STOPPED = "stopped"  # by Ctrl-C
STATES = (RUNNING, WAITING, DONE, FOUND, FAILED, STOPPED)


@dataclass
class Standing:
    """How one task stands; times are in seconds, as time.time() gives them."""

    name: str  # "mvtec_loco/screw_bag model=glae/seed=0"
    state: str = WAITING
    attempt: int = 0  # 1 for the first
    node: str = ""  # what it runs on: host name, GPU
    step: int = 0  # of its training
    steps: int = 0
    rate: float | None = None  # steps a second
    begun: float | None = None  # the last attempt that began
    ended: float | None = None  # the last that ended
    line: str = ""  # the last of its log
    log: str = ""  # where its log lies

    def seconds(self, now: float) -> float | None:
        """Return how long the last attempt that began has taken; None before the first."""
        if self.begun is None:
            return None
        ended = now if self.state == RUNNING or self.ended is None else self.ended
        return max(0.0, ended - self.begun)  # a clock may be set back

    @property
    def point(self) -> str:
        """What is trained, of the grid's values: neither category nor seed makes it longer."""
        return re.sub(r"(^|/)seed=\d+$", "", self.name.partition(" ")[2])

    @property
    def training(self) -> bool:
        """Whether its rate says how long it still takes."""
        return self.state == RUNNING and bool(self.rate) and self.step < self.steps


def count(standings: Sequence[Standing]) -> dict[str, int]:
    """Return how many tasks there are in each state."""
    counts = Counter(standing.state for standing in standings)
    return {state: counts[state] for state in STATES}


def seconds_left(standings: Sequence[Standing], slots: int, now: float) -> float | None:
    """Return how long it will take until all tasks have ended; None while nothing is known.

    What trains takes its steps left by its rate, all else what such a task takes as a whole.
    However tasks are shared out, the end comes no sooner than that of the longest, and no sooner
    than the sum of all by the `slots` where they run; nor twice as late (Graham, Bounds for
    certain multiprocessing anomalies, 1966).
    """
    expected = expectation(standings, now)
    left: list[float] = []
    for standing in standings:
        if standing.training:
            left.append((standing.steps - standing.step) / standing.rate)
        elif standing.state in (WAITING, RUNNING):
            whole = expected(standing)
            if whole is None or slots < 1:
                return None
            spent = standing.seconds(now) if standing.state == RUNNING else None
            left.append(max(0.0, whole - (spent or 0.0)))
    return max(*left, sum(left) / max(slots, 1)) if left else 0.0


def expectation(standings: Sequence[Standing], now: float) -> Callable[[Standing], float | None]:
    """Return what tells how many seconds a task takes as a whole, None if it cannot be known.

    It is the mean of those of the same point that are done, or else that train, or else of any.
    Those found finished took their time on another day, perhaps on another machine.
    """
    done: dict[str, list[float]] = defaultdict(list)
    running: dict[str, list[float]] = defaultdict(list)
    for standing in standings:
        if standing.state == DONE:
            done[standing.point].append(standing.seconds(now) or 0.0)
        elif standing.training:
            running[standing.point].append(standing.steps / standing.rate)
    any_done, any_running = ([*chain(*known.values())] for known in (done, running))

    def expected(standing: Standing) -> float | None:
        known = done.get(standing.point) or running.get(standing.point) or any_done or any_running
        return fmean(known) if known else None

    return expected

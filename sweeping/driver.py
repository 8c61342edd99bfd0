"""A sweep: starts each task, tries again what fails, notes how each ends."""

import time
from dataclasses import replace
from typing import Protocol

from sweeping.attempt import Ending, Job
from sweeping.board import Progress
from sweeping.display import Display
from sweeping.journal import Journal
from sweeping.on_ray import Lost
from sweeping.standing import DONE, FAILED, RUNNING, STOPPED, WAITING, Standing
from utils.commands import explained
from utils.interrupts import Interrupts

PAUSE = 0.5  # seconds between two looks at what runs
WRONG = 2  # main.py's exit code for wrong options or input, which trying again does not mend
MOST_LOSSES = 10  # attempts that a task may lose with their nodes: it may be what kills them


class Executor(Protocol):
    """What makes attempts; see LocalExecutor and RayExecutor."""

    slots: int

    def start(self, job: Job) -> None: ...
    def ended(self, seconds: float) -> list[tuple[Job, Ending | Exception | None]]: ...
    def progress(self) -> dict[str, Progress]: ...
    def save(self) -> None: ...
    def close(self) -> None: ...


class Sweep:
    """Runs tasks to their ends, and keeps their `standings`."""

    def __init__(
        self,
        executor: Executor,
        standings: list[Standing],
        display: Display,
        journal: Journal,
        retries: int,
    ):
        self.executor, self.display = executor, display
        self.standings = {standing.name: standing for standing in standings}
        self.journal, self.retries = journal, retries
        self.running, self.interrupted = 0, False
        self.lost = dict.fromkeys(self.standings, 0)
        self.since: dict[str, tuple[float, int]] = {}  # when an attempt began, at which step

    def run(self, jobs: list[Job]) -> None:
        """Make all attempts that are due.

        The first Ctrl-C or SIGTERM lets what runs save and starts nothing more; the second raises
        KeyboardInterrupt at once.
        """
        with Interrupts() as interrupts:
            for job in jobs:
                self.start(job)
            while self.running:
                if interrupts.requested and not self.interrupted:
                    self.interrupted = True
                    self.display.say("interrupted: waiting for what is saved; again stops at once")
                    self.executor.save()
                ended = self.executor.ended(PAUSE)
                self.follow(self.executor.progress())  # what these have told last, too
                for job, ending in ended:
                    self.running -= 1
                    self.end(job, ending)
                self.display.show()

    def start(self, job: Job) -> None:
        """Let the next attempt begin where a place is free."""
        standing = self.standings[job.task.name]
        standing.state, standing.attempt = WAITING, standing.attempt + 1
        standing.node = ""
        self.executor.start(replace(job, again=standing.attempt > 1))
        self.running += 1

    def follow(self, progress: dict[str, Progress]) -> None:
        """Note how far attempts are."""
        now = time.time()
        for name, (node, step, line) in progress.items():
            standing = self.standings[name]
            if standing.state == WAITING:
                standing.state, standing.begun, standing.node = RUNNING, now, node
                self.since[name] = now, step
                self.journal.note(standing, "begun")
            since, first = self.since[name]
            if not first:  # what it goes on from is read or fetched before its first step
                self.since[name] = now, step
            elif step > first:
                standing.rate = (step - first) / (now - since)
            standing.step, standing.line = max(step, standing.step), line

    def end(self, job: Job, ending: Ending | Exception | None) -> None:
        """Note how an attempt ended; begin another one if that is due."""
        standing = self.standings[job.task.name]
        standing.ended = time.time()
        if isinstance(ending, Ending):
            standing.node, standing.line = ending.node, ending.line
        elif ending is not None:
            standing.line = explained(ending, None)[0]
        code = ending.code if isinstance(ending, Ending) else None
        if code == 0:
            self.note(standing, DONE, code)
        elif ending is None or self.interrupted:
            self.note(standing, STOPPED, code)
        elif isinstance(ending, Lost) and self.lost[job.task.name] < MOST_LOSSES:
            self.lost[job.task.name] += 1
            self.journal.note(standing, "lost")
            node = standing.node or "its node"
            self.display.say(f"{standing.name}: {node} is lost, it goes on elsewhere")
            self.start(job)
        elif code != WRONG and standing.attempt - self.lost[job.task.name] <= self.retries:
            self.journal.note(standing, "failed", code=code)
            self.start(job)
        else:
            self.note(standing, FAILED, code)

    def note(self, standing: Standing, state: str, code: int | None) -> None:
        """Let a task end."""
        standing.state = state
        self.journal.note(standing, state, code=code)
        if state in (FAILED, STOPPED) and standing.line:
            self.display.say(f"{standing.name}: {standing.line}")

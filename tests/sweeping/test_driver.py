"""The driver of a sweep: what it tries again, how each task ends, what Ctrl-C does."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data.samples import InputError
from sweeping.attempt import Ending, Job
from sweeping.board import Progress
from sweeping.display import Display
from sweeping.driver import MOST_LOSSES, Sweep
from sweeping.journal import Journal, read_journal
from sweeping.on_ray import Lost
from sweeping.standing import DONE, FAILED, STOPPED, WAITING, Standing
from tests.sweeping.playing import job_called

Outcome = Ending | Exception | None
KILLED = Ending(-9, "killed", "n")


class Script:
    """An executor of one slot, whose attempts end as it is written, some time after they begin.

    `meanwhile` is called with how many have begun, whenever one has.
    """

    slots = 1

    def __init__(self, outcomes: dict[str, list[Outcome]], meanwhile: Callable = lambda _: None):
        self.outcomes, self.meanwhile = outcomes, meanwhile
        self.due: list[Job] = []
        self.running: Job | None = None
        self.found: dict[str, Progress] = {}
        self.begun, self.saves = [], 0

    def start(self, job: Job) -> None:
        self.due.append(job)

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        if self.running is None and self.saves:
            return [(self.due.pop(0), None)]
        if self.running is None:
            self.running = self.due.pop(0)
            self.begun.append(self.running.task.name)
            self.found[self.running.task.name] = Progress("n", 0, "loading")
            self.meanwhile(len(self.begun))
            return []
        job, self.running = self.running, None
        self.found[job.task.name] = Progress("n", 7, "on its way")
        return [(job, self.outcomes[job.task.name].pop(0))]

    def progress(self) -> dict[str, Progress]:
        found, self.found = self.found, {}
        return found

    def save(self) -> None:
        self.saves += 1

    def close(self) -> None: ...


class Played:
    """A sweep that a script is played to."""

    def __init__(self, folder: Path, script: Script, retries: int = 2):
        self.path, self.script = folder / "journal.jsonl", script
        self.standings = [Standing(name, steps=10) for name in script.outcomes]
        display = Display(self.standings, lambda: 1, folder / "status.json")
        self.journal = Journal(self.path)
        self.sweep = Sweep(script, self.standings, display, self.journal, retries)

    def run(self) -> list[str]:
        """Return the states that the tasks end in."""
        try:
            self.sweep.run([job_called(standing.name) for standing in self.standings])
        finally:
            self.journal.close()
        return [standing.state for standing in self.standings]

    def events(self, name: str) -> list[str]:
        return [entry["event"] for entry in read_journal(self.path) if entry["task"] == name]


@pytest.fixture
def play(tmp_path) -> Iterator[Callable]:
    def play(outcomes: list[Outcome], **more) -> Played:
        return Played(tmp_path, Script({"a": outcomes}), **more)

    return play


def ending(code: int) -> Ending:
    return Ending(code, f"ended by {code}", "n")


@pytest.mark.parametrize("code", [1, 130, -9])
def test_two_retries_are_three_attempts_whatever_the_exit_code(play, code, capsys):
    played = play([ending(code)] * 4, retries=2)
    assert played.run() == [FAILED]
    assert played.script.begun == ["a"] * 3
    assert played.events("a") == ["begun", "failed"] * 3
    (standing,) = played.standings
    assert (standing.attempt, standing.line, standing.step) == (3, f"ended by {code}", 7)
    assert f"a: ended by {code}\n" in capsys.readouterr().err
    assert [entry.get("code") for entry in read_journal(played.path)] == [None, code] * 3


def test_wrong_input_is_not_tried_again(play):
    played = play([ending(2)] * 2, retries=2)
    assert (played.run(), played.script.begun) == ([FAILED], ["a"])


def test_without_retries_there_is_one_attempt(play):
    played = play([KILLED] * 2, retries=0)
    assert (played.run(), played.script.begun) == ([FAILED], ["a"])


def test_what_ends_well_the_second_time_is_done(play):
    played = play([KILLED, ending(0)])
    assert played.run() == [DONE]
    assert played.events("a") == ["begun", "failed", "begun", "done"]
    assert played.standings[0].attempt == 2


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("s3://away cannot be reached"), "s3://away cannot be reached"),
        (OSError(28, "No space left on device", "there"), "there: No space left on device"),
        (KeyError("a\x1b[2J"), "KeyError: 'a\\x1b[2J'"),
    ],
)
def test_an_exception_of_an_attempt_is_a_failure_with_its_line(play, error, line, capsys):
    played = play([error] * 3, retries=1)
    assert played.run() == [FAILED]
    assert played.script.begun == ["a"] * 2
    assert played.standings[0].line.startswith(line)
    assert f"a: {line}" in capsys.readouterr().err


def test_a_lost_node_costs_no_retry(play):
    lost = [Lost("the node died")] * 3
    played = play([*lost, KILLED, *lost, KILLED, ending(0)], retries=2)
    assert played.run() == [DONE]
    ended = [event for event in played.events("a") if event != "begun"]
    assert ended == ["lost"] * 3 + ["failed"] + ["lost"] * 3 + ["failed", "done"]


def test_a_task_that_loses_every_node_fails_in_the_end(play):
    played = play([Lost("the node died")] * 100, retries=2)
    assert played.run() == [FAILED]
    assert len(played.script.begun) == MOST_LOSSES + 3
    assert played.standings[0].line.endswith("the node died")


def test_what_fails_does_not_stop_the_rest(tmp_path):
    script = Script({"a": [KILLED] * 3, "b": [ending(0)], "c": [OSError("?")] * 3})
    assert Played(tmp_path, script).run() == [FAILED, DONE, FAILED]


def interrupt_at(*numbers: int) -> Callable[[int], None]:
    """Return what sends Ctrl-C when so many attempts have begun."""

    def meanwhile(begun: int) -> None:
        if begun in numbers:
            os.kill(os.getpid(), signal.SIGINT)

    return meanwhile


@pytest.mark.usefixtures("interruptible")
def test_interrupted_nothing_new_begins_and_nothing_fails(tmp_path, capsys):
    outcomes = {"a": [ending(0)], "b": [KILLED], "c": [ending(0)]}
    played = Played(tmp_path, Script(outcomes, interrupt_at(2)))
    assert played.run() == [DONE, STOPPED, STOPPED]
    assert played.sweep.interrupted
    assert played.script.saves == 1
    assert played.events("b") == ["begun", "stopped"]
    assert played.events("c") == ["stopped"]
    said = capsys.readouterr().err
    assert "interrupted: waiting for what is saved; again stops at once\n" in said
    assert "b: killed\n" in said


@pytest.mark.usefixtures("interruptible")
def test_what_ends_well_although_interrupted_is_done(tmp_path):
    played = Played(tmp_path, Script({"a": [ending(0)]}, interrupt_at(1)))
    assert played.run() == [DONE]


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_ends_it_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.interrupts.SAME", 0.0)
    script = Script({"a": [ending(130)], "b": [ending(0)]}, interrupt_at(1))
    monkeypatch.setattr(script, "save", lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        Played(tmp_path, script).run()
    assert script.outcomes["a"]  # which was not waited for


def test_what_an_attempt_told_last_is_not_taken_for_the_next_ones_beginning(tmp_path):
    """It lies on the board when the attempt has ended, and another one waits for a place."""
    script = Script({"a": [KILLED, ending(0)], "b": [ending(0)]})
    played = Played(tmp_path, script)
    seen = []
    script.meanwhile = lambda begun: seen.append([one.state for one in played.standings])
    assert played.run() == [DONE, DONE]
    assert seen[1] == [WAITING, WAITING]  # a failed, b begins


def test_the_rate_is_that_of_the_steps_seen_not_of_those_it_goes_on_from(play, monkeypatch):
    played = play([])
    for now, step in ((100.0, 0), (200.0, 500), (210.0, 520)):  # it fetches, goes on, trains
        monkeypatch.setattr("sweeping.driver.time.time", lambda now=now: now)
        played.sweep.follow({"a": Progress("n", step, "")})
    assert played.standings[0].rate == 2.0
    played.journal.close()


def test_an_attempt_that_ends_as_soon_as_it_begins_is_noted_as_begun(tmp_path, monkeypatch):
    script = Script({"a": [KILLED], "b": [KILLED]})

    def at_once(seconds: float) -> list[tuple[Job, Outcome]]:
        job = script.due.pop(0)
        script.found[job.task.name] = Progress("n", 0, "fetching s3://away")
        return [(job, KILLED)]

    monkeypatch.setattr(script, "ended", at_once)
    played = Played(tmp_path, script, retries=1)
    assert played.run() == [FAILED, FAILED]
    assert played.events("a") == played.events("b") == ["begun", "failed"] * 2

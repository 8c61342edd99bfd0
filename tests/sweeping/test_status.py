"""status.json, and when a sweep says that it will end."""

import json
import os
import threading
from pathlib import Path

import pytest

from sweeping.display import Display
from sweeping.standing import DONE, FAILED, FOUND, RUNNING, STOPPED, WAITING, Standing, seconds_left
from sweeping.table import roughly

NOW = 10_000.0


def ended(name: str, seconds: float, state: str = DONE) -> Standing:
    return Standing(name, state, 1, begun=100.0, ended=100.0 + seconds)


def training(name: str, step: int, rate: float | None, since: float = 0.0) -> Standing:
    return Standing(name, RUNNING, 1, step=step, steps=1000, rate=rate, begun=NOW - since)


def left(standings: list[Standing], slots: int = 2) -> float | None:
    return seconds_left(standings, slots, NOW)


def test_nothing_is_known_before_anything_has_ended_or_trains():
    found = [ended("a", 50.0, FOUND), ended("b", 5.0, FAILED), ended("c", 5.0, STOPPED)]
    assert left([*found, Standing("d")]) is None
    assert left([training("a", 0, None), Standing("b")]) is None
    assert left([ended("a", 50.0), Standing("b")], slots=0) is None


def test_when_all_have_ended_no_time_is_left():
    assert left([ended("a", 50.0, FOUND), ended("b", 5.0, FAILED)]) == 0


def test_what_is_done_tells_what_waits_and_the_slots_share_it():
    waiting = [Standing(f"w{index}") for index in range(6)]
    assert left([ended("a", 50.0), ended("b", 70.0), *waiting]) == 6 * 60 / 2
    assert left([ended("a", 50.0), ended("b", 70.0), *waiting], slots=100) == 60  # the longest


def test_a_rate_tells_what_trains_and_a_mean_what_prepares():
    done = [ended("a", 500.0)]
    assert left([*done, training("b", 400, 2.0, since=200)]) == 600 / 2
    assert left([*done, training("b", 0, None, since=200)]) == 500 - 200
    assert left([*done, training("b", 1000, 2.0, since=450)]) == 500 - 450  # it is evaluated
    assert left([*done, training("b", 1000, 2.0, since=700)]) == 0


def test_before_any_is_done_a_training_tells_how_long_others_train():
    """800 steps at 4 a second, then 1000 on the only slot."""
    assert left([training("a", 200, 4.0), Standing("b")], slots=1) == 800 / 4 + 1000 / 4


def test_points_of_a_grid_are_told_apart_and_seeds_are_not():
    done = [ended("x/a model=glae/seed=0", 100.0), ended("x/a model=efficientad/seed=0", 10.0)]
    waiting = [Standing("x/b model=glae/seed=1"), Standing("x/b model=glae/seed=2")]
    assert left([*done, *waiting, Standing("x/b model=efficientad/seed=1")], 1) == 210
    assert left([*done, Standing("x/b model=other/seed=1")], 1) == 55  # of all
    assert left([ended("x/a seed=0", 30.0), Standing("x/my part seed=1")], 1) == 30


def test_a_clock_that_is_set_back_makes_no_negative_time():
    assert left([ended("a", -50.0), Standing("b")]) == 0  # as if done at once
    assert Standing("a", RUNNING, begun=NOW + 5).seconds(NOW) == 0


def test_what_is_tried_again_counts_from_its_new_beginning():
    assert Standing("a", RUNNING, 2, begun=NOW - 5, ended=NOW - 8).seconds(NOW) == 5


TIMES = {12.4: "12 s", 89: "89 s", 90: "2 min", 5390: "90 min", 5400: "2 h", 7300: "2 h"}
TIMES |= {129_000: "36 h", 129_600: "2 days", 864_000: "10 days"}


@pytest.mark.parametrize(("seconds", "said"), TIMES.items())
def test_a_time_is_told_roughly(seconds, said):
    assert roughly(seconds) == said


@pytest.fixture
def status(tmp_path) -> Path:
    return tmp_path / "sweep" / "status.json"


def test_everything_is_in_the_status(status):
    standing = Standing("x/\udcf6 \u202e", RUNNING, 2, "n", 5, 9, 0.5, line="l", log="g")
    with Display([standing, Standing("b")], lambda: 1, status) as display:
        display.show()
    found = json.loads(status.read_text())
    assert found.keys() == {"updated", "counts", "eta_seconds", "tasks"}
    assert found["counts"] == {"running": 1, "waiting": 1} | dict.fromkeys(
        ("done", "found", "failed", "stopped"), 0
    )
    assert found["eta_seconds"] == (9 - 5) / 0.5 + 9 / 0.5
    assert found["tasks"]["x/\udcf6 \u202e"] == {
        "state": "running",
        "attempt": 2,
        "node": "n",
        "step": 5,
        "steps": 9,
        "steps_per_second": 0.5,
        "seconds": None,
        "line": "l",
        "log": "g",
    }
    assert found["tasks"]["b"]["state"] == WAITING
    assert [path.name for path in status.parent.iterdir()] == ["status.json"]


def test_whoever_reads_it_finds_a_whole_file(status):
    standings = [Standing(f"{index}" * 50) for index in range(300)]
    display, ending, broken = Display(standings, lambda: 1, status), threading.Event(), []
    display.show()

    def read() -> None:
        while not ending.is_set():
            try:
                assert len(json.loads(status.read_bytes())["tasks"]) == 300
            except Exception as error:
                broken.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        display.write_status({}, None)
    ending.set()
    reader.join()
    assert broken == []


def test_a_status_that_cannot_be_written_is_a_warning_once(status, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with Display([Standing("a")], lambda: 1, status) as display:
        for _ in range(3):
            display.write_status({}, None)
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {status}: No space left on device: the sweep goes on without it",
        "0 running, 1 waiting, 0 done, 0 failed",
    ]

"""How a sweep is shown: in a terminal of any size, in a log file, in status.json."""

import fcntl
import io
import json
import pty
import struct
import termios
from types import SimpleNamespace

import pytest

from sweeping.display import Display
from sweeping.standing import DONE, FAILED, FOUND, RUNNING, STOPPED, Standing
from sweeping.table import window
from tests.sweeping.terminal import Terminal
from utils import commands

SIZES = [(40, 10), (200, 50), (80, 24), (20, 3), (6, 2)]
COUNTS = "3 running, 292 waiting, 2 done, 3 failed, about 5 h left"


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test turns."""
    now = [1000.0]
    ticking = SimpleNamespace(time=lambda: now[0], monotonic=lambda: now[0])
    monkeypatch.setattr("sweeping.display.time", ticking)
    monkeypatch.setattr("sweeping.table.time", ticking)
    return now


def many() -> list[Standing]:
    """300 tasks: 3 run, 1 is done and 1 was, 3 have failed, of which the second is the latest."""
    standings = [Standing(f"mvtec_loco/category_{index:03} seed=0") for index in range(300)]
    for index, standing in enumerate(standings[:3]):
        standing.state, standing.begun, standing.node = RUNNING, 940.0, f"node{index} cuda:0"
        standing.step, standing.steps, standing.rate = 1000 * index, 7000, 41.25
        standing.line = f"training: {index} of many"
    for standing, ended in zip(standings[3:6], (700.0, 900.0, 800.0), strict=True):
        standing.state, standing.begun, standing.ended = FAILED, 600.0, ended
        standing.line = f"error: it ended at {ended:.0f}"
    standings[6].state, standings[6].begun, standings[6].ended = DONE, 800.0, 980.0
    standings[7].state = FOUND
    return standings


@pytest.fixture
def shown(clock, monkeypatch, tmp_path):
    """Show tasks once in a terminal; what is shown stays until the test ends."""
    for module in ("display", "table"):
        monkeypatch.setattr(f"sweeping.{module}.window", lambda stream: stream.size())
    displays = []

    def show(standings: list[Standing], terminal: Terminal) -> Display:
        displays.append(Display(standings, lambda: 3, tmp_path / "status.json", terminal))
        displays[-1].show()
        return displays[-1]

    return show


def test_a_wide_window_has_what_runs_then_what_failed_then_the_counts(shown):
    terminal = Terminal(200, 50)
    shown(many(), terminal)
    heading, *running, first, second, third, counts = terminal.screen()
    assert heading.split() == ["task", "step", "steps/s", "time", "node", "last", "line"]
    expected = (
        "mvtec_loco/category_001 seed=0 1000/7000 41.25 01:00 node1 cuda:0 training: 1 of many"
    )
    assert len(running) == 3
    assert running[1].split() == expected.split()
    assert first == "failed: mvtec_loco/category_004 seed=0: error: it ended at 900"
    assert [line[-3:] for line in (second, third)] == ["800", "700"]
    assert counts == COUNTS


def test_a_narrow_window_drops_columns_and_breaks_the_counts(shown):
    terminal = Terminal(40, 10)
    shown(many(), terminal)
    lines = terminal.screen()
    assert lines[0].split() == ["task", "step", "steps/s"]
    assert lines[2].split() == ["mvtec_loc…01", "seed=0", "1000/7000", "41.25"]
    assert " ".join(lines[-2:]) == COUNTS


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("busy", [3, 300])
def test_a_table_fits_the_window_however_often_it_is_drawn(clock, shown, width, height, busy):
    standings, terminal = many(), Terminal(width, height)
    for standing in standings[:busy]:
        standing.state, standing.begun = RUNNING, 940.0
    terminal.write("what was there before\n")
    before = terminal.everything()[:-1]
    display = shown(standings, terminal)
    once = terminal.everything()
    for _ in range(5):
        clock[0] += 1
        display.show()
    assert len(terminal.everything()) == len(once)
    assert terminal.everything()[: len(before)] == before
    assert len(once) <= len(before) + height
    if busy == 300 and height > 4:  # all rows but for a spare one and those of the counts
        rows = height - 1 - sum("waiting" in line or "left" in line for line in once)
        assert f"… and {301 - (rows - 1)} more" in terminal.screen()


@pytest.mark.parametrize(("width", "height"), [(40, 10), (61, 24), (200, 50)])
def test_a_window_made_smaller_or_larger_has_one_table(clock, shown, width, height):
    terminal = Terminal(90, 30)
    terminal.write("before\n")
    display = shown(many(), terminal)
    terminal.resize(width, height)
    clock[0] += 1
    display.show()
    fresh = Terminal(width, height)
    fresh.write("before\n")
    clock[0] -= 1
    again = shown(many(), fresh)
    clock[0] += 1
    again.show()
    assert terminal.screen()[-8:] == fresh.screen()[-8:]
    if height > 10:  # else the terminal has scrolled some lines away before we knew
        assert terminal.everything() == fresh.everything()


def test_lines_are_said_above_the_table_by_whom_ever(shown, monkeypatch):
    terminal = Terminal(100, 30)
    monkeypatch.setattr("sys.stderr", terminal)
    with shown(many(), terminal) as display:
        table = terminal.everything()
        display.say("bottle: finished\n\x1b[2Jalready")
        commands.say("warning: from elsewhere")
        terminal.write("^C")  # what a terminal echoes
        commands.say("x" * 150)
        said = ["bottle: finished  [2Jalready", "warning: from elsewhere", "x" * 100, "x" * 50]
        assert terminal.everything() == [*said, *table]
    assert terminal.everything() == [*said, COUNTS, ""]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_however_it_ends_the_counts_stay_and_the_cursor_is_below(shown, tmp_path, error):
    terminal, standings = Terminal(100, 30), many()
    with pytest.raises(error), shown(standings, terminal):
        for standing in standings[:3]:
            standing.state, standing.ended = STOPPED, 1000.0
        raise error
    assert terminal.everything() == [
        "0 running, 292 waiting, 2 done, 3 failed, 3 stopped, about 5 h left",
        "",
    ]
    assert (terminal.row, terminal.column, terminal.wrapping) == (1, 0, True)
    assert json.loads((tmp_path / "status.json").read_text())["counts"]["stopped"] == 3


HOSTILE = {
    "control": "a\x1b[2J\r\n\tb\x07",
    "turned": "\u202eevil\u2066",
    "long": "x" * 300,
    "wide": "螺丝袋" * 20,
    "accents": "e\u0301" * 200,
    "hebrew": "בקבוק " * 20,
    "no utf-8": "\udcf6.png",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("width", [50, 77])
def test_a_hostile_name_keeps_to_its_row(shown, name, width):
    """The terminal of the test refuses what is not printable."""
    standings = [
        Standing(name, RUNNING, begun=940.0, line=name, node=name),
        Standing("plain", RUNNING, begun=940.0, line="plain", node="n"),
        Standing(f"{name} 2", FAILED, line=name),
    ]
    terminal = Terminal(width, 10)
    shown(standings, terminal)
    _, hostile, plain, failed, *_ = terminal.rows
    assert plain[:5] == list("plain")
    assert "".join(failed).startswith("failed: ")
    assert max(len(hostile), len(failed)) < width
    time = "".join(plain).find("01:00")  # there is room for it
    assert "".join(hostile[time : time + 5]) == "01:00"


def test_signs_that_a_terminal_widens_break_no_row(shown):
    terminal = Terminal(60, 10)
    terminal.wide.add("A")
    shown([Standing("§" * 300, RUNNING, begun=940.0), Standing("b", FAILED)], terminal)
    assert [line[:7] for line in terminal.screen()] == ["task   ", "§" * 7, "failed:", "1 runni"]


def test_the_ends_of_a_long_name_are_seen(shown):
    terminal = Terminal(60, 10)
    standings = [Standing(f"mvtec_loco/bag {'y' * 99}/seed=7", RUNNING, begun=940.0)]
    shown(standings, terminal)
    assert terminal.screen()[1].startswith("mvtec_loco/bag…yyyyyyy/seed=7  ")


@pytest.mark.parametrize(("value", "styles"), [(None, {"2", "31", ""}), ("1", set())])
def test_no_color_is_obeyed(shown, monkeypatch, value, styles):
    monkeypatch.delenv("NO_COLOR", raising=False)
    if value:
        monkeypatch.setenv("NO_COLOR", value)
    terminal = Terminal(100, 30)
    shown(many(), terminal)
    assert terminal.styles == styles


def test_it_is_redrawn_at_most_twice_a_second(clock, shown):
    terminal = Terminal(100, 30)
    display = shown(many(), terminal)
    terminal.writes = 0
    for _ in range(40):  # of a quarter of a second
        clock[0] += 0.25
        display.show()
    assert terminal.writes == 20


@pytest.mark.parametrize("dumb", [False, True])
def test_a_log_file_gets_what_begins_and_the_counts_once_a_minute(
    clock, monkeypatch, tmp_path, dumb
):
    log = Terminal(80, 24) if dumb else io.StringIO()
    monkeypatch.setenv("TERM", "dumb" if dumb else "xterm")
    standings = [Standing("a"), Standing("b")]
    with Display(standings, lambda: 1, tmp_path / "status.json", log) as display:
        standings[0].state, standings[0].attempt, standings[0].begun = RUNNING, 1, 1000.0
        for _ in range(150):
            clock[0] += 1
            display.show()
        standings[0].ended, standings[0].state = clock[0], DONE
        standings[1].attempt, standings[1].begun = 2, clock[0]
        standings[1].state, standings[1].ended = FAILED, clock[0]  # before it is looked at
        display.say("b: it failed")
    lines = log.everything()[:-1] if dumb else log.getvalue().splitlines()
    assert lines == [
        "a",
        "1 running, 1 waiting, 0 done, 0 failed",
        "1 running, 1 waiting, 0 done, 0 failed",
        "b: it failed",
        "b (attempt 2)",
        "0 running, 0 waiting, 1 done, 1 failed",
    ]


def test_the_window_is_asked_for_each_time_and_may_not_be_known():
    parent, child = pty.openpty()
    with open(child, "w") as terminal, open(parent):
        for rows, columns, known in ((7, 50, (50, 7)), (9, 60, (60, 9)), (0, 0, (80, 24))):
            fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
            assert window(terminal) == known
    assert window(io.StringIO()) == (80, 24)

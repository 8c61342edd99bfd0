"""Progress: a bar in a terminal, silence and then a line a minute in a log file."""

import io
import sys

import pytest
from tqdm import tqdm

from tests.conftest import REPOSITORY
from utils.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test turns; bars read it instead of time."""
    now = [1000.0]
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # no thread beside the test
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def test_a_terminal_sees_a_bar_that_is_drawn_over_and_removed(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress("scoring", 3, "img", range(3))) == [0, 1, 2]
    text = sys.stderr.getvalue()
    assert "scoring:" in text
    assert "\n" not in text
    assert text.rstrip(" \r") != text  # blanked in the end


def test_short_work_leaves_nothing_in_a_log_file(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress("training", 50, "step") as bar:
        for _ in range(50):
            bar.update()
            bar.set_postfix(loss="1.0", refresh=False)
    assert list(progress("scoring", 3, "img", range(3))) == [0, 1, 2]
    assert sys.stderr.getvalue() == ""


def test_a_log_file_gets_a_line_a_minute(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress("training", 600, "step") as bar:
        for _ in range(600):
            clock[0] += 1  # second
            bar.update()
            bar.set_postfix(loss="1.0", refresh=False)
    lines = sys.stderr.getvalue().splitlines()
    assert 9 <= len(lines) <= 10
    assert all(line.startswith("training:") and "/600" in line for line in lines)
    assert "\r" not in sys.stderr.getvalue()


def test_every_bar_of_the_project_is_made_here():
    places = ("data", "models", "utils", "scoring", "training", "evaluation", "distillation")
    files = [path for place in places for path in (REPOSITORY / place).glob("*.py")]
    making = {path.name for path in files if "tqdm(" in path.read_text()}
    assert making == {"progress.py"}

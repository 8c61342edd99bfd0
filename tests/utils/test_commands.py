"""How a script ends: what it says when it is interrupted."""

import sys

import pytest

from utils.commands import resumable

LINE = ["main.py", "--dataset", "demo", "--overwrite", "--output_dir", "a b"]


def said(monkeypatch, stored: bool, called: list[str]) -> str:
    monkeypatch.setattr(sys, "argv", LINE)
    monkeypatch.setattr(sys, "orig_argv", [*called, *LINE])
    with pytest.raises(KeyboardInterrupt) as caught, resumable(lambda: stored):
        raise KeyboardInterrupt(" at step 3")
    return str(caught.value)


@pytest.mark.parametrize("called", [["python3"], [".venv/bin/python", "-X", "dev"]])
def test_an_interrupt_says_the_command_that_goes_on_as_it_was_called(monkeypatch, called):
    kept = "main.py --dataset demo --output_dir 'a b' --resume"
    assert said(monkeypatch, True, called) == f" at step 3; go on with: {' '.join(called)} {kept}"


def test_where_nothing_was_stored_nothing_can_go_on(monkeypatch):
    expected = " at step 3; nothing was stored yet: the same command begins again"
    assert said(monkeypatch, False, ["python3"]) == expected

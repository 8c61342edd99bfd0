"""The journal of a sweep: whole lines, whatever tears one."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from sweeping.journal import Journal, read_journal
from sweeping.standing import Standing

TASK = Standing("x/a\n\u202e\udcf6", attempt=2, node="n cuda:0", begun=10.0, ended=15.5, line="l")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "sweep" / "journal.jsonl"


def note(path: Path, *events: str) -> None:
    with Journal(path) as journal:
        for event in events:
            journal.note(TASK, event)


def events(path: Path) -> list[str]:
    return [entry["event"] for entry in read_journal(path)]


def test_an_event_is_a_line_with_all_that_is_known(path):
    with Journal(path) as journal:
        journal.note(TASK, "failed", code=-9)
        text = path.read_text()  # it is there before the journal is closed
    (entry,) = read_journal(path)
    assert json.loads(text) == entry
    assert text.count("\n") == 1
    moment = datetime.fromisoformat(entry.pop("time"))
    assert abs(datetime.now(timezone.utc) - moment) < timedelta(minutes=1)
    assert entry == {
        "task": TASK.name,
        "event": "failed",
        "attempt": 2,
        "node": "n cuda:0",
        "code": -9,
        "seconds": 5.5,
        "line": "l",
    }


def test_there_is_nothing_in_a_journal_that_is_not_there(path):
    assert read_journal(path) == []


def test_a_later_sweep_goes_on_with_it(path):
    note(path, "begun", "stopped")
    note(path, "begun", "done")
    assert events(path) == ["begun", "stopped", "begun", "done"]


def test_torn_at_any_byte_the_whole_lines_stay_and_the_next_is_whole(path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of them
    note(path, "begun", "failed")
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert events(path) == ["begun"]
        note(path, "done")
        assert events(path) == ["begun", "done"]
    path.write_bytes(whole[:-1])  # the line is whole, its end is not
    note(path, "done")
    assert events(path) == ["begun", "failed", "done"]
    assert path.read_bytes().startswith(whole)


@pytest.mark.parametrize("line", [b"[" * 100_000, b"\xff\x00", b"17", b"[]", b"", b'{"a": 1'])
def test_what_is_no_entry_is_left_out(path, line):
    note(path, "begun")
    path.write_bytes(line + b"\n" + path.read_bytes())
    assert events(path) == ["begun"]


def test_a_disk_that_is_full_is_told_of_once_and_torn_lines_are_mended(path, monkeypatch, capsys):
    real = os.write

    def fill(descriptor: int, line: bytes) -> int:
        if len(line) > 20:
            return real(descriptor, line[:-20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(path) as journal:
        journal.note(TASK, "begun")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", fill)
            journal.note(TASK, "failed")
            journal.note(TASK, "lost")
        journal.note(TASK, "done")
    assert events(path) == ["begun", "done"]
    said = f"warning: {path}: No space left on device: the sweep goes on without it"
    assert capsys.readouterr().err.splitlines() == [said]


def test_lines_of_several_sweeps_do_not_overwrite_each_other(path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    each = [[name] * 500 for name in ("begun", "done")]
    with ThreadPoolExecutor() as threads:
        assert list(threads.map(lambda names: note(path, *names), each)) == [None, None]
    assert sorted(events(path)) == [*each[0], *each[1]]

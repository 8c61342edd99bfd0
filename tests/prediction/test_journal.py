"""Rows that are appended: whenever a process dies, each picture has one in the end."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from data.samples import InputError
from prediction.journal import MOST_LINE, Appended, Version, open_journal
from prediction.records import FIELDS, csv_row, json_row
from prediction.verdicts import Prediction, Region

NAMES = ("a.png", 'ein "größeres", b.png', "lot/c.png", "no utf-8 \udcf6.png")


def version(name: str) -> Version:
    return Version(Path("/incoming", name), len(name), 10**18 + len(name))


def prediction(name: str) -> Prediction:
    region = Region(1, 2, 3, 4, 5) if "b" in name else None
    numbers = (1.25 * len(name), 0.25, 1.5, region, np.zeros((4, 4)), 0.5, {}, 0.0125)
    return Prediction(Path("/incoming", name), False, *numbers)


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    return {"csv": tmp_path / "seen.csv", "jsonl": tmp_path / "seen.jsonl"}


@pytest.fixture
def journal_path(files) -> Path:
    return files["csv"].with_name("seen.csv.journal")


def score(files: dict[str, Path], *names: str) -> list[str]:
    """Be a process that scores what is not known; return what it scored."""
    with open_journal(files, FIELDS) as journal:
        new = [name for name in names if version(name).key not in journal.known]
        for name in new:
            journal.write(prediction(name))
            journal.note(version(name))
        journal.sync()
    return new


def expected(*names: str) -> tuple[bytes, bytes]:
    """Return what the files of rows are to be."""
    predictions = [prediction(name) for name in names]
    header = (",".join(FIELDS) + "\n").encode()
    csv = header + b"".join(csv_row(FIELDS, one) for one in predictions)
    return csv, b"".join(map(json_row, predictions))


def written(files: dict[str, Path]) -> tuple[bytes, bytes]:
    return files["csv"].read_bytes(), files["jsonl"].read_bytes()


def test_rows_are_appended_and_known_again(files):
    assert score(files, *NAMES[:2]) == [*NAMES[:2]]
    assert score(files, *NAMES) == [*NAMES[2:]]
    assert score(files, *NAMES) == []
    assert written(files) == expected(*NAMES)


def test_killed_after_any_byte_no_row_is_lost_or_doubled(files, journal_path, monkeypatch):
    """What is written is written again up to each byte, and gone on from."""
    appended, real = [], Appended.append
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of them take a minute
    with monkeypatch.context() as patch:
        patch.setattr(
            Appended,
            "append",
            lambda self, row: (appended.append((self.path, row)), real(self, row)),
        )
        score(files, *NAMES)
    assert len(appended) == 1 + 3 * len(NAMES)
    stream = [(path, row[n : n + 1]) for path, row in appended for n in range(len(row))]
    for count in (*range(600), *range(600, len(stream), 7), len(stream)):
        state = dict.fromkeys((*files.values(), journal_path), b"")
        state[files["csv"]], _ = expected()
        for path, byte in stream[:count]:
            state[path] += byte
        for path, content in state.items():
            path.write_bytes(content)
        score(files, *NAMES)
        assert written(files) == expected(*NAMES), count
        assert score(files, *NAMES) == []


def test_rows_that_were_moved_away_begin_anew(files, tmp_path):
    score(files, *NAMES[:2])
    for path in files.values():
        path.rename(tmp_path / f"{path.name}.1")
    score(files, *NAMES)
    assert written(files) == expected(*NAMES[2:])


def test_rows_that_are_moved_away_meanwhile_begin_anew_at_the_next_list(files, tmp_path):
    with open_journal(files, FIELDS) as journal:
        for name in NAMES[:2]:
            journal.write(prediction(name))
            journal.note(version(name))
            files["csv"].replace(tmp_path / "seen.csv.1")
            journal.sync()
        assert (tmp_path / "seen.csv.1").read_bytes() == expected(NAMES[1])[0]
        assert written(files) == (expected()[0], expected(*NAMES[:2])[1])
        journal.write(prediction(NAMES[2]))  # killed before it is noted
    assert score(files, *NAMES[:3]) == [NAMES[2]]
    assert written(files) == (expected(NAMES[2])[0], expected(*NAMES[:3])[1])


@pytest.mark.parametrize("note", [b"a note of mine\n", b"rows, and, notes\nof mine", b"\n\n"])
def test_what_somebody_added_is_kept_and_that_is_said(files, capsys, note):
    score(files, *NAMES[:2])
    kept = files["csv"].read_bytes() + note
    files["csv"].write_bytes(kept)
    score(files, *NAMES[:3])
    new = csv_row(FIELDS, prediction(NAMES[2]))
    assert files["csv"].read_bytes() == kept + b"\n" * (not note.endswith(b"\n")) + new
    assert "seen.csv is not as" in capsys.readouterr().err


def test_rows_that_somebody_removed_stay_so(files, capsys):
    score(files, *NAMES[:3])
    files["csv"].write_bytes(expected(NAMES[0])[0])
    score(files, *NAMES)
    assert written(files) == (expected(NAMES[0], NAMES[3])[0], expected(*NAMES)[1])
    assert "what comes is appended" in capsys.readouterr().err


def test_rows_of_another_detector_or_of_something_else_are_refused(files):
    score(files, NAMES[0])
    with (
        pytest.raises(InputError, match=r"seen\.csv has other columns.*name another"),
        open_journal(files, (*FIELDS, "student")),
    ):
        pass
    before = files["csv"].read_bytes()
    files["jsonl"].write_text("# Notes\n")
    with pytest.raises(InputError, match=r"seen\.jsonl has other columns"):
        score(files, *NAMES)
    assert (files["csv"].read_bytes(), files["jsonl"].read_text()) == (before, "# Notes\n")


def test_a_journal_cannot_cut_what_is_no_row(files, journal_path):
    entry = {"path": "/a.png", "size": 1, "mtime_ns": 1, "csv": 0, "jsonl": 0}
    csv, jsonl = expected(*NAMES)
    for length in (0, 1, len(csv.splitlines()[0]), 40, len(csv) + 5, 10**30):
        journal_path.write_text(json.dumps(entry | {"csv": length, "jsonl": length}) + "\n")
        files["csv"].write_bytes(csv + b"prose\n")
        files["jsonl"].write_bytes(jsonl + b"prose\n")
        score(files)
        assert written(files) == (csv + b"prose\n", jsonl + b"prose\n")
    within = len(expected()[0]) + 3  # the first row's name
    journal_path.write_text(json.dumps({"csv": within, "jsonl": 3}) + "\n")
    for name, content in (("csv", csv), ("jsonl", jsonl)):
        files[name].write_bytes(content)
    score(files)
    assert written(files) == (csv, jsonl)


LINE = {"path": "/a.png", "size": 1, "mtime_ns": 1, "csv": 140, "jsonl": 0}
DAMAGED = [
    "no json",
    "[]",
    "3",
    "null",
    "{}",
    "[" * 50000,
    json.dumps(LINE | {"path": 3}),
    json.dumps(LINE | {"size": "1"}),
    json.dumps(LINE | {"size": True}),
    json.dumps(LINE | {"mtime_ns": 1.5}),
    json.dumps(LINE | {"csv": -1}),
    json.dumps(LINE | {"csv": None}),
    json.dumps(LINE).replace("140", "9" * 5000),
    "\ufffd" * 7,
]


@pytest.mark.parametrize("line", DAMAGED, ids=lambda line: line[:30])
def test_a_damaged_journal_is_refused_with_the_mend(files, journal_path, line):
    score(files, *NAMES[:2])
    before = written(files)
    damaged = journal_path.read_bytes() + line.encode() + b"\n"
    journal_path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"journal is damaged in line 4: move it away") as error:
        score(files, *NAMES)
    assert len(error.value.args) == 1
    assert (written(files), journal_path.read_bytes()) == (before, damaged)


def test_a_journal_that_is_no_file_or_one_endless_line_is_refused(files, journal_path):
    journal_path.write_bytes(bytes(2 * MOST_LINE))
    with pytest.raises(InputError, match="damaged in line 1"):
        score(files)
    journal_path.unlink()
    os.mkfifo(journal_path)
    with pytest.raises(InputError, match="damaged in line 0"):
        score(files)


def test_two_processes_do_not_append_to_one_file(files, tmp_path):
    others = {"csv": tmp_path / "other.csv", "jsonl": files["jsonl"]}
    with open_journal(files, FIELDS):
        for shared in (files, others):
            with pytest.raises(InputError, match=r"seen\.\w+ is in use by another process"):
                score(shared)
    score(others)


def test_without_files_nothing_is_remembered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert score({}, *NAMES) == [*NAMES]
    assert score({}, *NAMES) == [*NAMES]
    assert not list(tmp_path.iterdir())


def test_a_full_disk_names_the_file_and_the_next_start_goes_on(files, monkeypatch):
    real = Appended.append

    def full(self, row: bytes) -> None:
        if b"lot/c.png" in row and self.path.suffix == ".jsonl":
            real(self, row[:20])
            raise OSError(28, "No space left on device", str(self.path))
        real(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(Appended, "append", full)
        with pytest.raises(OSError, match=r"No space.*seen\.jsonl"):
            score(files, *NAMES)
    score(files, *NAMES)
    assert written(files) == expected(*NAMES)

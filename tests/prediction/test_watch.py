"""predict.py --watch: rows as of the same pictures by name, once each, whatever ends it."""

import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.samples import InputError
from prediction import watching
from prediction.journal import FILES, Appended, Journal, open_journal
from prediction.records import FIELDS
from tests.conftest import fill, picture
from tests.faults.running import CONTEXT
from tests.prediction.conftest import MACHINE, rows_of
from tests.prediction.watching import be_predict, interrupted_when, lines_of, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")


@pytest.fixture(autouse=True)
def quick(monkeypatch, interruptible):
    monkeypatch.setattr(watching, "STILL", 0.3)


@pytest.fixture
def watch(alone, run_predict, pictures, tmp_path):
    """Watch the pictures until there are so many rows, or something else; return the exit code."""
    csv, jsonl = tmp_path / "a.csv", tmp_path / "a.jsonl"

    def run(rows: int, *more: object, until=lambda: True) -> int:
        line = ("--watch", pictures, "--csv", csv, "--jsonl", jsonl, *more)
        with interrupted_when(lambda: len(lines_of(jsonl)) >= rows and until()):
            return run_predict(alone.folder, *line)

    return run


def compared(csv: Path) -> list[dict[str, str]]:
    """Return the rows, sorted, without what differs from one time to another."""
    rows = [{k: v for k, v in row.items() if k != "milliseconds"} for row in rows_of(csv)]
    return sorted(rows, key=lambda row: row["image"])


def test_rows_are_those_of_the_pictures_by_name_and_come_once(
    alone, run_predict, pictures, watch, tmp_path, capsys
):
    assert run_predict(alone.folder, pictures, "--csv", tmp_path / "named.csv") == 0
    expected = compared(tmp_path / "named.csv")
    results = ("--pictures", tmp_path / "seen", "--maps", tmp_path / "maps")
    assert watch(4, *results) == 0
    assert compared(tmp_path / "a.csv") == expected
    shown = [json.loads(line) for line in lines_of(tmp_path / "a.jsonl")]
    assert sorted(row["image"] for row in shown) == [row["image"] for row in expected]
    names = {"größe.jpg", "grey.bmp", "Prüfplatz 2/000.png", "Prüfplatz 2/001.png"}
    for folder, suffix in (("seen", ".png"), ("maps", ".tiff")):
        made = {p.relative_to(tmp_path / folder) for p in (tmp_path / folder).rglob("*.*")}
        assert made == {Path(name + suffix) for name in names}
    said = capsys.readouterr().err
    assert f"watching {pictures}; 0 pictures are done" in said
    assert "the same command, given once more, goes on\n4 pictures, " in said
    picture(np.random.default_rng(3), stain=True).save(pictures / "new.png")
    assert watch(5, "--fail_on_anomaly") == 3
    assert "watching" in (said := capsys.readouterr().err)
    assert "; 4 pictures are done" in said
    assert "\n1 picture, 1 anomalous" in said
    assert [row["image"] for row in rows_of(tmp_path / "a.csv")][4:] == [str(pictures / "new.png")]


def test_what_cannot_be_read_is_told_once_and_scored_when_it_changes(
    watch, pictures, tmp_path, capfd
):
    whole = (pictures / "grey.bmp").read_bytes()
    (pictures / "grey.bmp").write_bytes(whole[:500])
    (pictures / "none.png").write_bytes(b"none")
    journal = tmp_path / "a.csv.journal"

    def noted(count: int) -> Callable[[], bool]:
        return lambda: sum("path" in line for line in lines_of(journal)) == count

    assert watch(3, until=noted(5)) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 2
    (pictures / "grey.bmp").write_bytes(whole)
    assert watch(4, until=noted(6)) == 0
    assert "error" not in capfd.readouterr().err
    assert len(rows_of(tmp_path / "a.csv")) == 4


def test_a_file_that_goes_before_it_is_read_is_forgotten_until_it_is_back(
    watch, pictures, tmp_path, monkeypatch, capsys
):
    path, away = pictures / "größe.jpg", tmp_path / "away.jpg"
    real, real_sync, ended = watching.predict_files, Journal.sync, threading.Event()

    def predict_files(*arguments):
        if not ended.is_set():
            path.rename(away)
        return real(*arguments)

    def sync(self) -> None:
        real_sync(self)
        ended.set()

    def back() -> bool:
        if ended.is_set() and away.exists():
            away.rename(path)  # the same file
        return path.exists() and len(lines_of(tmp_path / "a.jsonl")) == 4

    monkeypatch.setattr(watching, "predict_files", predict_files)
    monkeypatch.setattr(Journal, "sync", sync)
    assert watch(3, until=back) == 0
    assert "error" not in capsys.readouterr().err
    assert [Path(row["image"]) for row in rows_of(tmp_path / "a.csv")][3:] == [path]


def test_a_picture_that_is_replaced_while_it_waits_has_one_row(
    watch, pictures, tmp_path, monkeypatch
):
    path, real = pictures / "größe.jpg", watching.predict_files
    other = picture(np.random.default_rng(77), stain=False)

    def predict_files(*arguments):
        if not replaced:
            replaced.append(path)
            other.save(path)
        return real(*arguments)

    replaced: list[Path] = []
    monkeypatch.setattr(watching, "predict_files", predict_files)
    assert watch(4) == 0
    rows = rows_of(tmp_path / "a.csv")
    assert sorted(Path(row["image"]) for row in rows) == sorted({Path(r["image"]) for r in rows})
    assert len(rows) == 4
    noted = [json.loads(line) for line in lines_of(tmp_path / "a.csv.journal")]
    sizes = [entry["size"] for entry in noted if entry.get("path") == str(path)]
    assert sizes == [path.stat().st_size]  # so that the next start knows what was read


def test_what_a_watch_appends_to_is_not_replaced(watch, alone, run_predict, pictures, tmp_path):
    assert watch(4) == 0
    before = (tmp_path / "a.csv").read_bytes()
    with pytest.raises(InputError, match=r"--csv .*a\.csv has a journal of a --watch"):
        run_predict(alone.folder, pictures, "--csv", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == before


def test_a_full_disk_ends_it_and_the_next_start_goes_on(watch, tmp_path, monkeypatch, capsys):
    real = Appended.append

    def full(self, row: bytes) -> None:
        if b"grey" in row and self.path.suffix == ".csv":
            real(self, row[:30])
            raise OSError(28, "No space left on device", str(self.path))
        real(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(Appended, "append", full)
        with pytest.raises(OSError, match=r"No space left .*a\.csv"):
            watch(0, until=lambda: False)
    assert watch(4) == 0
    assert len(rows_of(tmp_path / "a.csv")) == len(lines_of(tmp_path / "a.jsonl")) == 4


def test_every_fault_of_a_watch_is_told_at_once(alone, run_predict, pictures, tmp_path):
    inside = ("--csv", pictures / "a.csv", "--pictures", pictures / "seen", "--workers", 0)
    with pytest.raises(InputError) as caught:
        run_predict(alone.folder, "--watch", pictures, *inside[:4], "--false_alarm_rate", 2)
    faults = [fault.split()[0] for fault in caught.value.args]
    assert faults == ["--false_alarm_rate", "--pictures", "--csv"]
    for sources in ((), (pictures, "--watch", pictures)):
        with pytest.raises(InputError, match=r"^name one thing to score, not "):
            run_predict(alone.folder, *sources)
    with pytest.raises(InputError, match=r"nowhere: there is no such folder"):
        run_predict(alone.folder, "--watch", tmp_path / "nowhere")
    rows = ("--csv", tmp_path / "a", "--jsonl", tmp_path / "a.journal")
    with pytest.raises(InputError, match=r"a\.journal would be replaced"):
        run_predict(alone.folder, "--watch", pictures, *rows)
    with (
        open_journal({"csv": tmp_path / "b.csv"}, FIELDS),
        pytest.raises(InputError, match=r"b\.csv is in use by another process"),
    ):
        run_predict(alone.folder, "--watch", pictures, "--csv", tmp_path / "b.csv")


@pytest.mark.slow
def test_killed_again_and_again_each_picture_has_one_row(alone, run_predict, tmp_path):
    """Ten times, while files arrive in several ways."""
    folder, rng = tmp_path / "incoming", random.Random(5)
    fill(tmp_path / "made", 60)
    line = [alone.folder, "--watch", folder, *MACHINE]
    files = {name: tmp_path / f"a.{name}" for name in FILES}
    line += [word for name, file in files.items() for word in (f"--{name}", file)]
    folder.mkdir()
    made = sorted((tmp_path / "made").iterdir())

    def start():
        process = CONTEXT.Process(target=be_predict, args=([*map(str, line)], tmp_path / "log"))
        process.start()
        return process

    for begun in range(10):
        process = start()
        for path in made[5 * begun : 5 * begun + 5]:
            time.sleep(rng.uniform(0, 0.3))
            target = folder / f"lot {begun % 3}" / path.name
            target.parent.mkdir(exist_ok=True)
            move = shutil.copy if rng.random() < 0.5 else shutil.copy2
            move(path, target)
        rows = len(lines_of(files["jsonl"]))
        wait_for(lambda rows=rows: len(lines_of(files["jsonl"])) > rows)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.join()
    process = start()
    wait_for(lambda: len(lines_of(files["jsonl"])) >= 50)
    os.kill(process.pid, 15)
    process.join()
    assert process.exitcode == 0, (tmp_path / "log").read_text()
    assert run_predict(alone.folder, folder, "--csv", tmp_path / "named.csv") == 0
    assert compared(files["csv"]) == compared(tmp_path / "named.csv")
    shown = sorted(json.loads(line)["image"] for line in lines_of(files["jsonl"]))
    assert shown == [row["image"] for row in compared(files["csv"])]

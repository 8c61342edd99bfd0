"""A task's output and its copy: a store out of reach ends no training, and is waited for."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from data.samples import InputError
from sweeping import attempt as module
from sweeping import mirror as mirroring
from sweeping.attempt import Ending, Slot, attempt
from sweeping.board import GO_ON, SAVE, STOP, Stopped
from sweeping.finished import mark_of
from sweeping.mirror import Mirror, fetch_results
from tests.sweeping.test_attempt import job_of
from utils.runs import Run
from utils.storage import Store

pytest.importorskip("pyarrow", reason="needs requirements-ray.txt")
AWAY = OSError(5, "network connection", "s3://away")
# Two checkpoints, each whole when it is named; it says which start it was called with.
TRAINING = """
import os, pathlib, sys, time
output = next(a.partition("=")[2] for a in sys.argv if a.startswith("--output_dir"))
folder = pathlib.Path(output, "trainings/mvtec_ad/bottle")
folder.mkdir(parents=True, exist_ok=True)
print(sys.argv[-1], sorted(p.name for p in folder.iterdir()), flush=True)
for content in ("1", "22"):
    (folder / ".aside").write_text(content)
    os.replace(folder / ".aside", folder / "checkpoint.safetensors")
    time.sleep(0.3)
"""


class Flaky(Store):
    """A store that is out of reach for the next `away` uploads and downloads."""

    away = 0

    def reach(self) -> None:
        if type(self).away > 0:
            type(self).away -= 1
            raise AWAY

    def upload(self, file: Path, name: str) -> None:
        self.reach()
        super().upload(file, name)

    def download(self, name: str, file: Path) -> None:
        self.reach()
        super().download(name, file)


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setattr(Flaky, "away", 0)
    monkeypatch.setattr(module, "Store", Flaky)
    monkeypatch.setattr(mirroring, "PAUSE", 0.02)
    monkeypatch.setattr(mirroring, "LOOK", 0.01)
    return Flaky((tmp_path / "store").as_uri())


@pytest.fixture
def job(tmp_path, store, monkeypatch):
    """A job whose main.py is a few lines, and whose output is kept in the store."""
    root = tmp_path / "root"
    (root / "sweeping").mkdir(parents=True)
    tether = Path(module.__file__).with_name("tethered.py")
    (root / "sweeping" / "tethered.py").symlink_to(tether)
    (root / "main.py").write_text(TRAINING)
    monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(module, "PAUSE", 0.05)
    monkeypatch.setattr(module, "hash_of_tests", lambda *place: "tests")
    return lambda **more: replace(job_of(tmp_path), storage=store.url, **more)


def mirror_of(store: Store, run: Run, ask=lambda line: GO_ON) -> Mirror:
    return Mirror(store, run, run.output / "logs" / "a.log", ask)


def made(run: Run, *files: Path) -> None:
    (run.output / "logs").mkdir(parents=True, exist_ok=True)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)


@pytest.fixture
def run(tmp_path) -> Run:
    run = Run(tmp_path / "out", "mvtec_ad", "bottle")
    made(run, run.checkpoint_file, run.config_file)
    return run


def test_a_store_out_of_reach_ends_no_training_and_is_told_of_once(job, store, monkeypatch):
    monkeypatch.setattr(Flaky, "away", 4)
    assert attempt(job(), Slot(), lambda *_: GO_ON).code == 0
    assert store.read("trainings/mvtec_ad/bottle/checkpoint.safetensors") == b"22"
    assert "trainings/mvtec_ad/bottle/sweep.json" in store.listing()
    log = store.read("logs/a.log").decode()
    assert log.count("s3://away: network connection It is tried again.\n") == 1


def test_a_checkpoint_that_was_not_sent_is_sent_later(store, run, monkeypatch):
    mirror = mirror_of(store, run)
    monkeypatch.setattr(Flaky, "away", 1)
    mirror.send_checkpoint()
    assert mirror.sent == {} == store.listing()
    mirror.send_checkpoint()  # at once: it is not tried yet
    assert store.listing() == {}
    time.sleep(0.03)
    mirror.send_checkpoint()
    assert len(store.listing("trainings")) == 2


def test_a_file_that_is_gone_meanwhile_is_no_failure(store, run, monkeypatch):
    upload = Store.upload

    def renamed(self: Store, file: Path, name: str) -> None:
        if file == run.config_file:
            file.unlink()
        upload(self, file, name)

    monkeypatch.setattr(Store, "upload", renamed)
    mirror = mirror_of(store, run)
    mirror.send_checkpoint()
    assert not mirror.log.exists()
    mirror.send_checkpoint()
    assert [*store.listing()] == ["trainings/mvtec_ad/bottle/checkpoint.safetensors"]


def test_what_is_fetched_or_sent_in_the_end_waits_for_the_store(store, run, monkeypatch):
    lines = []
    mirror = mirror_of(store, run, lambda line: lines.append(line) or GO_ON)
    monkeypatch.setattr(Flaky, "away", 3)
    mirror.send()
    names = [*store.listing()]
    assert len(names) == 2
    assert "s3://away: network connection It is tried again." in lines
    monkeypatch.setattr(Flaky, "away", 3)
    mirror.fetch()
    assert sorted(mirror.sent) == names
    monkeypatch.setattr(mirroring, "PATIENCE", 0.1)
    monkeypatch.setattr(Flaky, "away", 10**6)
    began = time.monotonic()
    with pytest.raises(OSError, match="network connection"):
        mirror.fetch()
    assert time.monotonic() - began < 10


def test_what_only_its_user_can_mend_is_not_waited_for(store, run, monkeypatch):
    def denied(*_) -> None:
        raise InputError("access denied")

    monkeypatch.setattr(Store, "upload", denied)
    monkeypatch.setattr(mirroring, "PAUSE", 60)
    with pytest.raises(InputError):
        mirror_of(store, run).send()


@pytest.mark.parametrize("away", [0, 10**6])
def test_an_interrupt_ends_a_fetch_and_a_second_one_the_last_sending(store, run, monkeypatch, away):
    mirror_of(store, run).send()
    monkeypatch.setattr(mirroring, "PAUSE", 60)
    asked = iter([GO_ON, GO_ON, SAVE])
    monkeypatch.setattr(Flaky, "away", away)
    with pytest.raises(Stopped):
        mirror_of(store, run, lambda line: next(asked)).fetch()
    made(run, run.checkpoint_file, run.config_file)
    asked = iter([SAVE, SAVE, STOP])
    with pytest.raises(Stopped):
        made(run, run.losses_file)
        mirror_of(store, run, lambda line: next(asked)).send()


def test_an_attempt_stopped_while_it_fetches_ends_as_interrupted(job, store):
    store.write("trainings/mvtec_ad/bottle/config.yaml", b"")
    ending = attempt(job(), Slot(), lambda *_: SAVE)
    assert ending == Ending(130, "stopped while files were fetched or sent", os.uname().nodename)
    assert not job().output.exists()


def test_a_node_keeps_nothing_of_an_attempt_that_raises(job, store):
    def beat(name, progress):
        if progress.line.startswith("--resume"):
            raise ConnectionError("the board is gone")
        return GO_ON

    with pytest.raises(ConnectionError):
        attempt(job(), Slot(), beat)
    assert not job().output.exists()


def test_the_last_line_of_a_log_that_a_node_does_not_keep_is_told(job):
    (module.ROOT / "main.py").write_text("import sys; print('no teacher'); sys.exit(2)")
    assert attempt(job(), Slot(), lambda *_: GO_ON)[:2] == (2, "no teacher")


def test_what_is_replaced_is_a_plain_run_that_goes_on_in_later_attempts(job, store):
    run = job().run
    former = [run.config_file, run.metrics_file, run.maps_folder / "a.tiff", mark_of(run)]
    for name in (file.relative_to(run.output).as_posix() for file in former):
        store.write(name, b"former")
    store.write("metrics/mvtec_ad/bottle2.json", b"another's")

    def said(**more) -> str:
        assert attempt(job(start="--overwrite", **more), Slot(), lambda *_: GO_ON).code == 0
        return store.read("logs/a.log").decode().splitlines()[-1]

    assert said() == "--overwrite []"
    assert [n for n in store.listing() if store.read(n) == b"former"] == []
    assert store.read("metrics/mvtec_ad/bottle2.json") == b"another's"
    store.remove("trainings/mvtec_ad/bottle/sweep.json")  # the node was lost before that
    assert said(again=True) == "--resume ['checkpoint.safetensors']"
    # a former run's mark: no earlier attempt has come as far as to remove it
    assert said(again=True) == "--resume []"


def test_results_are_fetched_anew_unless_they_are_as_the_store_has_them(store, run, tmp_path):
    other = Run(tmp_path / "here", "mvtec_ad", "bottle")
    made(run, run.metrics_file, mark_of(run))
    assert fetch_results(None, run.output, [run, other]) == {run}
    assert fetch_results(store.url, other.output, [other]) == set()
    mirror_of(store, run).send()
    assert fetch_results(store.url, other.output, [other]) == {other}
    assert other.metrics_file.read_text() == "bottle.json"
    assert not other.checkpoint_file.exists()
    other.metrics_file.write_text("BOTTLE.json")  # trained here since, as long, and newer
    mark_of(other).unlink()
    assert fetch_results(store.url, other.output, [other]) == {other}
    assert other.metrics_file.read_text() == "bottle.json"
    before = other.metrics_file.stat().st_ino
    fetch_results(store.url, other.output, [other])
    assert other.metrics_file.stat().st_ino == before

"""Files that arrive in a folder are given once each, when they are finished."""

import os
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from data.listing import identity
from prediction import watching
from prediction.watching import MOST, Watcher, look
from tests.prediction.watching import LIMIT, Watched, wait_for

QUICK = {"STILL": 0.3, "CLOSED": 0.05, "TICK": 0.005}  # seconds


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, seconds in QUICK.items():
        monkeypatch.setattr(watching, name, seconds)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "incoming").mkdir()
    return tmp_path / "incoming"


@pytest.fixture
def without_events(monkeypatch):
    """As on a network share, or where the system gives no more of them."""

    def refused(**_) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(watching, "Observer", refused)


@pytest.fixture
def without_walks(monkeypatch):
    """But for the first."""
    monkeypatch.setattr(watching, "STILL", 1000.0)


def let_walk(times: int) -> None:
    """Wait until so many walks must have passed."""
    time.sleep(2 * times * QUICK["STILL"])


def write(path: Path, content: bytes = b"image") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_each_file_is_given_once_and_again_when_it_was_replaced(folder):
    for name in ("b.png", "a.jpg", "lot/c.tif"):
        write(folder / name)
    with Watched(folder) as watched:
        watched.wait_for("a.jpg", "b.png", "lot/c.tif")
        write(folder / "d.bmp")
        watched.wait_for("a.jpg", "b.png", "lot/c.tif", "d.bmp")
        let_walk(3)
        write(folder / "b.png", b"other")  # as large as the former
        watched.wait_for("a.jpg", "b.png", "lot/c.tif", "d.bmp", "b.png")
        let_walk(3)
    assert len(watched.found) == 5


def test_what_is_known_is_not_given(folder):
    known = {look(write(folder / "a.png")).key}
    write(folder / "b.png")
    with Watched(folder, known) as watched:
        watched.wait_for("b.png")
        let_walk(2)
    assert watched.found == ["b.png"]
    assert known == {look(folder / name).key for name in ("a.png", "b.png")}


@pytest.mark.usefixtures("without_walks")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a file is closed")
def test_a_file_is_given_at_once_when_it_is_closed_or_moved_in(folder, tmp_path):
    with Watched(folder) as watched:
        write(folder / "a.png")
        watched.wait_for("a.png")
        os.replace(write(tmp_path / "b.png"), folder / "b.png")
        watched.wait_for("a.png", "b.png")
        os.replace(write(folder / "c.png.part"), folder / "c.png")
        watched.wait_for("a.png", "b.png", "c.png")
        (folder / "empty.png").touch()


@pytest.mark.usefixtures("without_walks")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a file is closed")
def test_a_file_that_was_closed_is_left_alone_for_a_moment(folder, monkeypatch):
    """Programs that copy set its times at last."""
    monkeypatch.setattr(watching, "CLOSED", 1000.0)
    with Watched(folder) as watched:
        path = write(folder / "a.png")
        wait_for(lambda: path in watched.watcher.events.closed)
        time.sleep(0.2)
        os.utime(path, (1, 1))
        assert watched.found == []
        monkeypatch.setattr(watching, "CLOSED", 0.0)
        watched.wait_for("a.png")
    assert watched.lists[0][0].mtime_ns == 10**9


@pytest.mark.parametrize("events", [True, False])
def test_a_file_that_is_written_in_pieces_is_waited_for(folder, events, request):
    if not events:
        request.getfixturevalue("without_events")
    with Watched(folder) as watched:
        with (folder / "a.png").open("wb") as file:
            for _ in range(15):
                file.write(b"piece")
                file.flush()
                time.sleep(watching.STILL / 3)
            assert watched.found == []
        watched.wait_for("a.png")
    assert watched.lists[0][0].size == 15 * len("piece")


@pytest.mark.usefixtures("without_events")
def test_without_events_walks_find_everything(folder, tmp_path, capsys):
    with Watched(folder) as watched:
        write(folder / "a.png")
        os.replace(write(tmp_path / "moved" / "b.png").parent, folder / "lot")
        (folder / "empty.png").touch()
        watched.wait_for("a.png", "lot/b.png", "empty.png")
    said = capsys.readouterr().err
    assert said.count("no events (inotify watch limit reached)") == 1


def test_new_sub_folders_are_entered_but_not_hidden_ones(folder):
    names = ("lot/1/a.png", ".hidden/a.png", "lot/.a.png", "__MACOSX/a.png", "a.png.part", "a.txt")
    with Watched(folder) as watched:
        for name in (*names, "lot/1/b.png", "x.png"):
            write(folder / name)
        watched.wait_for("lot/1/a.png", "lot/1/b.png", "x.png")
        let_walk(2)
    assert len(watched.found) == 3


def test_links_give_no_file_twice_and_circles_end(folder, tmp_path):
    write(folder / "real" / "a.png")
    write(tmp_path / "elsewhere" / "b.png")
    (folder / "a link that comes first").symlink_to(folder / "real")
    (folder / "real" / "above").symlink_to(tmp_path)
    (folder / "real" / "round").symlink_to(folder)
    (folder / "outside").symlink_to(tmp_path / "elsewhere")
    (folder / "broken.png").symlink_to(folder / "nowhere")
    with Watched(folder) as watched:
        watched.wait_for("a link that comes first/a.png", "outside/b.png")
        write(folder / "real" / "c.png")
        write(tmp_path / "elsewhere" / "d.png")
        first = "a link that comes first"
        watched.wait_for(f"{first}/a.png", "outside/b.png", f"{first}/c.png", "outside/d.png")
        let_walk(2)
    assert len(watched.found) == 4


def test_a_folder_that_vanishes_is_waited_for(folder, capsys, monkeypatch):
    with Watched(folder) as watched:
        write(folder / "a.png")
        watched.wait_for("a.png")
        folder.rename(folder.with_name("away"))
        wait_for(lambda: watched.watcher.gone)
        write(folder / "b.png")
        wait_for(lambda: not watched.watcher.gone)
        watched.wait_for("a.png", "b.png")
        wait_for(lambda: watched.watcher.events.observed == identity(folder))
        monkeypatch.setattr(watching, "CLOSED", 1000.0)
        write(folder / "c.png")
        wait_for(lambda: folder / "c.png" in watched.watcher.events.closed)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"{folder} is gone: it is waited for", f"{folder} is back"]


def test_a_file_that_goes_before_it_is_finished_is_forgotten(folder, capsys):
    with Watched(folder) as watched:
        for number in range(20):
            write(folder / f"{number}.png").unlink()
        write(folder / "last.png")
        watched.wait_for("last.png")
    assert capsys.readouterr().err == ""


def test_a_backlog_comes_in_lists_and_what_is_new_between_them(folder):
    """1,000 files take no more memory than what they are known by."""
    for number in range(1000):
        write(folder / "old" / f"{number:04}.png")
    known: set[int] = set()
    lengths, news = [], []
    begun = time.monotonic()
    tracemalloc.start()
    for versions in Watcher(folder, known, lambda: len(known) == 1001).lists():
        if not lengths:
            write(folder / "new.png")
            time.sleep(4 * QUICK["CLOSED"])
        news += [len(lengths) for version in versions if version.path.name == "new.png"]
        lengths.append(len(versions))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert news == [1]
    assert max(lengths) == MOST
    assert sum(lengths) == 1001
    assert kept < 2**20
    assert time.monotonic() - begun < 20


def test_asked_to_stop_it_does_not_end_its_walk_first(folder, monkeypatch):
    """As on a share that answers slowly."""
    for number in range(500):
        write(folder / f"{number}.png")
    slow = threading.Event()

    def look_slowly(path: Path) -> None:
        slow.set()
        time.sleep(0.1)

    monkeypatch.setattr(watching, "look", look_slowly)
    with Watched(folder):
        slow.wait(LIMIT)
        begun = time.monotonic()
    assert time.monotonic() - begun < 10

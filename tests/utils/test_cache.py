"""A data set is fetched once a machine, whole, into a folder that does not outgrow its bound."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.samples import InputError
from tests.conftest import REPOSITORY
from tests.s3_server import SECRET
from utils.cache import cached
from utils.storage import Store

pytest.importorskip("pyarrow", reason="URLs need requirements-ray.txt")
pytest.importorskip("moto", reason="the S3 server needs requirements-dev.txt")
HUGE = 2**40
FILES = {f"train/good/{number:02}.png": bytes([number]) * 1000 for number in range(20)}
USE = """
import sys
from pathlib import Path
from utils.cache import cached
with cached(sys.argv[1], Path(sys.argv[2]), 2**40) as data:
    print(data, flush=True)
    input()
"""


def fill(bucket, name: str, files: dict[str, bytes] = FILES) -> str:
    for key, content in files.items():
        bucket.put(f"{name}/{key}", content)
    return f"s3://{bucket.name}/{name}"


def files_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def using(url: str, folder: Path) -> subprocess.Popen:
    """Start a process that uses a data set until it is told to end."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", USE, url, folder], cwd=REPOSITORY, **pipes)


def sets(folder: Path) -> set[str]:
    """Return the names of the data sets that are whole."""
    return {path.name for path in folder.glob("*/data/*")}


def refuse(url: str, folder: Path, most: int, said: str) -> None:
    """Check that a data set is refused with this line."""
    with pytest.raises(InputError, match=re.escape(said)), cached(url, folder, most):
        pass


def test_a_data_set_is_a_folder_of_its_own_name_and_is_fetched_once(bucket, tmp_path):
    url = fill(bucket, "bottle")
    for _ in range(2):
        with cached(url, tmp_path, HUGE) as data:
            assert data.name == "bottle"
            assert files_of(data) == FILES
    assert sorted(bucket.fetched()) == sorted(f"bottle/{name}" for name in FILES)


def test_a_folder_of_a_file_system_is_kept_alike(tmp_path):
    (tmp_path / "far" / "cap" / "train").mkdir(parents=True)
    (tmp_path / "far" / "cap" / "train" / "0.png").write_bytes(b"0")
    with cached(f"file://{tmp_path}/far/cap", tmp_path / "cache", HUGE) as data:
        assert (data.name, files_of(data)) == ("cap", {"train/0.png": b"0"})


def rename(file: Path) -> None:
    file.rename(file.with_name("other.png"))


def rewrite(file: Path) -> None:
    file.write_bytes(b"other")


def touch(file: Path) -> None:
    os.utime(file, (1, 1))


@pytest.mark.parametrize("change", [rename, rewrite, touch])
def test_a_data_set_that_has_changed_is_fetched_anew(tmp_path, change):
    far = tmp_path / "far"
    far.mkdir()
    (far / "0.png").write_bytes(b"first")
    with cached(f"file://{far}", tmp_path / "cache", HUGE) as before:
        change(far / "0.png")
        with cached(f"file://{far}", tmp_path / "cache", HUGE) as after:
            assert files_of(after) == files_of(far)
            assert files_of(before) == {"0.png": b"first"}
            assert after != before


def test_of_two_processes_one_fetches_and_the_other_waits(bucket, tmp_path):
    url = fill(bucket, "a")
    both = [using(url, tmp_path) for _ in range(2)]
    shown = {process.stdout.readline().strip() for process in both}
    for process in both:
        process.communicate("\n")
    assert [process.returncode for process in both] == [0, 0]
    assert len(shown) == 1
    assert files_of(Path(*shown)) == FILES
    assert len(bucket.fetched()) == len(FILES)


def test_a_fetch_that_is_killed_is_not_taken_for_whole_and_goes_on(bucket, tmp_path):
    files = {f"{number:02}": os.urandom(2**20) for number in range(40)}
    url = fill(bucket, "a", files)
    process = using(url, tmp_path)
    while len(list(tmp_path.glob("*/part/[0-9]*"))) < 5:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert sets(tmp_path) == set()
    had = {path.name: path.stat().st_ino for path in tmp_path.glob("*/part/[0-9]*")}
    with cached(url, tmp_path, HUGE) as data:
        assert files_of(data) == files  # no half-written one is left beside them
        assert {name: (data / name).stat().st_ino for name in had} == had
    assert 5 <= len(had) < 40


def test_what_was_not_used_for_longest_makes_room(bucket, tmp_path):
    urls = [fill(bucket, name) for name in "abcd"]
    most = 3 * 20_000  # bytes: three of them
    for url in urls[:3]:
        with cached(url, tmp_path, most):
            pass
    with cached(urls[0], tmp_path, most):  # used again
        pass
    with cached(urls[3], tmp_path, most):
        assert sets(tmp_path) == {"a", "c", "d"}


def test_what_a_living_process_uses_stays(bucket, tmp_path):
    urls = [fill(bucket, name) for name in "abc"]
    process = using(urls[0], tmp_path)
    process.stdout.readline()
    with cached(urls[1], tmp_path, 2 * 20_000):
        refuse(urls[2], tmp_path, 2 * 20_000, "in use, or the disk is full: raise --cache_size")
        assert sets(tmp_path) == {"a", "b"}
    process.kill()  # it cannot say that it has ended
    process.communicate()
    with cached(urls[1], tmp_path, 2 * 20_000), cached(urls[2], tmp_path, 2 * 20_000):
        assert sets(tmp_path) == {"b", "c"}


def test_what_another_machine_uses_stays_for_a_week(bucket, tmp_path, monkeypatch):
    urls = [fill(bucket, name) for name in "ab"]
    hostname = socket.gethostname
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # there is none of that number here
    context = cached(urls[0], tmp_path, 20_000)
    place = context.__enter__().parents[1]
    monkeypatch.setattr(socket, "gethostname", hostname)
    refuse(urls[1], tmp_path, 20_000, "in use")
    (user,) = place.glob("*.user")
    long_ago = time.time() - 7.1 * 24 * 3600
    os.utime(user, (long_ago, long_ago))
    with cached(urls[1], tmp_path, 20_000):
        assert sets(tmp_path) == {"b"}


def test_a_data_set_that_is_larger_than_the_cache_is_told_before_it_is_fetched(bucket, tmp_path):
    old, url = fill(bucket, "old", {"0": b"0"}), fill(bucket, "a")
    with cached(old, tmp_path, HUGE):
        pass
    refuse(url, tmp_path, 19_999, "a takes 0.000 GiB, --cache_size allows 0.000")
    assert sets(tmp_path) == {"old"}
    assert bucket.fetched() == ["old/0"]


def test_a_data_set_that_is_larger_than_the_free_disk_is_told(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.cache.disk", lambda folder: 19_999)
    refuse(fill(bucket, "a"), tmp_path, HUGE, "has no room for the 0.000 GiB of s3://")
    assert bucket.fetched() == []


def test_nothing_else_in_the_cache_folder_is_removed(bucket, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work").write_bytes(b"x" * 10**6)
    with cached(fill(bucket, "a"), tmp_path, 20_000):
        refuse(fill(bucket, "b"), tmp_path, 20_000, "has no room")
    assert (tmp_path / "mine" / "work").exists()


def test_what_is_hostile_or_empty_is_refused_before_anything_is_written(bucket, tmp_path):
    url = fill(bucket, "a", {"0": b"0", "x/../../../evil": b"1"})
    refuse(url, tmp_path / "cache", HUGE, "leads elsewhere")
    refuse(f"s3://{bucket.name}/none", tmp_path / "cache", HUGE, "holds no files")
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_cache_is_not_followed(bucket, tmp_path):
    url, away = fill(bucket, "a"), tmp_path / "away"
    away.mkdir()
    with cached(url, tmp_path / "cache", HUGE) as data:
        place = data.parents[1]
    (data / "train" / "good" / "00.png").unlink()
    data.rename(place / "part")
    (place / "part" / "train" / "good").rename(tmp_path / "good")
    (place / "part" / "train" / "good").symlink_to(away)
    refuse(url, tmp_path / "cache", HUGE, "holds a link")
    assert list(away.iterdir()) == []


def test_what_changes_while_it_is_fetched_is_not_taken(bucket, tmp_path, monkeypatch):
    url, download = fill(bucket, "a"), Store.download

    def changing(store: Store, name: str, file: Path) -> None:
        download(store, name, file)
        bucket.put(f"a/{name}", b"other")

    monkeypatch.setattr(Store, "download", changing)
    refuse(url, tmp_path, HUGE, "has changed while")
    assert sets(tmp_path) == set()


def test_no_file_of_the_cache_has_a_secret_in_it(bucket, tmp_path):
    with cached(fill(bucket, "a"), tmp_path, HUGE):
        assert SECRET not in repr(files_of(tmp_path))

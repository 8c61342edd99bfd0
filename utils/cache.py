"""Data sets from URLs in a folder of this machine, which does not outgrow its bound.

<folder>/<key>.<bytes>.lock             held by whoever fetches, enters or removes it
<folder>/<key>.<bytes>/part/            while it is fetched
<folder>/<key>.<bytes>/data/<name>/     when it is whole
<folder>/<key>.<bytes>/<process>.*.user of each that uses it: the name of its machine
"""

import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

from filelock import FileLock, Timeout

from data.samples import InputError
from utils.files import is_alive, remove_parts
from utils.progress import progress
from utils.storage import Entry, Store

GIB = 2**30
PLACE = re.compile(r"[0-9a-f]{32}\.\d+")  # nothing else in the folder is ever removed
REMOVED = ".removed"
WEEK = 7 * 24 * 3600  # seconds: no training takes as long
THREADS = 16  # that fetch: with small files they wait for answers


@contextmanager
def cached(url: str, folder: Path, most: int) -> Iterator[Path]:
    """Give all that lies below a URL as a local folder of the same name, to be read only.

    All processes of this machine fetch it once, and again when a file's name, size or time has
    changed. `folder` holds `most` bytes at most: what was not used for longest makes room, unless
    a process uses it, of this machine or of another that shares the folder. Raises InputError for
    what is hostile, empty or too large; OSError where it cannot be fetched.
    """
    store = Store(url)
    listing = store.listing()
    if not listing:
        raise InputError(f"{url} holds no files")
    place = place_of(store, listing, folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = place / "data" / Path(unquote(store.url)).name
    with FileLock(f"{place}.lock"):
        if any(path.is_symlink() for path in (place, *place.rglob("*"))):
            raise InputError(f"{place} holds a link, which leads elsewhere: remove it")
        if not data.exists():
            fetch(store, listing, place, most)
            data.parent.mkdir(exist_ok=True)
            (place / "part").rename(data)
        descriptor, user = tempfile.mkstemp(".user", f"{os.getpid()}.", place)
        with open(descriptor, "w") as file:
            file.write(socket.gethostname())
    try:
        yield data
    finally:
        Path(user).unlink(missing_ok=True)  # which changes the folder's time: it was used now


def place_of(store: Store, listing: dict[str, Entry], folder: Path) -> Path:
    """Return where a data set lies in the cache, as it is now."""
    key = hashlib.sha256(json.dumps([store.url, listing]).encode()).hexdigest()[:32]
    return folder / f"{key}.{sum(entry.size for entry in listing.values())}"


def size_of(place: Path) -> int:
    """Return how many bytes a data set takes when it is whole."""
    return int(place.name.rpartition(".")[2])


def fetch(store: Store, listing: dict[str, Entry], place: Path, most: int) -> None:
    """Fetch what is not there yet into `part`, as whole files."""
    part = place / "part"
    remove_parts(part.rglob(".*.part"))
    here = {n for n, entry in listing.items() if is_whole(part / n, entry)}
    missing = [name for name in listing if name not in here]
    make_room(place, sum(listing[name].size for name in missing), most, store.url)

    def get(name: str) -> int:
        store.download(name, part / name)
        return listing[name].size

    total = sum(listing[name].size for name in missing)
    bar = progress(f"fetching {store.url}", total, "B", unit_scale=True)
    with bar, ThreadPoolExecutor(THREADS) as pool:
        for size in pool.map(get, missing):  # which cancels the others when one fails
            bar.update(size)
    if store.listing() != listing:
        raise InputError(f"{store.url} has changed while it was fetched: try again")
    if hasattr(os, "sync"):  # not on Windows
        os.sync()  # a power cut leaves no half of a file that is taken for whole


def is_whole(file: Path, entry: Entry) -> bool:
    """Tell whether a file was fetched before: it has its name when it is whole."""
    return file.is_file() and file.stat().st_size == entry.size


def make_room(place: Path, missing: int, most: int, url: str) -> None:
    """Make a data set's folder; `missing` bytes go into it, for which others are removed."""
    folder, needed = place.parent, size_of(place)
    if needed > most:
        raise InputError(
            f"{url} takes {needed / GIB:.3f} GiB, --cache_size allows {most / GIB:.3f}: raise it"
        )
    with FileLock(folder / ".lock"):  # else two would take the same room
        for removed in folder.glob("?" * 32 + REMOVED):
            shutil.rmtree(removed)
        others = sorted((p for p in places(folder) if p != place), key=os.path.getmtime)
        while sum(map(size_of, others)) + needed > most or disk(folder) < missing:
            evicted = next((other for other in others if evict(other)), None)
            if not evicted:
                raise InputError(
                    f"{folder} has no room for the {needed / GIB:.3f} GiB of {url}: other data "
                    "sets are in use, or the disk is full: raise --cache_size or make room there"
                )
            others.remove(evicted)
        place.mkdir(exist_ok=True)


def places(folder: Path) -> list[Path]:
    """Return the data sets that there are, in whole or in part."""
    return [p for p in folder.iterdir() if PLACE.fullmatch(p.name) and not p.is_symlink()]


def disk(folder: Path) -> int:
    """Return how many bytes are free."""
    return shutil.disk_usage(folder).free


def evict(place: Path) -> bool:
    """Remove a data set that no process uses, fetches or enters; tell whether it was so."""
    with suppress(Timeout), FileLock(f"{place}.lock", timeout=0):
        if not any(map(is_used, place.glob("*.user"))):
            removed = place.with_suffix(REMOVED)  # at once: no half of it is taken for whole
            place.rename(removed)
            shutil.rmtree(removed)
            return True
    return False


def is_used(user: Path) -> bool:
    """Tell whether the process of a `.user` file lives; one of another machine for a week."""
    try:
        if user.read_text() == socket.gethostname():
            return is_alive(int(user.name.partition(".")[0]))
        return time.time() - user.stat().st_mtime < WEEK
    except FileNotFoundError:  # it has just ended
        return False

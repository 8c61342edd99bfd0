"""Pictures that arrive in a folder: each is scored once, when it is finished.

Events tell promptly that a file was closed or moved in. That they come is not relied on (network
shares have none, a burst loses some): walks through the folder find what has stood still.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import chain, islice
from pathlib import Path

from watchdog.events import DirCreatedEvent, FileClosedEvent, FileMovedEvent, FileSystemEvent
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from data.listing import identity, is_hidden, is_image
from prediction.journal import Journal, Version
from prediction.output import Output, predict_files
from prediction.verdicts import Prediction, Predictor
from utils.commands import printable, say

STILL = 2.0  # seconds after which a file that does not change is finished
CLOSED = 0.1  # the same after it was closed: some programs then still set its times
TICK = 0.02  # seconds between two looks at what was closed
SHARE = 0.2  # of the time that walks may take
MOST = 128  # pictures at once, so that a backlog keeps no new one waiting for long


class Events:
    """What the system tells of a folder: `closed` are the files closed or moved in, and when."""

    def __init__(self, folder: Path):
        logging.getLogger("watchdog").setLevel(logging.CRITICAL)  # walks find what it loses
        self.folder, self.root = folder, folder
        self.closed: dict[Path, float] = {}  # watchdog's thread adds to it
        self.observed: tuple[int, int] | None = None
        self.observer: BaseObserver | None = None

    def observe(self) -> None:
        """Ask for events of the folder that is there now, if it is another or they have ended."""
        there = None
        with suppress(OSError):
            there = identity(self.folder)
        ended = self.observer and not all(e.is_alive() for e in self.observer.emitters)
        if there == self.observed and not ended:
            return
        self.stop()
        self.observed = there
        if there:
            try:
                self._begin()
            except OSError as error:  # such as too many folders
                self.stop()
                reason = error.strerror or error
                say(printable(f"{self.folder}: no events ({reason}), so files are found later"))

    def _begin(self) -> None:
        # or Linux does not tell what was moved in from elsewhere from what was created
        more = {"generate_full_events": True} if sys.platform == "linux" else {}
        self.observer, self.root = Observer(**more), self.folder.resolve()
        # of folders as well, or watchdog before 7 hears nothing from new ones
        kinds = [FileClosedEvent, FileMovedEvent, DirCreatedEvent]
        self.observer.schedule(self, str(self.root), recursive=True, event_filter=kinds)
        self.observer.start()

    def dispatch(self, event: FileSystemEvent) -> None:
        """Take an event from watchdog."""
        name = event.dest_path or (event.src_path if isinstance(event, FileClosedEvent) else "")
        if name and is_image(path := Path(os.fsdecode(name))):
            self.closed[self.folder / path.relative_to(self.root)] = time.monotonic()

    def left_alone(self) -> Iterator[Path]:
        """Yield, once, each of the files that nothing was heard of since."""
        for path, since in self.closed.copy().items():
            if time.monotonic() - since >= CLOSED:
                self.closed.pop(path)
                yield path

    def stop(self) -> None:
        if self.observer:
            self.observer.stop()
            with suppress(RuntimeError):  # it had not begun
                self.observer.join()
        self.observer = None


class Watcher:
    """Finds what is finished below a folder, but for the `known` keys, to which it adds."""

    def __init__(self, folder: Path, known: set[int], stop: Callable[[], bool]):
        self.folder, self.known, self.stop, self.events = folder, known, stop, Events(folder)
        self.entered: set[Path] = set()  # folders: each by one name, whatever links there are
        self.gone = False

    def lists(self) -> Iterator[list[Version]]:
        """Yield all that is finished, MOST at once, until `stop` says so."""
        walks = self._walks()
        try:
            while not self.stop():
                walked = iter(walks.__next__, None)  # up to the next rest
                if found := list(islice(self._new(chain(self._closed(), walked)), MOST)):
                    yield found
                else:
                    time.sleep(TICK)
        finally:
            self.events.stop()

    def _new(self, versions: Iterable[Version]) -> Iterator[Version]:
        for version in versions:
            if version.key not in self.known:
                self.known.add(version.key)
                yield version

    def _closed(self) -> Iterator[Version]:
        """Yield files that were closed or moved in, where the last walk has been."""
        for path in self.events.left_alone():
            version = look(path) if path.parent in self.entered else None
            if version and version.size:  # some are made empty, to be filled later
                yield version

    def _walks(self) -> Iterator[Version | None]:
        """Yield, without end, what stood still from one walk to the next; None between walks."""
        still: dict[Path, Version] = {}  # what is unknown, as the last walk found it
        while True:
            self._tell_whether_there()
            self.events.observe()
            begun, elsewhere, found = time.monotonic(), 0.0, {}
            for version in self._unknown():
                if still.get(version.path) == version:
                    left = time.monotonic()
                    yield version
                    elsewhere += time.monotonic() - left
                else:
                    found[version.path] = version
            still, ended = found, time.monotonic()
            rest = max(STILL, (ended - begun - elsewhere) / SHARE)
            while time.monotonic() < ended + rest:
                yield None

    def _tell_whether_there(self) -> None:
        """Say when the folder vanishes, as that of a share does, and when it is back."""
        if self.gone == self.folder.is_dir():
            self.gone = not self.gone
            state = "is gone: it is waited for" if self.gone else "is back"
            say(printable(f"{self.folder} {state}"))

    def _unknown(self) -> Iterator[Version]:
        """Yield each file named like an image that is not known; folders as `data.listing.walk`.

        What vanishes meanwhile, or cannot be listed, is passed over.
        """
        with suppress(OSError):
            seen = {identity(above) for above in self.folder.resolve().parents}
            for place, folders, names in os.walk(self.folder, followlinks=True):
                own = identity(place)
                if own in seen:
                    folders.clear()
                    continue
                seen.add(own)
                self.entered.add(Path(place))
                folders[:] = sorted(name for name in folders if not is_hidden(name))
                paths = (Path(place, name) for name in sorted(names))
                for version in map(look, filter(is_image, paths)):
                    if self.stop():  # a walk through a large share takes minutes
                        return
                    if version and version.key not in self.known:
                        yield version


def look(path: Path) -> Version | None:
    """Return a file as it is now; None where it is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return Version(path, status.st_size, status.st_mtime_ns)


def predict_arriving(
    predictor: Predictor,
    folder: Path,
    output: Output,
    workers: int,
    journal: Journal,
    stop: Callable[[], bool],
) -> Iterator[Prediction]:
    """Yield what a detector says of each picture that arrives in a folder, until `stop` says so.

    It is noted in the journal when the next is asked for: by then its rows are written. What cannot
    be read is told on stderr, and tried again when it has changed.
    """
    for versions in Watcher(folder, journal.known, stop).lists():
        waiting = {version.path: version for version in versions}
        places = {path: path.relative_to(folder) for path in waiting}
        unreadable: dict[Path, str] = {}
        predictions = predict_files(predictor, places, output, workers, unreadable)
        with closing(predictions):
            for prediction in predictions:
                version = waiting.pop(prediction.path)
                if look(prediction.path) not in (version, None):  # what was read is not known
                    journal.known.discard(version.key)  # and is found again when it stands still
                    continue
                yield prediction
                journal.unreadable.discard(prediction.path)
                journal.note(version)
                if stop():
                    break
        for path, fault in unreadable.items():
            version = waiting.get(path)  # none where it has its rows, but could not be drawn
            if version and look(path) != version:  # gone, or not finished after all
                journal.known.discard(version.key)
                continue
            say(f"error: {printable(fault)}")
            journal.unreadable.add(path)
            if version:
                journal.note(version)
        journal.sync()

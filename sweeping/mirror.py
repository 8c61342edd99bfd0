"""A task's output in a storage: sent after each checkpoint, fetched where the task goes on."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sweeping.board import SAVE, STOP, Stopped
from sweeping.finished import mark_of
from utils.commands import explained
from utils.runs import Run
from utils.storage import Entry, Store

PATIENCE = 300.0  # seconds that a store is waited for; Arrow gives up after 6
SAME = 1e-3  # seconds between times that are the same: file systems round them
PAUSE, LOOK = 5.0, 0.5  # seconds between two tries, between two looks at what is asked


class Mirror:
    """A run's files, beside its log, and their copies in a store under the same names.

    A file is known by its size and the time when it was written. `ask` shows a line, or the log's
    last one, and returns what the attempt is to do. Methods raise Stopped when it is to end.
    """

    def __init__(self, store: Store, run: Run, log: Path, ask: Callable[[str], int]):
        self.store, self.run, self.log, self.ask = store, run, log, ask
        self.sent: dict[str, tuple] = {}  # name → what was sent of it
        self.due = 0.0  # when a store that was out of reach is tried again

    def name(self, file: Path) -> str:
        """Return what a file of the output is called in the store."""
        return file.relative_to(self.run.output).as_posix()

    def fetch(self) -> None:
        """Copy what the store has of the run; anomaly maps and pictures can be made again."""
        self.remove()
        for name in sorted(self._patiently(self.stored, SAVE)):
            file = self.run.output / name
            self._patiently(partial(self.store.download, name, file), SAVE)
            self.sent[name] = stamp(file)

    def clear(self) -> None:
        """Remove the run from the store, first by what it would count as finished or begun."""
        self.remove()
        run = self.run
        first = [*map(self.name, (mark_of(run), run.detector_file, run.checkpoint_file))]
        names = self._patiently(self.stored, SAVE)
        for folder in (run.maps_folder, run.pictures_folder):
            names |= self._patiently(partial(self.below, folder), SAVE)
        for name in [*first, *sorted(names - {*first})]:
            self._patiently(partial(self.store.remove, name), SAVE)

    def is_finished(self) -> bool:
        """Tell whether the store has the run's mark."""
        return self.name(mark_of(self.run)) in self._patiently(self.stored, SAVE)

    def stored(self) -> set[str]:
        """Return the names of what the store has of the run, without maps and pictures."""
        files = (self.run.metrics_file, self.run.results_file, self.log)
        names = {*map(self.name, files)}
        names &= set().union(*(self.below(file.parent) for file in files))
        return names | self.below(self.run.folder)

    def below(self, folder: Path) -> set[str]:
        """Return the names of what the store has below a folder of the run."""
        return {*self.store.listing(self.name(folder))}

    def send_checkpoint(self) -> None:
        """Send what a resumed training needs, if there is a new checkpoint; that one last.

        A training waits for no store: one out of reach is told of in the log and tried again later.
        """
        checkpoint = self.run.checkpoint_file
        try:
            if time.monotonic() < self.due or not self.is_new(checkpoint):
                return
            for file in [*self.beside(checkpoint), self.log, checkpoint]:
                self._go_on(STOP)
                self._send(file)
            self.due = 0.0
        except FileNotFoundError:  # main.py has just renamed or removed it
            return
        except OSError as error:
            if not self.due:  # once for each time that it is out of reach
                with self.log.open("a", encoding="utf-8") as log:
                    log.write(f"{explained(error, None)[0]} It is tried again.\n")
            self.due = time.monotonic() + PAUSE

    def send(self) -> None:
        """Send all that has changed, the mark of a finished task last.

        What was fetched or sent before and is gone is removed.
        """
        mark, run = mark_of(self.run), self.run
        folders = (run.maps_folder, run.pictures_folder)
        files = [file for folder in folders for file in files_below(folder)]
        files += [run.results_file, run.metrics_file, self.log, *self.beside(mark), mark]
        for file in files:
            self._patiently(partial(self._send, file), STOP)
        for name in self.sent.keys() - {self.name(file) for file in files if file.exists()}:
            self._patiently(partial(self.store.remove, name), STOP)
            del self.sent[name]

    def beside(self, file: Path) -> list[Path]:
        """Return the files of the run's folder but this one."""
        return [other for other in files_below(self.run.folder) if other != file]

    def is_new(self, file: Path) -> bool:
        """Tell whether a file is there which the store does not have as it is."""
        return file.exists() and self.sent.get(self.name(file)) != stamp(file)

    def _send(self, file: Path) -> None:
        if self.is_new(file):
            before = stamp(file)
            self.store.upload(file, self.name(file))
            self.sent[self.name(file)] = before

    def _patiently(self, act: Callable[[], Any], limit: int) -> Any:
        """Do something with the store, and again for some minutes while it is out of reach.

        Raises Stopped as soon as `limit` is asked for.
        """
        line, end = f"fetching from or sending to {self.store.url}", time.monotonic() + PATIENCE
        while True:
            self._go_on(limit, line)
            try:
                return act()
            except OSError as error:
                if isinstance(error, FileNotFoundError) or time.monotonic() > end:
                    raise
                line = f"{explained(error, None)[0]} It is tried again."
            again = time.monotonic() + PAUSE
            while time.monotonic() < again:
                self._go_on(limit, line)
                time.sleep(LOOK)

    def _go_on(self, limit: int, line: str = "") -> None:
        if self.ask(line) >= limit:
            raise Stopped

    def remove(self) -> None:
        """Remove the local copies, which have a folder of their own."""
        shutil.rmtree(self.run.output, ignore_errors=True)


def fetch_results(url: str | None, output: Path, runs: list[Run]) -> set[Run]:
    """Copy into the output folder what tables, reports and the next sweep need of runs.

    Neither networks nor maps are among that. Returns the runs that have a mark in the store.
    Without a URL nothing is copied, and the marks are those of the output folder.
    """
    if url is None:
        return {run for run in runs if mark_of(run).exists()}
    store, wanted, stored = Store(url), {}, set()
    for run in runs:
        files = (run.metrics_file, run.results_file, run.config_file, run.images_file)
        for file in (*files, run.losses_file, mark_of(run)):
            wanted[file.relative_to(output).as_posix()] = file
    for folder in {name.rpartition("/")[0] for name in wanted}:
        for name, entry in store.listing(folder).items():
            file = wanted.get(name)
            if file:
                stored.add(file)
                fetch_new(store, name, file, entry)
    return {run for run in runs if mark_of(run) in stored}


def fetch_new(store: Store, name: str, file: Path, entry: Entry) -> None:
    """Fetch a file, unless what is there was fetched when the store had the same: by its time."""
    if file.exists():
        status = file.stat()
        if status.st_size == entry.size and abs(status.st_mtime - entry.changed) < SAME:
            return
    store.download(name, file)
    os.utime(file, (entry.changed, entry.changed))


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the whole files below a folder, sorted; locks and half-written ones are left out."""
    found = (path for path in sorted(folder.rglob("*")) if not path.name.startswith("."))
    return (path for path in found if path.is_file())


def stamp(file: Path) -> tuple[int, int]:
    """Return by what a file is known."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns

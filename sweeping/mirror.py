"""A task's output in a storage: sent after each checkpoint, fetched where the task goes on."""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from sweeping.finished import mark_of
from utils.runs import Run
from utils.storage import Entry, Store


class Mirror:
    """A run's files, beside its log, and their copies in a store under the same names.

    A file is known by its size and the time when it was written.
    """

    def __init__(self, store: Store, run: Run, log: Path):
        self.store, self.run, self.log = store, run, log
        self.sent: dict[str, tuple] = {}  # name → what was sent of it

    def name(self, file: Path) -> str:
        """Return what a file of the output is called in the store."""
        return file.relative_to(self.run.output).as_posix()

    def fetch(self) -> None:
        """Copy what the store has of the run; anomaly maps and pictures can be made again."""
        self.remove()
        files = (self.run.metrics_file, self.run.results_file, self.log)
        names = {*map(self.name, files)}
        names &= set().union(*(self.below(file.parent) for file in files))
        names |= self.below(self.run.folder)
        for name in sorted(names):
            file = self.run.output / name
            self.store.download(name, file)
            self.sent[name] = stamp(file)

    def below(self, folder: Path) -> set[str]:
        """Return the names of what the store has below a folder of the run."""
        return {*self.store.listing(self.name(folder))}

    def send_checkpoint(self) -> None:
        """Send what a resumed training needs, if there is a new checkpoint; that one last."""
        checkpoint = self.run.checkpoint_file
        if checkpoint.exists() and self.sent.get(self.name(checkpoint)) != stamp(checkpoint):
            self._send([*self.beside(checkpoint), self.log, checkpoint])

    def send(self) -> None:
        """Send all that has changed, the mark of a finished task last, and remove what is gone."""
        mark, run = mark_of(self.run), self.run
        folders = (run.maps_folder, run.pictures_folder)
        files = [file for folder in folders for file in files_below(folder)]
        files += [run.results_file, run.metrics_file, self.log, *self.beside(mark), mark]
        self._send(files)
        for name in self.sent.keys() - {self.name(file) for file in files if file.exists()}:
            self.store.remove(name)
            del self.sent[name]

    def beside(self, file: Path) -> list[Path]:
        """Return the files of the run's folder but this one."""
        return [other for other in files_below(self.run.folder) if other != file]

    def _send(self, files: Iterable[Path]) -> None:
        for file in files:
            if file.exists() and self.sent.get(self.name(file)) != stamp(file):
                before = stamp(file)
                self.store.upload(file, self.name(file))
                self.sent[self.name(file)] = before

    def remove(self) -> None:
        """Remove the local copies, which have a folder of their own."""
        shutil.rmtree(self.run.output, ignore_errors=True)


def fetch_results(url: str | None, output: Path, runs: list[Run]) -> None:
    """Copy into the output folder what tables, reports and the next sweep need of runs.

    Neither networks nor maps are among that. Nothing is done without a URL.
    """
    if url is None:
        return
    store, wanted = Store(url), {}
    for run in runs:
        files = (run.metrics_file, run.results_file, run.config_file, run.images_file)
        for file in (*files, run.losses_file, mark_of(run)):
            wanted[file.relative_to(output).as_posix()] = file
    for folder in {name.rpartition("/")[0] for name in wanted}:
        for name, entry in store.listing(folder).items():
            file = wanted.get(name)
            if file and not (file.exists() and is_as_new(file.stat(), entry)):
                store.download(name, file)


def is_as_new(status: os.stat_result, entry: Entry) -> bool:
    """Tell whether a local copy is as large as what the store has, and no older."""
    return status.st_size == entry.size and status.st_mtime >= entry.changed


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the whole files below a folder, sorted; locks and half-written ones are left out."""
    found = (path for path in sorted(folder.rglob("*")) if not path.name.startswith("."))
    return (path for path in found if path.is_file())


def stamp(file: Path) -> tuple[int, int]:
    """Return by what a file is known."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns

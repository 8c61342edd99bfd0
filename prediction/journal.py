"""Rows that survive kill -9: each is appended when it is made, then a journal says that it is.

Beside the first file of rows lies FILE.journal, with a line of JSON for each picture: path, size
and time of change, and the lengths of the files of rows after its row; for each start, lengths
alone. What such a file has behind the last line's is cut off at the next start, and its picture
scored again: no row is lost, and none is there twice.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from data.samples import InputError, require_file
from prediction.records import csv_row, json_row
from prediction.verdicts import Prediction
from utils.commands import printable, say
from utils.files import written_aside

FILES = ("csv", "jsonl")  # of rows, by the options that name them
JSON_BEGINS = b'{"image": '
MOST_LINE = 2**16  # bytes of a line of the journal; a path has 4096, escaped six times that
MOST_TAIL = 2**20  # bytes behind its last line: a kill leaves a row, a power cut a list of them


class Version(NamedTuple):
    """A file at one moment: when it is replaced, it is another picture."""

    path: Path
    size: int  # bytes
    mtime_ns: int

    @property
    def key(self) -> int:
        """What it is known by: 64 bits, which two of a million share once in 10^7 folders."""
        return hash((os.path.abspath(self.path), self.size, self.mtime_ns))


class Appended:
    """A file that grows by rows; one that is not there, or is empty, begins with `head`."""

    def __init__(self, path: Path, head: bytes = b""):
        self.path, self.head = path, head
        self.open()

    def open(self) -> None:
        if not self.path.exists() or not self.path.stat().st_size:
            with written_aside(self.path) as aside:
                aside.write_bytes(self.head)
        self.file = self.path.open("ab", buffering=0)  # or a full disk would fail again at its end

    def append(self, row: bytes) -> None:
        try:
            while row:
                row = row[self.file.write(row) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    @property
    def length(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def sync(self) -> None:
        os.fsync(self.file.fileno())

    def begun_anew(self) -> bool:
        """Begin anew if the file was moved away, as logs are; tell whether that is so."""
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self.file.fileno()), self.path.stat()):
                return False
        self.file.close()
        self.open()
        return True


class Journal:
    """Files of rows, and which pictures have theirs; without files nothing is remembered.

    `known` are the keys of the pictures that are done, `unreadable` are those that could not be
    read since. Raises as `open_journal`.
    """

    def __init__(self, files: dict[str, Path], columns: tuple[str, ...]):
        head = csv_row(columns)
        heads = {"csv": head, "jsonl": b""}
        begins = {"csv": head, "jsonl": JSON_BEGINS}
        self.as_row = {"csv": partial(csv_row, columns), "jsonl": json_row}
        self.known: set[int] = set()
        self.unreadable: set[Path] = set()
        self.rows: dict[str, Appended] = {}
        self.files: list[Appended] = []  # in the order of what is written
        if files:
            path = journal_file(files)
            self.known, lengths, whole = read_journal(path)
            for name, file in files.items():
                recover(file, lengths.get(name), begins[name], len(columns), path)
            if path.exists():
                os.truncate(path, whole)
            self.rows = {name: Appended(file, heads[name]) for name, file in files.items()}
            self.files = [*self.rows.values(), Appended(path)]
            self.note()

    def write(self, prediction: Prediction) -> None:
        """Append the rows of a prediction."""
        for name, rows in self.rows.items():
            rows.append(self.as_row[name](prediction))

    def note(self, version: Version | None = None) -> None:
        """Note that a picture has its rows, or needs none until it changes; or lengths alone."""
        if self.files:
            entry = {name: rows.length for name, rows in self.rows.items()}
            if version:
                entry |= {"path": os.path.abspath(version.path), "size": version.size}
                entry |= {"mtime_ns": version.mtime_ns}
            self.files[-1].append(f"{json.dumps(entry)}\n".encode())

    def sync(self) -> None:
        """Put all on the disk, rows before what is said of them; begin anew what was moved away."""
        for file in self.files:
            file.sync()
        anew = [file.begun_anew() for file in self.files]
        if any(anew):
            self.note()

    def close(self) -> None:
        for file in self.files:
            file.file.close()


def journal_file(files: dict[str, Path]) -> Path:
    """Return where the journal of files of rows lies: beside the first."""
    first = next(iter(files.values()))
    return first.with_name(f"{first.name}.journal")


@contextmanager
def open_journal(files: dict[str, Path], columns: tuple[str, ...]) -> Iterator[Journal]:
    """Give the journal of files of rows, by their options in FILES, which it goes on with.

    Raises InputError for a journal that is damaged, for a file that holds something else, and for
    one that another process appends to.
    """
    files = {name: files[name].resolve() for name in FILES if name in files}
    with ExitStack() as stack:
        for file in files.values():
            stack.enter_context(locked(file))
        journal = Journal(files, columns)
        stack.callback(journal.close)
        yield journal


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keep other processes from appending to a file; the system frees it when this one dies."""
    file.parent.mkdir(parents=True, exist_ok=True)
    from filelock import FileLock, Timeout  # here: who watches nothing starts sooner

    try:
        with FileLock(file.with_name(f".{file.name}.lock"), timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"{file} is in use by another process: name another file") from error


def read_journal(path: Path) -> tuple[set[int], dict[str, int], int]:
    """Return the keys of a journal's pictures, its last lengths, and the bytes of its whole lines.

    Raises InputError for a line that is none of ours, but for the last, which a kill may have torn.
    """
    known: set[int | None] = set()
    lengths: dict[str, int] = {}
    whole = number = 0
    try:
        require_file(path)
        with path.open("rb") as file:
            while line := file.readline(MOST_LINE):
                number += 1
                if len(line) < MOST_LINE and not line.endswith(b"\n"):
                    break  # torn
                key, lengths = read_line(line)
                known.add(key)
                whole += len(line)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged in line {number}: move it away, then all pictures that are there "
            "are scored again, or name another file of rows"
        ) from error
    known.discard(None)
    return known, lengths, whole


def read_line(line: bytes) -> tuple[int | None, dict[str, int]]:
    """Return the key of a line's picture, if it is of one, and the lengths of the files of rows.

    Raises as anything foreign does.
    """
    entry = json.loads(line)
    lengths = {name: entry[name] for name in FILES if name in entry}
    if not isinstance(entry, dict) or not lengths:
        raise ValueError("it is none of ours")
    numbers, key = [*lengths.values()], None
    if "path" in entry:
        version = Version(entry["path"], entry["size"], entry["mtime_ns"])
        key = version.key
        numbers += [version.size, abs(version.mtime_ns)]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("sizes are whole numbers")
    return key, lengths


def recover(file: Path, length: int | None, begins: bytes, columns: int, journal: Path) -> None:
    """Cut off what a file of rows has behind its `length` by the journal: torn, or not noted.

    Nothing is cut that may be anything else. Raises InputError for a file that is not of such rows.
    """
    if not file.exists() or not file.stat().st_size:  # moved away, as logs are
        return
    with file.open("r+b") as rows:
        found = rows.read(len(begins))
        torn = length == 0 and begins.startswith(found)  # its first row
        if found != begins and not torn:
            raise InputError(f"{file} has other columns, or no rows of ours: name another file")
        if length is not None and is_known(rows, length, columns):
            rows.truncate(length)
            return
        if length is not None:
            say(printable(f"{file} is not as {journal} knows it: what comes is appended"))
        rows.seek(-1, os.SEEK_END)
        if rows.read(1) != b"\n":
            rows.write(b"\n")


def is_known(rows: BinaryIO, length: int, columns: int) -> bool:
    """Tell whether a file of rows was `length` bytes long once, and has only rows behind that."""
    if length > rows.seek(0, os.SEEK_END):
        return False
    rows.seek(max(0, length - 1))
    before = rows.read(1) if length else b"\n"
    tail = rows.read(MOST_TAIL + 1)
    *whole, _ = tail.split(b"\n")  # the last may be torn
    like_rows = all(line.count(b",") >= columns - 1 for line in whole)
    return before == b"\n" and len(tail) <= MOST_TAIL and like_rows

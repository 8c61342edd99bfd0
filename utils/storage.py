"""A folder somewhere that a URL names: in S3, Google's or Azure's storage, or in a file system."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote

from data.listing import is_hidden, walk
from data.samples import InputError, report_faults
from utils.files import written_aside

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

# What stands between :// and the folder; a user and a password are never that, nor "." or "..".
NAME = r"[^\W_][\w.-]*"
SCHEMES = {"s3": NAME, "gs": NAME, "abfss": rf"[^\W_][\w-]*@{NAME}", "file": ""}
LIKE = "s3://bucket/folder, gs://bucket/folder, abfss://container@account…/folder or file:///folder"
# An empty part, "." or "..", a backslash, a drive, a control character, half a character.
HOSTILE = re.compile(r"(^|/)\.{0,2}(/|$)|\\|^[A-Za-z]:|[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
MOST_FILES = 10**7  # of a local folder
CHUNK = 2**23  # bytes that are read at once
PATIENCE = 20  # seconds that Google's client tries again for; 15 minutes if it is not told
CODE = re.compile(r"AWS Error (\w+(?: \(HTTP status \d+\))?)|Status\((\w+)")
# What waiting does not mend.
LASTING = ("bucket", "denied", "key", "signature", "auth", "token", "40")
MEND = "is its name right, does the network reach it, are credentials for it in the environment?"


class Entry(NamedTuple):
    """What a listing says of a file."""

    size: int  # bytes
    changed: float  # seconds since 1970


def is_url(text: str) -> bool:
    """Tell a URL from a path."""
    return "://" in text


def check_url(url: str, option: str) -> list[str]:
    """Return what is wrong with a URL by its text alone; nothing is opened.

    Credentials in it are a fault, and are not repeated.
    """
    scheme, _, rest = url.partition("://")
    place, _, folder = rest.rstrip("/").partition("/")
    like = f"{option} must be like {LIKE}"
    if not is_url(url):
        return [f"{like}, not a path"]
    if scheme not in SCHEMES:
        return [f"{like}: no other scheme is read"]
    if set("?#") & set(rest) or ":" in place or (scheme != "abfss" and "@" in place):
        return [f"{like}, without credentials or settings, which come from the environment"]
    if not (place or folder) or not re.fullmatch(SCHEMES[scheme], place, re.ASCII):
        return [f"{like}: its first part must be a name and begin with a letter or digit"]
    if folder and HOSTILE.search(unquote(folder)):
        return [f"{option} {url}: no part of it may be empty, . or .., or hold \\ or controls"]
    return []


class Store:
    """The files below a URL, by their names: "/" stands between their parts.

    It can be pickled: what it is opened with, credentials above all, each process takes from its
    own environment (AWS_…, GOOGLE_APPLICATION_CREDENTIALS, AZURE_…, a role of the machine). Arrow
    tries again by itself: S3 three times, within some 6 seconds.

    Methods raise InputError for a hostile name, and for what only its user can mend, such as a
    bucket that is not there; FileNotFoundError for a file that is not; else OSError. Each names the
    URL.
    """

    def __init__(self, url: str):
        report_faults(check_url(url, "a URL"))
        self.url = url.rstrip("/")

    def __reduce__(self) -> tuple:
        return Store, (self.url,)

    def listing(self, below: str = "") -> dict[str, Entry]:
        """Return all files below a folder of the store, by their sorted names in the store.

        A folder that is not there has none. Hidden files are left out. Raises InputError naming the
        first file whose name would lead out of a folder that it is copied into.
        """
        with self._told(below):
            from pyarrow.fs import FileSelector, FileType

            start = self._path(below) if below else self._root
            selected = FileSelector(start, allow_not_found=True, recursive=True)
            if self._is_local:  # Arrow would follow a link to a folder above again and again
                selected = [str(path) for path in walk(Path(start), MOST_FILES)]
            found = self._files.get_file_info(selected)
            if not found and not self._is_local:
                self._require_bucket()
        files = {
            info.path[len(self._root) + 1 :]: Entry(info.size, info.mtime_ns / 1e9)
            for info in found
            if info.type == FileType.File
        }
        for name in sorted(files):
            self._check(name)
        shown = (name for name in sorted(files) if not any(map(is_hidden, name.split("/"))))
        return {name: files[name] for name in shown}

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        with self._told(name), self._open(name) as file:
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        with TemporaryDirectory() as folder:  # an interrupted stream would leave half a file
            file = Path(folder, "content")
            file.write_bytes(content)
            self.upload(file, name)

    def upload(self, file: Path, name: str) -> None:
        """Copy a local file whole or not at all, in chunks.

        It is opened once: one that takes its place meanwhile is not mixed with it.
        """
        os.stat(file)  # its absence is none of the store's
        with self._told(name):
            from pyarrow.fs import LocalFileSystem, copy_files

            path = self._path(name)
            with written_aside(Path(path)) if self._is_local else nullcontext(path) as target:
                # No interrupt gets into this before the last byte: a stream that an exception
                # leaves makes an object of what has come so far.
                copy_files(str(file), str(target), LocalFileSystem(), self._files, chunk_size=CHUNK)

    def download(self, name: str, file: Path) -> None:
        """Copy a file to a local one, which is whole or as it was before."""
        with (
            self._told(name),
            self._open(name) as source,
            written_aside(file, durable=False) as aside,
            aside.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, CHUNK)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError), self._told(name):
            self._files.delete_file(self._path(name))

    def _open(self, name: str) -> "NativeFile":
        return self._files.open_input_file(self._path(name))

    @cached_property
    def _opened(self) -> "tuple[FileSystem, str]":
        from pyarrow.fs import FileSystem

        scheme, _, rest = self.url.partition("://")
        more = f"?retry_limit_seconds={PATIENCE}" if scheme == "gs" else ""
        return FileSystem.from_uri(f"{scheme}://{quote(unquote(rest), safe='/@')}{more}")

    @property
    def _files(self) -> "FileSystem":
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    @property
    def _is_local(self) -> bool:
        return self.url.startswith("file:")

    def _check(self, name: str) -> None:
        if HOSTILE.search(name):
            raise InputError(f"{self.url} has a file {name!r}, which leads elsewhere: rename it")

    def _path(self, name: str) -> str:
        self._check(name)
        return f"{self._root}/{name}"

    def _require_bucket(self) -> None:
        from pyarrow.fs import FileType

        if self._files.get_file_info(self._root.partition("/")[0]).type == FileType.NotFound:
            raise InputError(f"{self.url}: no such bucket: {MEND}")

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turn what Arrow raises into a line without the texts of others."""
        where = f"{self.url}/{name}" if name else self.url
        try:
            from pyarrow.lib import ArrowException
        except ImportError as error:
            raise InputError(
                f"{where} needs pyarrow: pip install -r requirements-ray.txt"
            ) from error
        try:
            yield
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", where) from error
        except (OSError, ValueError, ArrowException) as error:
            if number := getattr(error, "errno", None):
                raise OSError(number, os.strerror(number), error.filename or where) from error
            said = CODE.search(str(error))
            reason = said[said.lastindex].lower().replace("_", " ") if said else "it fails"
            if any(word in reason for word in LASTING):
                raise InputError(f"{where}: {reason}: {MEND}") from error
            raise OSError(errno.EIO, f"{reason}: {MEND}", where) from error

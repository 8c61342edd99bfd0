"""Files: written so that a crash never leaves half of one, read so that none is believed."""

import errno
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import yaml
from safetensors import SafetensorError

from data.samples import InputError

FILE = "detector.safetensors"  # a detector's
MOST_YAML = 2**16  # bytes, of a file of options
# what reading a file that is cut, altered or foreign raises
DAMAGED = (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, OverflowError)


@contextmanager
def written_aside(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` if the block succeeds.

    A `durable` file is on the disk before its name is, so a power cut leaves the old or the new.
    An OSError names `path`, as one that a full disk makes does not.
    """
    aside = path.with_name(f".{path.name[:40]}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        if durable:
            with aside.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(aside, path)
        if durable and hasattr(os, "O_DIRECTORY"):  # not on Windows
            sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk, where its file system can."""
    descriptor = os.open(folder, os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked_folder(folder: Path, option: str) -> Iterator[None]:
    """Make `folder`, and keep other processes that use this function out of it.

    The system frees the lock when a process dies. Raises InputError, which names the `option`, when
    the folder cannot be written or is in use.
    """
    from filelock import FileLock, Timeout  # here: predict.py, which locks none, starts sooner

    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"{folder} is in use by another process: wait for it, or name another {option}"
        ) from error
    except OSError as error:
        raise InputError(f"{option} {folder} cannot be written: {error.strerror}") from error
    try:
        for part in folder.glob(".*.part"):  # of a process that was killed
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        yield
    finally:
        lock.release()


def remove_parts(parts: Iterable[Path]) -> None:
    """Remove those of `written_aside`'s temporary files whose process was killed."""
    for part in parts:
        pid = part.name.split(".")[-3]
        if pid.isdecimal() and not is_alive(int(pid)):
            part.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


class PlainLoader(yaml.SafeLoader):
    """Reads YAML without aliases: a few of them can stand for more than any memory holds."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed here")
        return super().compose_node(parent, index)


class TextLoader(PlainLoader):
    """Reads values as the text that they are: a product 010 is no number 8; null stays None."""

    yaml_implicit_resolvers: ClassVar = {
        first: [rule for rule in rules if rule[0] == "tag:yaml.org,2002:null"]
        for first, rules in PlainLoader.yaml_implicit_resolvers.items()
    }


def user_path(text: str) -> Path:
    """Read a path from an option; ~ is the home folder, where the shell has left it standing."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{text}: {error}") from error


def distinct(outputs: list[Path], faults: list[str]) -> list[Path]:
    """Return each output once: named twice, it would be two models or two seeds.

    A line is added to `faults` for each that is another under another name, such as a link.
    """
    first: dict[str, Path] = {}
    for output in outputs:
        known = first.setdefault(os.path.realpath(output), output)  # which knows loops of links
        if known is not output:
            faults.append(f"{output} is {known} once more: it counts once")
    return [*first.values()]


def read_yaml(path: Path, loader: type[yaml.SafeLoader] = PlainLoader) -> Any:
    """Read a small YAML file of plain values.

    Raises InputError that names the file and what is wrong with it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_YAML + 1)
        if len(text) > MOST_YAML:
            raise InputError(f"{path} must be a file of at most {MOST_YAML} bytes")
        return yaml.load(text, loader)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # YAMLError, or what a date or a number that is none raises
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error

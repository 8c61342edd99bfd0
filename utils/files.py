"""Writing files so that a crash never leaves half of one."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save

from data.samples import InputError


@contextmanager
def written_aside(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` if the block succeeds.

    A `durable` file is on the disk before its name is, so a power cut leaves the old or the new.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        yield aside
        if durable:
            with aside.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def locked_folder(folder: Path, option: str) -> Iterator[None]:
    """Make `folder`, and keep other processes that use this function out of it.

    The system frees the lock when a process dies. Raises InputError, which names the `option`, when
    the folder cannot be written or is in use.
    """
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


def save_tensors(tensors: dict[str, torch.Tensor], path: Path, about: dict) -> None:
    """Write a .safetensors file; equal arguments give equal bytes.

    `about` is stored as JSON under one key: safetensors orders several keys at random.
    """
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with written_aside(path) as aside:
        aside.write_bytes(save(plain, {"about": json.dumps(about)}))


def read_about(path: Path) -> dict:
    """Return what `save_tensors` stored beside the tensors; raises KeyError in a foreign file."""
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {})["about"])

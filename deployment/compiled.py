"""Compile an OpenVINO model, and leave the thread's signal stack as it was."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino


def compile_model(model: "openvino.Model", device: str, hints: dict) -> "openvino.CompiledModel":
    """Return the model compiled for a device that OpenVINO knows, such as CPU."""
    import openvino

    with same_signal_stack():
        return openvino.Core().compile_model(model, device, hints)


class SignalStack(ctypes.Structure):
    """Linux's stack_t: where a thread's signal handlers run."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def same_signal_stack() -> Iterator[None]:
    """Give the thread the signal stack that it had before the block.

    On processors with AMX a compiled model brings one along and takes it away when it ends. Of two
    models, the later one's end would bring back the one that the earlier has taken away: the next
    signal, such as a child process's end, would kill the process without a word (OpenVINO, pull
    request 11894).
    """
    if sys.platform != "linux":
        yield
        return
    libc, former = ctypes.CDLL(None), SignalStack()
    libc.sigaltstack(None, ctypes.byref(former))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(former), None)

"""Run the same operations with less overhead: CUDA graphs, torch.compile.

Both fall back to plain eager execution with one line of explanation.
"""

import logging
import warnings
from collections.abc import Callable
from typing import ClassVar

import torch

WARM_UP = 3  # calls before a capture, in which libraries allocate and choose their kernels


class CudaGraph:
    """A function of tensors that stay in place, captured once and then replayed as one launch.

    The function takes nothing, reads and writes tensors that outlive it, and never waits for the
    device. What it returns lies in the same memory after every call. Source: PyTorch's notes on
    whole-network capture.
    """

    failed: ClassVar[list] = []  # the allocator goes on referring to a graph whose capture failed

    def __init__(self, function: Callable):
        self.function, self.graph, self.result = function, None, None
        self.stream = torch.cuda.Stream()
        self.calls, self.eager = 0, bool(self.failed)

    def __call__(self):
        if self.eager:
            return self.function()
        if self.graph is None and self.calls < WARM_UP:
            self.calls += 1
            return self._call_beside()
        if self.graph is None:
            self._capture()
            return self()
        self.graph.replay()
        return self.result

    def _call_beside(self):
        """Call the function on the stream of the capture."""
        here = torch.cuda.current_stream()
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            # Adam expects to run in a graph, and says so when it does not
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            result = self.function()
        here.wait_stream(self.stream)
        return result

    def _capture(self) -> None:
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # thread_local: a thread that pins memory for the next batch may go on meanwhile
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.result = self.function()
            self.graph = graph
        except RuntimeError as error:
            torch.cuda.set_stream(here)  # a capture that fails does not go back to it
            self.failed.append(graph)
            self.eager = True
            warn_eager("a CUDA graph", error)


class Compiled:
    """A function through torch.compile, or as it is if its first call cannot be compiled."""

    def __init__(self, function: Callable):
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # no CUDA, no news
        self.function, self.eager, self.called = function, False, False
        self.compiled = torch.compile(function, dynamic=False)

    def __call__(self, *arguments):
        if self.eager:
            return self.function(*arguments)
        try:
            result = self.compiled(*arguments)
        except Exception as error:  # a missing compiler shows in many ways, at the first call only
            if self.called:
                raise
            warn_eager("torch.compile", error)
            self.eager = True
            return self.function(*arguments)
        self.called = True
        return result


def in_use(compiler: str, accelerated: CudaGraph | Compiled | None) -> str:
    """Return the compiler that really runs: "none" after a fallback."""
    return "none" if accelerated is None or accelerated.eager else compiler


def warn_eager(what: str, error: Exception | str) -> None:
    """Say in one line that the slower way is taken, and why."""
    reason = str(error)
    for noise in ("Set TORCHDYNAMO_VERBOSE", "Command:"):  # and what follows, for PyTorch's authors
        reason = reason.partition(noise)[0]
    reason = " ".join(reason.split())[:200] or type(error).__name__
    warnings.warn(f"{what} is not possible here, running eagerly: {reason}", stacklevel=3)

"""Run the same operations with less overhead: CUDA graphs, torch.compile.

Both fall back to plain eager execution with one line of explanation.
"""

import warnings
from collections.abc import Callable

import torch

WARM_UP = 3  # calls before a capture, in which libraries allocate and choose their kernels


class CudaGraph:
    """A function of tensors that stay in place, captured once and then replayed as one launch.

    The function takes nothing, reads and writes tensors that outlive it, and never waits for the
    device. What it returns lies in the same memory after every call. Source: PyTorch's notes on
    whole-network capture.
    """

    def __init__(self, function: Callable):
        self.function, self.graph, self.result = function, None, None
        self.stream = torch.cuda.Stream()
        self.calls, self.eager = 0, False

    def __call__(self):
        if self.graph is None and not self.eager and self.calls == WARM_UP:
            self._capture()
        if self.graph is not None:
            self.graph.replay()
            return self.result
        self.calls += 1
        return self.function() if self.eager else self._call_beside()

    def _call_beside(self):
        """Call the function on the stream of the capture."""
        here = torch.cuda.current_stream()
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
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
            self.eager = True
            warn_eager("a CUDA graph", error)


def compiled(function: Callable) -> Callable:
    """Return `function` through torch.compile, or itself if its first call cannot be compiled."""
    chosen = torch.compile(function, dynamic=False)
    called = False

    def call(*arguments):
        nonlocal chosen, called
        try:
            return chosen(*arguments)
        except Exception as error:  # a missing compiler shows in many ways, at the first call only
            if called or chosen is function:
                raise
            warn_eager("torch.compile", error)
            chosen = function
            return function(*arguments)
        finally:
            called = True

    return call


def warn_eager(what: str, error: Exception | str) -> None:
    """Say in one line that the slower way is taken, and why."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    warnings.warn(f"{what} is not possible here, running eagerly: {reason}", stacklevel=3)

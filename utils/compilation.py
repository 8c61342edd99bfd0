"""Run the same operations with less overhead: a CUDA graph."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

WARM_UP = 3  # calls before a capture, in which libraries allocate and choose their kernels


class NotCaptured(RuntimeError):
    """A function's operations cannot be a CUDA graph on this machine."""


class CudaGraph:
    """A function of tensors that stay in place, captured once and then replayed as one launch.

    The function takes nothing, reads and writes tensors that outlive it, and never waits for the
    device. What it returns lies in the same memory after every call. Raises NotCaptured where it
    cannot be captured; going on eagerly is no way out, since a capture that failed leaves the
    device's random generator in it. Source: PyTorch's notes on whole-network capture.
    """

    def __init__(self, function: Callable):
        self.function, self.graph, self.result = function, None, None
        self.stream, self.calls = torch.cuda.Stream(), 0

    def __call__(self):
        if self.graph is None and self.calls < WARM_UP:
            self.calls += 1
            with explained():
                return self._call_beside()
        if self.graph is None:
            with explained():
                self._capture()
        self.graph.replay()
        return self.result

    def _call_beside(self):
        """Call the function on the stream of the capture."""
        here = torch.cuda.current_stream()
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            result = self.function()
        here.wait_stream(self.stream)
        return result

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        # thread_local: a thread that pins memory for the next batch may go on meanwhile
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            self.result = self.function()
        self.graph = graph


@contextmanager
def explained() -> Iterator[None]:
    """Raise NotCaptured, with the way out, for what a compiler or a capture raises."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        text = f"a CUDA graph is not possible here ({reason}): --compile none does without"
        raise NotCaptured(text) from error

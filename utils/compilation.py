"""Run the same operations with less overhead: torch.compile where it works, a CUDA graph."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from utils.failures import NotCaptured, out_of_memory

WARM_UP = 3  # calls before a capture, in which libraries allocate and choose their kernels


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
            with naming_the_way_out():
                return self._call_beside()
        if self.graph is None:
            with naming_the_way_out():
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
def naming_the_way_out() -> Iterator[None]:
    """Raise NotCaptured for what a capture, or a call before it, raises.

    The end of a broken capture raises too: the reason is the error before. Memory that is short
    stays what it is.
    """
    try:
        yield
    except Exception as error:
        errors = [error]
        while errors[-1].__context__ is not None:
            errors.append(errors[-1].__context__)
        for short in filter(out_of_memory, errors):
            raise short from None
        why = reason(errors[-1])
        text = f"a CUDA graph is not possible here ({why}): --compile none does without"
        raise NotCaptured(text) from error


def compiles(device: torch.device) -> bool:
    """Tell whether torch.compile works for `device`, by trying it; warn with the reason if not.

    It needs Triton, a C compiler and Python's headers.
    """
    try:
        torch.compile(torch.square, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # what is missing shows in many ways
        text = f"the losses are not compiled, which would be faster: {reason(error)}"
        warnings.warn(text, stacklevel=2)
        return False
    return True


def reason(error: BaseException) -> str:
    """Return what an error says, in a line of 200 characters at most."""
    return " ".join(str(error).split())[:200] or type(error).__name__

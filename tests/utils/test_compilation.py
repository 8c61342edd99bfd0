"""A CUDA graph: warmed up, captured once, replayed; or refused with the way out."""

import subprocess

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.playing_cuda import NoContext, play_cuda
from utils import compilation
from utils.commands import explained
from utils.compilation import CudaGraph, compiles
from utils.failures import NotCaptured


@pytest.fixture
def cuda(monkeypatch):
    """Play as much of torch.cuda as a capture touches; returns the monkeypatch for the rest."""
    play_cuda(monkeypatch)
    return monkeypatch


def counting() -> tuple[list, object]:
    calls = []

    def function() -> torch.Tensor:
        calls.append(None)
        return torch.tensor(float(len(calls)))

    return calls, function


def test_a_function_is_warmed_up_captured_once_and_then_replayed(cuda):
    replays = []

    class Graph:
        def replay(self) -> None:
            replays.append(None)

    cuda.setattr(torch.cuda, "CUDAGraph", Graph)
    cuda.setattr(torch.cuda, "graph", NoContext)
    calls, function = counting()
    graph = CudaGraph(function)
    results = [graph().item() for _ in range(8)]
    assert len(calls) == compilation.WARM_UP + 1
    assert len(replays) == 8 - compilation.WARM_UP  # a capture records and runs nothing
    assert results[: compilation.WARM_UP] == [1, 2, 3]
    assert set(results[compilation.WARM_UP :]) == {4}  # the memory that the capture returned


def failing_capture(cuda, error: Exception) -> CudaGraph:
    """Return a graph that is warmed up, and whose capture will meet `error`.

    As with torch, the end of a capture that met an error raises another.
    """

    class Capture(NoContext):
        def __exit__(self, kind, *_):
            if kind:
                raise RuntimeError("operation failed due to a previous error during capture")

    def function():
        calls.append(None)
        if len(calls) > compilation.WARM_UP:
            raise error

    calls = []
    cuda.setattr(torch.cuda, "CUDAGraph", object)
    cuda.setattr(torch.cuda, "graph", Capture)
    graph = CudaGraph(function)
    for _ in range(compilation.WARM_UP):
        graph()
    return graph


def test_what_cannot_be_captured_ends_in_one_line_that_names_the_way_out(cuda):
    graph = failing_capture(
        cuda, RuntimeError("operation not permitted\n when stream is capturing")
    )
    with pytest.raises(NotCaptured) as caught:
        graph()
    (line,) = explained(caught.value, None)
    assert line.startswith("a CUDA graph is not possible here (operation not permitted when")
    assert "--compile none" in line


def test_what_cannot_be_compiled_for_it_ends_alike(cuda):
    def broken():
        raise subprocess.CalledProcessError(1, "gcc\n-c")  # no RuntimeError

    with pytest.raises(NotCaptured, match=r"'gcc -c'.*--compile none"):
        CudaGraph(broken)()


def test_a_gpu_without_memory_is_told_as_such(cuda):
    short = torch.OutOfMemoryError("CUDA out of memory")

    def large():
        raise short

    with pytest.raises(torch.OutOfMemoryError):
        CudaGraph(large)()
    with pytest.raises(torch.OutOfMemoryError):  # though the capture's end raises after it
        failing_capture(cuda, short)()


def test_a_machine_that_cannot_compile_is_told_once_and_goes_on(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    assert compiles(torch.device("cpu"))

    def broken(*_, **__):
        raise FileNotFoundError("Python.h\nis missing")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(UserWarning, match=r"not compiled, which would be faster: Python.h is miss"):
        assert not compiles(torch.device("cpu"))


FAILS = """
import torch
from utils.compilation import CudaGraph
graph = CudaGraph(torch.ones((), device="cuda").item)  # reading a number waits, which is forbidden
for _ in range(4):
    graph()
"""


@pytest.mark.gpu
def test_after_a_failed_capture_the_message_names_the_way_out(run_command):
    """In a process of its own, since a broken capture leaves its generator and allocator in it."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    done = run_command(["-c", FAILS], REPOSITORY)
    assert done.returncode == 1
    assert "--compile none does without" in done.stderr.splitlines()[-1]

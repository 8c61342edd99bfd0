"""A CUDA graph: warmed up, captured once, replayed; or refused with the way out."""

import pytest
import torch

from tests.playing_cuda import NoContext, play_cuda
from utils import compilation
from utils.commands import explained
from utils.compilation import CudaGraph, NotCaptured


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


def test_what_cannot_be_captured_ends_in_one_line_that_names_the_way_out(cuda):
    def refuse(*_, **__):
        raise RuntimeError("operation not permitted\n when stream is capturing")

    cuda.setattr(torch.cuda, "CUDAGraph", object)
    cuda.setattr(torch.cuda, "graph", refuse)
    _, function = counting()
    graph = CudaGraph(function)
    results = [graph().item() for _ in range(compilation.WARM_UP)]
    assert results == [1, 2, 3]
    with pytest.raises(NotCaptured) as caught:
        graph()
    (line,) = explained(caught.value, None)
    assert line.startswith("a CUDA graph is not possible here (operation not permitted when")
    assert "--compile none" in line


def test_what_cannot_be_compiled_for_it_ends_alike(cuda):
    def broken():
        raise RuntimeError("no C++ compiler\nwas found")

    with pytest.raises(NotCaptured, match=r"compiler was found.*--compile none"):
        CudaGraph(broken)()


def test_a_gpu_without_memory_is_told_as_such(cuda):
    def large():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        CudaGraph(large)()


@pytest.mark.gpu
def test_after_a_failed_capture_the_message_names_the_way_out():
    """Reading a number waits for the device, which a capture forbids."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    value = torch.ones((), device="cuda")
    graph = CudaGraph(value.item)
    for _ in range(compilation.WARM_UP):
        graph()
    with pytest.raises(NotCaptured, match="--compile none"):
        graph()

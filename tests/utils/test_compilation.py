"""Faster ways to run the same operations fall back to the plain way, and say so once."""

import warnings

import pytest
import torch

from utils import compilation
from utils.compilation import Compiled, CudaGraph, in_use


class Stream:
    def wait_stream(self, other) -> None:
        pass


class NoContext:
    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


@pytest.fixture
def cuda(monkeypatch):
    """Play as much of torch.cuda as a capture touches; returns the monkeypatch for the rest."""
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", NoContext)
    monkeypatch.setattr(CudaGraph, "failed", [])
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


def test_what_cannot_be_captured_runs_eagerly_and_says_so_once(cuda):
    def refuse(*_, **__):
        raise RuntimeError("operation not permitted\n when stream is capturing")

    cuda.setattr(torch.cuda, "CUDAGraph", object)
    cuda.setattr(torch.cuda, "graph", refuse)
    cuda.setattr(torch.cuda, "set_stream", lambda stream: None)
    _, function = counting()
    graph = CudaGraph(function)
    with pytest.warns(UserWarning, match="CUDA graph is not possible.*not permitted") as said:
        results = [graph().item() for _ in range(6)]
    assert len(said) == 1
    assert results == [1, 2, 3, 4, 5, 6]
    assert in_use("graph", graph) == "none"
    assert CudaGraph(function).eager  # a process in which one capture failed tries no other


def test_what_cannot_be_compiled_runs_eagerly_and_says_so_once(monkeypatch):
    def broken(function, **_):
        def call(*_):
            raise ValueError("no C++ compiler\nwas found")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    double = Compiled(lambda x: 2 * x)
    with pytest.warns(UserWarning, match="torch.compile is not possible.*was found") as said:
        assert [double(1), double(2), double(3)] == [2, 4, 6]
    assert in_use("inductor", double) == "none"
    assert len(said) == 1


def test_an_error_of_the_function_itself_is_not_hidden(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)

    def divide(x: float) -> float:
        return 1 / x

    inverse = Compiled(divide)
    assert inverse(2) == 0.5
    assert in_use("inductor", inverse) == "inductor"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ZeroDivisionError):
            inverse(0)

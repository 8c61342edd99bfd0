"""Device, precision and speed options: what is asked for is used, or refused by name."""

import argparse
from pathlib import Path

import pytest
import torch

from data.samples import InputError
from utils.devices import Compute, device_name, pick_compute, pick_device, pick_precision


def options(device: str = "auto", device_gpu: int | None = None, precision: str = "auto", **more):
    defaults = {"compile": "auto", "scoring_batch_size": None}
    own = {"device": device, "device_gpu": device_gpu, "precision": precision}
    return argparse.Namespace(**defaults | own | more)


def test_the_cpu_can_be_asked_for():
    assert pick_device(options("cpu")) == torch.device("cpu")


def test_a_cpu_is_called_by_its_model_where_the_system_tells_it():
    info = Path("/proc/cpuinfo")
    if not info.is_file() or "model name" not in info.read_text():
        pytest.skip("the system does not tell it")
    assert f": {device_name(torch.device('cpu'))}\n" in info.read_text()
    assert device_name(torch.device("mps")) == "mps"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "cpu:0:1"])
def test_an_unknown_device_is_refused_by_name(name):
    with pytest.raises(InputError, match="--device"):
        pick_device(options(name))


def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="cuda:99"):
        pick_device(options("cuda:99"))


def test_without_cuda_device_gpu_falls_back_to_the_cpu_with_a_warning(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(UserWarning, match="--device_gpu 0"):
        assert pick_device(options(device_gpu=0)) == torch.device("cpu")


def test_with_cuda_device_gpu_names_the_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert pick_device(options(device_gpu=3)) == torch.device("cuda:3")


def test_half_precision_needs_a_gpu():
    with pytest.raises(InputError, match="fp16"):
        pick_precision(options(precision="fp16"), torch.device("cpu"))


def test_precision_changes_what_products_are_computed_in():
    layer, inputs = torch.nn.Linear(4, 4), torch.rand(2, 4)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with Compute(torch.device("cpu"), precision).autocast():
            assert layer(inputs).dtype == dtype


def test_on_a_cpu_nothing_is_compiled_and_images_are_scored_one_by_one():
    compute = pick_compute(options("cpu", precision="fp32"))
    assert compute == Compute(torch.device("cpu"), "fp32", "none", 1)


def test_a_cuda_graph_without_cuda_is_a_warning():
    with pytest.warns(UserWarning, match="--compile graph needs CUDA"):
        assert pick_compute(options("cpu", compile="graph")).compiler == "none"


def test_on_a_gpu_all_of_a_networks_algorithms_are_tried_and_steps_are_graphs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    former = torch.backends.cudnn.benchmark_limit
    try:
        compute = pick_compute(options("cuda", precision="bf16"))
        assert torch.backends.cudnn.benchmark
        if torch.backends.cudnn.is_available():
            assert torch.backends.cudnn.benchmark_limit == 0
    finally:
        if former is not None:
            torch.backends.cudnn.benchmark_limit = former
    assert (compute.compiler, compute.scoring_batch_size) == ("graph", 16)
    assert pick_compute(options("cuda", precision="bf16", compile="none")).compiler == "none"


def test_how_many_images_are_scored_at_once_can_be_asked_for():
    assert pick_compute(options("cpu", scoring_batch_size=5)).scoring_batch_size == 5


def test_networks_are_placed_channels_last():
    layer = Compute(torch.device("cpu")).place(torch.nn.Conv2d(4, 4, 3))
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)

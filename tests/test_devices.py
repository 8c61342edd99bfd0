"""Device and precision: what is asked for is used, or refused by name."""

import argparse

import pytest
import torch

from data.samples import InputError
from utils.devices import PRECISIONS, autocast, pick_device, pick_precision


def options(device: str = "auto", device_gpu: int | None = None, precision: str = "auto"):
    return argparse.Namespace(device=device, device_gpu=device_gpu, precision=precision)


def test_the_cpu_can_be_asked_for():
    assert pick_device(options("cpu")) == torch.device("cpu")


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
    cpu = torch.device("cpu")
    with autocast(cpu, torch.bfloat16):
        assert layer(inputs).dtype == torch.bfloat16
    with autocast(cpu, PRECISIONS[pick_precision(options(precision="fp32"), cpu)]):
        assert layer(inputs).dtype == torch.float32

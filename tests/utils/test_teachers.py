"""Reading teachers from every published layout, writing ours."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from data.samples import InputError
from models.pdn import PDNS, pdn_medium, pdn_small
from utils.teachers import find_teacher, load_teacher, save_teacher, shipped_teacher, teacher_name
from utils.tensors import read_about

MEDIUM_LAYERS = (0, 3, 6, 8, 10, 12)  # places of the convolutions in the Sequential
SMALL_LAYERS = (0, 3, 6, 8)
LAYERS = {"small": SMALL_LAYERS, "medium": MEDIUM_LAYERS}
IMAGE = torch.randn(1, 3, 41, 37, generator=torch.Generator().manual_seed(8))


def plain(state: dict, size: str) -> dict:
    return state


def behind_pdn(state: dict, size: str) -> dict:
    return {f"pdn.{key}": tensor for key, tensor in state.items()}


def named(state: dict, size: str) -> dict:
    number = {str(layer): i + 1 for i, layer in enumerate(LAYERS[size])}
    parts = {key: key.split(".") for key in state}
    return {f"conv{number[parts[k][0]]}.{parts[k][1]}": tensor for k, tensor in state.items()}


def wrapped(state: dict, size: str) -> dict:
    return {"epoch": 3, "state_dict": state, "loss": 0.5}


def twice_wrapped(state: dict, size: str) -> dict:
    return {"model": {"state_dict": behind_pdn(state, size)}, "step": 4}


def shuffled(state: dict, size: str) -> dict:
    keys = list(state)
    random.Random(4).shuffle(keys)
    assert keys != list(state)
    return {key: state[key] for key in keys}


def sorted_as_strings(state: dict, size: str) -> dict:
    keys = sorted(state)
    assert size == "small" or keys.index("10.weight") < keys.index("3.weight")
    return {key: state[key] for key in keys}


LAYOUTS = [plain, behind_pdn, named, wrapped, twice_wrapped, shuffled, sorted_as_strings]


@torch.no_grad()
def assert_same_teacher(found: nn.Module, expected: nn.Module) -> None:
    assert torch.equal(found(IMAGE), expected(IMAGE))
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())


# Published layouts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_small_teacher_is_read_from_every_published_layout(teachers, small, tmp_path, layout):
    torch.save(layout(small, "small"), tmp_path / "teacher.pth")
    teacher, size = load_teacher(tmp_path / "teacher.pth")
    assert size == "small"
    assert_same_teacher(teacher, teachers["small"])


@pytest.mark.parametrize("layout", [plain, named, shuffled, sorted_as_strings])
def test_a_medium_teacher_with_its_two_digit_layers_is_read(teachers, tmp_path, layout):
    state = dict(teachers["medium"].state_dict())
    assert "10.weight" in state
    torch.save(layout(state, "medium"), tmp_path / "teacher.pth")
    teacher, size = load_teacher(tmp_path / "teacher.pth", "medium")
    assert size == "medium"
    assert_same_teacher(teacher, teachers["medium"])


@pytest.mark.parametrize("size", ["small", "medium"])
def test_a_safetensors_teacher_is_read(teachers, tmp_path, size):
    state = behind_pdn(teachers[size].state_dict(), size)
    save_file(state, tmp_path / "teacher.safetensors")
    teacher, found = load_teacher(tmp_path / "teacher.safetensors")
    assert found == size
    assert_same_teacher(teacher, teachers[size])


def test_the_old_pytorch_format_is_read(teachers, small, tmp_path):
    path = tmp_path / "teacher.pth"
    torch.save(small, path, _use_new_zipfile_serialization=False)
    assert_same_teacher(load_teacher(path)[0], teachers["small"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_as_float32(small, tmp_path, dtype):
    torch.save({key: t.to(dtype) for key, t in small.items()}, tmp_path / "teacher.pth")
    expected = pdn_small()
    expected.load_state_dict({key: t.to(dtype).float() for key, t in small.items()})
    teacher, _ = load_teacher(tmp_path / "teacher.pth")
    assert {p.dtype for p in teacher.parameters()} == {torch.float32}
    assert_same_teacher(teacher, expected)


# Ours


def test_a_saved_teacher_is_read_back_in_half_precision(teachers, small, tmp_path):
    path = tmp_path / "deep" / "teacher.safetensors"
    save_teacher(teachers["small"], path, {"steps": 5})
    stored = load_file(path)
    assert stored.keys() == small.keys()
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    expected = pdn_small()
    expected.load_state_dict({key: t.half().float() for key, t in small.items()})
    teacher, size = load_teacher(path)
    assert size == "small"
    assert_same_teacher(teacher, expected)
    half_a_step = 2**-11  # of float16's 11 significant bits, relative to each weight
    for key, tensor in teacher.state_dict().items():
        assert ((tensor - small[key]).abs() <= half_a_step * small[key].abs() + 2**-25).all()


def test_the_recipe_is_kept_beside_the_weights(teachers, tmp_path):
    path, recipe = tmp_path / "teacher.safetensors", {"steps": 5, "backbone": "vgg16", "lr": 1e-4}
    save_teacher(teachers["small"], path, recipe)
    assert read_about(path) == recipe
    with safe_open(path, framework="pt") as file:
        assert [json.loads(value) for value in file.metadata().values()] == [recipe]


def test_a_foreign_file_tells_no_recipe(small, tmp_path):
    save_file(small, tmp_path / "teacher.safetensors")
    with pytest.raises(KeyError):
        read_about(tmp_path / "teacher.safetensors")


def test_equal_teachers_are_equal_files(teachers, tmp_path):
    recipe = {"steps": 5, "b": [1, 2], "a": "x"}
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        save_teacher(teachers["small"], path, recipe)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("size", PDNS)
def test_a_shipped_teacher_is_one_of_its_size(size):
    teacher, found = load_teacher(find_teacher(teacher_name(size)))
    assert found == size
    assert teacher(IMAGE).std() > 0


def test_what_is_no_size_is_a_file(teachers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_teacher(teachers["medium"], Path("small"), {})
    assert find_teacher(teacher_name("./small")) == Path("small")
    assert find_teacher(teacher_name("small")) == shipped_teacher("small")


def test_neither_file_nor_name_tells_the_names():
    with pytest.raises(InputError, match=r"large is no file; .* small and medium"):
        find_teacher(teacher_name("large"))


def test_a_medium_teacher_has_six_layers():
    convolutions = [i for i, m in enumerate(pdn_medium()) if isinstance(m, nn.Conv2d)]
    assert tuple(convolutions) == MEDIUM_LAYERS


def test_a_teacher_that_cannot_be_written_leaves_the_old_one(teachers, tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_teacher(teachers["small"], path, {"steps": 1})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_teacher(teachers["small"], path, {"steps": {1, 2}})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

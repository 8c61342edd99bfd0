"""Refusing what is no teacher: foreign code, damage, other shapes and sizes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from data.samples import InputError
from models.pdn import pdn_small
from utils.teachers import load_teacher


def refusal(path: Path, model_size: str | None = None) -> str:
    """Return the one line with which a file is refused."""
    with pytest.raises(InputError) as caught:
        load_teacher(path, model_size)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message.strip()
    return message


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_a_pickled_module_is_refused_with_the_reason(tmp_path):
    torch.save(pdn_small(8), tmp_path / "teacher.pth")
    message = refusal(tmp_path / "teacher.pth")
    assert "pickled" in message
    assert "state_dict" in message


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_in_a_pickle_is_run(small, tmp_path, zipped):
    path, marker = tmp_path / "teacher.pth", tmp_path / "ran"
    content = {**small, "trap": Trap(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert "pickled" in refusal(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)["trap"].close()
    assert marker.exists()  # so the trap would have worked


@pytest.mark.parametrize(
    "text",
    ["<!DOCTYPE html>\n<html>404</html>", "version https://git-lfs.github.com/spec/v1\n"],
    ids=["a web page", "a Git LFS pointer"],
)
def test_a_text_under_a_teachers_name_is_not_called_a_module(tmp_path, text):
    (tmp_path / "teacher.pth").write_text(text)
    assert "module" not in refusal(tmp_path / "teacher.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_missing_file_is_named(tmp_path, suffix):
    assert "no weights file" in refusal(tmp_path / f"teacher{suffix}")


@pytest.mark.parametrize("kind", ["zipped", "old", "safetensors"])
def test_a_file_cut_anywhere_is_named(tmp_path, kind):
    suffix = ".safetensors" if kind == "safetensors" else ".pth"
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    state = {"0.weight": torch.randn(3, 2), "0.bias": torch.randn(3)}
    if kind == "safetensors":
        save_file(state, whole)
    else:
        torch.save(state, whole, _use_new_zipfile_serialization=kind == "zipped")
    content = whole.read_bytes()
    for length in range(0, len(content), 5):
        cut.write_bytes(content[:length])
        refusal(cut)


def test_a_real_teacher_cut_in_the_middle_is_called_damaged(small, tmp_path):
    path = tmp_path / "teacher.pth"
    torch.save(small, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "damaged" in refusal(path)


def dropped(state: dict) -> dict:
    return {key: t for key, t in state.items() if not key.startswith("8.")}


def widened(state: dict) -> dict:
    return {**state, "8.weight": torch.zeros(100, 256, 4, 4), "8.bias": torch.zeros(100)}


def with_one_more(state: dict) -> dict:
    return {**state, "10.weight": torch.zeros(384, 384, 1, 1), "10.bias": torch.zeros(384)}


def a_student(state: dict) -> dict:
    return dict(pdn_small(768).state_dict())


@pytest.mark.parametrize("change", [dropped, widened, with_one_more, a_student, lambda state: {}])
def test_other_shapes_are_refused(small, tmp_path, change):
    torch.save(change(small), tmp_path / "teacher.pth")
    assert "384" in refusal(tmp_path / "teacher.pth")


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": 3}, {"epoch": 1}, torch.zeros(3)])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "teacher.pth")
    assert "state dict" in refusal(tmp_path / "teacher.pth")


def test_tensors_under_numbers_are_refused(tmp_path):
    torch.save({0: torch.zeros(3), 1: torch.zeros(3)}, tmp_path / "teacher.pth")
    refusal(tmp_path / "teacher.pth")


@pytest.mark.parametrize(("there", "asked"), [("small", "medium"), ("medium", "small")])
def test_a_teacher_of_the_other_size_names_both_ways_out(teachers, tmp_path, there, asked):
    path = tmp_path / "teacher.safetensors"
    save_file(dict(teachers[there].state_dict()), path)
    message = refusal(path, asked)
    assert f"--model_size {there}" in message
    assert "--weights" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(small, tmp_path, value):
    broken = small["3.weight"].clone()
    broken[7, 5, 1, 2] = value
    torch.save({**small, "3.weight": broken}, tmp_path / "teacher.pth")
    assert "finite" in refusal(tmp_path / "teacher.pth")

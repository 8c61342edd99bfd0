"""What a stranger's files say of themselves is compared first; a pipe is not waited for."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import inference
import main
import pretrain
from data.mask_values import read_mask
from data.samples import InputError
from data.shards import list_members
from tests.distillation.distilling import distil
from tests.faults.running import run_of
from utils.files import DAMAGED
from utils.runs import Run
from utils.tensors import read_about, read_tensors


def altered(run: Run, **about) -> None:
    """Change what a run's detector says of itself."""
    path = run.detector_file
    tensors, former = load_file(path), read_about(path)
    save_file(tensors, path, {"about": json.dumps({**former, **about})})


@pytest.mark.parametrize(
    "about",
    [
        {"image_size": [100_000, 100_000]},
        {"image_size": [1_000_000, 64]},
        {"image_size": [64]},
        {"image_size": "64"},
        {"image_size": [64.0, 64.0]},
        {"image_size": [-64, 64]},
        {"image_size": [128, 128]},
        {"model": "resnet"},
        {"model": ["glae"]},
        {"model_size": "huge"},
        {"model_size": "medium"},
        {"precision": "int4"},
    ],
    ids=str,
)
def test_a_detector_is_not_built_at_its_files_word(trained, tmp_path, about):
    shutil.copytree(trained[1], tmp_path / "out")
    run = run_of(tmp_path / "out")
    altered(run, **about)
    with pytest.raises(InputError, match=r"detector\.safetensors is damaged"):
        run.load_detector(torch.device("cpu"))


def test_a_detector_of_no_finite_weights_is_refused(trained, tmp_path, outcome):
    line, output = trained
    shutil.copytree(output, tmp_path / "out")
    path = run_of(tmp_path / "out").detector_file
    tensors, about = load_file(path), read_about(path)
    next(t for key, t in tensors.items() if key.startswith("student."))[0] = float("nan")
    save_file(tensors, path, {"about": json.dumps(about)})
    line = [*line, "--output_dir", tmp_path / "out", "--resume"]
    for script, arguments in ((main, [*line, "--check"]), (main, line), (inference, [line[-2]])):
        code, _, errors = outcome(script, arguments)
        assert code == 2
        assert len(errors) == 1
        assert f"{path} is damaged" in errors[0]


@pytest.mark.parametrize("change", ["half", "shape", "missing", "more"])
def test_tensors_are_compared_with_the_options_before_they_are_read(tmp_path, change):
    like = {"weight": torch.zeros(4, 3), "bias": torch.zeros(4)}
    stored = {key: tensor.clone() for key, tensor in like.items()}
    if change == "half":
        stored["weight"] = stored["weight"].half()
    elif change == "shape":
        stored["weight"] = torch.zeros(4, 4)
    elif change == "missing":
        del stored["weight"]
    else:
        stored["extra"] = torch.zeros(1)
    path = tmp_path / "x.safetensors"
    save_file(stored, path)
    with pytest.raises(DAMAGED, match="extra" if change == "more" else "weight"):
        read_tensors(path, like)


@pytest.mark.parametrize("step", [0, -1, 5, 2.5, "4", None])
def test_a_checkpoint_of_no_step_is_refused(trained, tmp_path, step, outcome):
    line, output = trained
    shutil.copytree(output, tmp_path / "out")
    run = run_of(tmp_path / "out")
    run.detector_file.unlink()
    about = read_about(run.checkpoint_file) | {"step": step}
    save_file(load_file(run.checkpoint_file), run.checkpoint_file, {"about": json.dumps(about)})
    code, _, errors = outcome(
        main, [*line, "--output_dir", tmp_path / "out", "--resume", "--check"]
    )
    assert code == 2
    assert "checkpoint.safetensors is damaged" in errors[0]


def with_about(path: Path, **changes) -> None:
    about = read_about(path) | changes
    save_file(load_file(path), path, {"about": json.dumps(about)})


@pytest.mark.parametrize(
    "changes",
    [
        {"seconds": 10**400},
        {"seconds": -1},
        {"losses": [[1, 1, 1, 1]]},
        {"losses": "none"},
        {"rng": "00"},
        {"rng": None},
        {"teacher": None},
    ],
    ids=lambda changes: str(changes)[:20],
)
def test_a_checkpoint_with_senseless_numbers_is_refused(trained, tmp_path, outcome, changes):
    line, output = trained
    shutil.copytree(output, tmp_path / "out")
    run = run_of(tmp_path / "out")
    run.detector_file.unlink()
    with_about(run.checkpoint_file, **changes)
    line = [*line, "--output_dir", tmp_path / "out", "--resume", "--check"]
    code, _, errors = outcome(main, line)
    assert (code, len(errors)) == (2, 1)
    assert str(run.checkpoint_file) in errors[0]


@pytest.mark.parametrize("changes", [{"step": 10**9}, {"step": -5}, {"unreadable": -1}])
def test_a_distillations_checkpoint_is_not_believed(small_world, tmp_path, monkeypatch, changes):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(pretrain, "judge", lambda *_: 1 / 0)
        distil(small_world, tmp_path, "--cached_views", "1")
    with_about(tmp_path / "checkpoint.safetensors", **changes)
    with pytest.raises(InputError, match=r"checkpoint\.safetensors is damaged"):
        distil(small_world, tmp_path, "--cached_views", "1", "--resume")


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "losses.csv", "config.yaml"])
def test_a_pipe_in_a_runs_folder_does_not_block(trained, tmp_path, outcome, name):
    line, output = trained
    shutil.copytree(output, tmp_path / "out")
    run = run_of(tmp_path / "out")
    run.detector_file.unlink()
    (run.folder / name).unlink()
    os.mkfifo(run.folder / name)
    line = [*line, "--output_dir", tmp_path / "out", "--resume", "--check"]
    code, _, errors = outcome(main, line)
    assert code == 2
    assert all("is no file" in error for error in errors)


def test_a_pipe_for_a_detector_does_not_block(tmp_path):
    run = run_of(tmp_path)
    run.folder.mkdir(parents=True)
    os.mkfifo(run.detector_file)
    with pytest.raises(InputError, match=r"detector\.safetensors"):
        run.load_detector(torch.device("cpu"))


def test_a_mask_cannot_ask_for_memory_by_its_values(tmp_path):
    values = np.zeros((8, 8), np.int32)
    values[0, 0] = 2**31 - 1
    Image.fromarray(values).save(tmp_path / "mask.tif")
    with pytest.raises(InputError, match=r"mask\.tif holds values above 65535"):
        read_mask(tmp_path / "mask.tif", (8, 8))


@pytest.mark.parametrize("headers", [{"GNU.sparse.map": "x"}, {"GNU.sparse.size": str(2**60)}])
def test_a_shards_headers_are_not_believed(tmp_path, headers):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tar.gettarinfo(tmp_path / "a.png", "a.png")
        info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", **headers}
        with (tmp_path / "a.png").open("rb") as file:
            tar.addfile(info, file)
    with pytest.raises(InputError, match=r"a\.tar"):
        list_members(tmp_path / "a.tar")

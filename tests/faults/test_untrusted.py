"""Files from a stranger run no code, take no memory at their word and lead nowhere else."""

import json
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import inference
import main
import pretrain
from data.masks import read_mask
from data.samples import InputError
from data.shards import list_members
from models.pdn import pdn_small
from tests.conftest import make_product
from tests.distillation.distilling import distil, make_world
from tests.faults.running import command, run_of
from utils.files import DAMAGED, read_about, read_tensors
from utils.presets import parse
from utils.runs import Run
from utils.teachers import load_teacher, read_state_dict


class Planting:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# Pickles


def plain_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


def zipped(value: object, path: Path) -> None:
    torch.save(value, path)


def legacy(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [plain_pickle, zipped, legacy])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_teachers_code_never_runs(tmp_path, save, wrapped):
    planting = Planting(tmp_path / "planted")
    content = {**pdn_small().state_dict(), "more": planting} if wrapped else planting
    save(content, tmp_path / "teacher.pth")
    with pytest.raises(InputError, match=r"teacher\.pth"):
        load_teacher(tmp_path / "teacher.pth")
    assert not (tmp_path / "planted").exists()
    pickle.loads(pickle.dumps(planting))  # it would have
    assert (tmp_path / "planted").exists()


@pytest.mark.parametrize("save", [plain_pickle, zipped, legacy])
def test_no_code_runs_in_the_place_of_any_file_of_a_run(trained, tmp_path, outcome, save):
    """Whatever is put in the place of a run's files: they are no pickles, so none is unpickled."""
    line, output = trained
    planted = tmp_path / "planted"
    for script, arguments, name in (
        (main, [*line, "--resume", "--train_steps", "4"], "checkpoint.safetensors"),
        (inference, [output], "detector.safetensors"),
        (inference, [output], "config.yaml"),
    ):
        path = run_of(output).folder / name
        former = path.read_bytes()
        save(Planting(planted), path)
        detector = run_of(output).detector_file
        if script is main:
            detector.rename(tmp_path / "detector")
        code, _, errors = outcome(script, arguments)
        if script is main:
            (tmp_path / "detector").rename(detector)
        path.write_bytes(former)
        assert code == 2
        assert len(errors) == 1
        assert str(path) in errors[0]
        assert not planted.exists()


@pytest.fixture(scope="module")
def small_world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("small_world"), 6)


@pytest.mark.parametrize("save", [plain_pickle, zipped, legacy])
def test_a_backbones_and_a_distillations_code_never_runs(small_world, tmp_path, save):
    planting = Planting(tmp_path / "planted")
    save(planting, tmp_path / "vgg16.pth")
    with pytest.raises(InputError, match=r"vgg16\.pth"):
        distil(small_world, tmp_path, "--backbone_weights", str(tmp_path / "vgg16.pth"))
    save(planting, tmp_path / "checkpoint.safetensors")
    with pytest.raises(InputError, match=r"checkpoint\.safetensors is damaged"):
        distil(small_world, tmp_path, "--resume")
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("name_of", [str, str.upper])
def test_a_pickle_that_asks_for_a_huge_object_is_refused(tmp_path, name_of):
    """weights_only alone would make the byte array; PyTorch does not mind a name's case."""
    torch.save({"0.weight": torch.ones(4)}, tmp_path / "plain.pth")
    asking = b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x7f\x85R."
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "huge.pth", "w") as huge,
    ):
        for name in plain.namelist():
            pickled = name.endswith("data.pkl")
            content = asking if pickled else plain.read(name)
            huge.writestr(name_of(name) if pickled else name, content)
    with pytest.raises(InputError, match="pickled Python object"):
        read_state_dict(tmp_path / "huge.pth")


@pytest.mark.parametrize("kind", ["compressed", "overlapping"])
def test_an_archive_larger_than_its_file_is_refused(tmp_path, kind):
    torch.save({"0.weight": torch.zeros(1_000_000)}, tmp_path / "plain.pth")
    compression = zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", compression) as bomb,
    ):
        for info in plain.infolist():
            bomb.writestr(info.filename, plain.read(info))
        if kind == "overlapping":  # a second name for the same bytes
            twin = bomb.getinfo(info.filename)
            largest = max(bomb.infolist(), key=lambda info: info.file_size)
            twin.header_offset, twin.file_size = largest.header_offset, largest.file_size
            twin.compress_size, twin.CRC = largest.compress_size, largest.CRC
    with pytest.raises(InputError, match="archive"):
        read_state_dict(tmp_path / "bomb.pth")


# Tensors


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[list[str], Path]:
    """The command of a finished run, and its output folder."""
    folder = tmp_path_factory.mktemp("trained")
    make_product(folder / "bolt")
    torch.manual_seed(0)
    torch.save(pdn_small().state_dict(), folder / "teacher.pth")
    line = command(folder, folder / "out", "--train_steps", "4")
    main.main(parse(main.get_parser(), line))
    return line, folder / "out"


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

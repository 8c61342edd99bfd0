"""A stranger's pickles and archives run no code and take no memory at their word."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

import inference
import main
from data.samples import InputError
from models.pdn import pdn_small
from tests.distillation.distilling import distil
from tests.faults.planting import Planting
from tests.faults.running import run_of
from utils.teachers import load_teacher, read_state_dict


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

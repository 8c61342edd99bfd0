"""pretrain.py with what it cannot use: images, backbones, folders, checkpoints."""

import shutil
import urllib.error
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

import pretrain
from data.natural import find_natural_images, hold_out_natural
from data.samples import InputError
from models.backbone import published_weights
from tests.distillation.distilling import distil, make_world
from utils.teachers import load_teacher
from utils.tensors import read_about


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("pretrain"), 6)


@pytest.mark.parametrize("views", ["0", "1"])
def test_unreadable_images_are_skipped_counted_and_told(world, tmp_path, views, capsys):
    many = shutil.copytree(world, tmp_path / "many")
    for index in range(30):
        shutil.copy(many / f"{index % 6}.png", many / f"copy{index}.png")
    (many / "broken.png").write_bytes(b"cut")
    more = ("--cached_views", views, "--train_steps", "40", "--seed", "3")
    with pytest.warns(UserWarning, match=r"skipped: .*broken\.png"):
        path = distil(many, tmp_path / "out", *more)
    unreadable = read_about(path)["failed_reads"]
    assert unreadable == 1 if views == "1" else unreadable > 0
    assert f"skipped {unreadable} reads that failed" in capsys.readouterr().err
    _, held_out = hold_out_natural(find_natural_images(many), seed=3)
    for path in {*many.glob("copy*.png")} - {*held_out}:
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"share of 0\.001; "), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distil(many, tmp_path / "none", *more, "--max_unreadable", "0.001")
    for path in held_out:
        path.write_bytes(b"")
    with pytest.raises(
        InputError, match="none of 1 images that are held out"
    ):  # before any training
        distil(many, tmp_path / "none", *more)


def test_a_checkpoint_of_another_recipe_is_refused(world, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "save_teacher", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            distil(world, tmp_path, "--checkpoint_every", "2")
    with pytest.raises(InputError, match="--resume: seed was 0, not 1"):
        distil(world, tmp_path, "--resume", "--seed", "1")
    (tmp_path / "checkpoint.safetensors").write_bytes(b"PK cut")
    with pytest.raises(InputError, match=r"checkpoint\.safetensors is damaged"):
        distil(world, tmp_path, "--resume")


def test_faults_are_named_together(world, tmp_path):
    with pytest.raises(InputError) as error:
        distil(
            world,
            tmp_path,
            "--crop_size",
            "30",
            "--image_size",
            "63",
            "--max_unreadable",
            "2",
            "--cached_views",
            "1",
        )
    for option in ("--crop_size", "--image_size", "--max_unreadable"):
        assert option in str(error.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--backbone", "wide_resnet101"], "wide_resnet101_2"),
        (["--backbone", "fcn_resnet50"], "classification"),
        (["--backbone", "resnet18"], "--backbone_layers"),
        (["--backbone_layers", "features.99"], "no layer features.99"),
        (["--backbone_layers", "features.1", *["features.3"] * 4], "5 cannot share 384 channels"),
    ],
)
def test_a_backbone_that_cannot_be_used_is_named(world, tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        distil(world, tmp_path, *more)


def test_backbone_weights_that_do_not_fit_are_named(world, tmp_path):
    save_file({"0.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors"):
        distil(world, tmp_path, "--backbone_weights", str(tmp_path / "other.safetensors"))


def test_a_download_that_cannot_be_made_says_which_file_and_where(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    options = pretrain.argparse.Namespace(
        backbone="resnet18", backbone_layers=["layer2"], backbone_weights=None
    )
    with pytest.raises(InputError, match="no route to host") as error:
        pretrain.load_backbone(options)
    url = published_weights("resnet18").url
    place = tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[1]
    assert url in str(error.value)
    assert str(place) in str(error.value)
    place.parent.mkdir(parents=True, exist_ok=True)  # the mend works
    torch.save(resnet18(weights=None).state_dict(), place)
    pretrain.load_backbone(options)


def test_an_existing_teacher_is_not_replaced_unasked(world, tmp_path):
    path = tmp_path / "teacher_small.safetensors"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="--overwrite"):
        distil(world, tmp_path)
    assert path.read_bytes() == b"precious"
    distil(world, tmp_path, "--overwrite")
    load_teacher(path)

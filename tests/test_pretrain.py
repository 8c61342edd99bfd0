"""pretrain.py: distillation in both ways, resumption, what the teacher's file says."""

import os
import shutil
import signal
import tarfile
from pathlib import Path

import pytest
import torch

import pretrain
from data.samples import InputError
from distillation.loop import State
from distillation.targets import Cached, Streamed, describe
from models.pdn import PDNS, TEACHER_CHANNELS, pdn_small
from tests.distillation.distilling import distil, make_world
from utils.teachers import load_teacher, read_state_dict
from utils.tensors import read_about


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("pretrain"), 6)


@pytest.mark.parametrize("views", ["0", "1", "2"])
def test_a_distilled_teacher_loads_and_says_how_good_it_is(world, tmp_path, views, capsys):
    path = distil(world, tmp_path, "--cached_views", views)
    teacher, size = load_teacher(path)
    assert size == "small"
    assert teacher(torch.rand(1, 3, 64, 64)).shape == (1, TEACHER_CHANNELS, 8, 8)
    about = read_about(path)
    assert about["backbone"] == "vgg16"
    assert about["backbone_layers"] == ["features.15", "features.22"]
    assert about["train_images"] == 5
    assert about["failed_reads"] == 0
    assert about["model_size"] == "small"
    assert f"{about['held_out_explained_variance']:.4f}" in capsys.readouterr().out
    assert str(world) not in str(about)
    assert not (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("views", ["0", "1"])
def test_side_by_side_each_teacher_is_as_it_would_be_alone(world, tmp_path, views):
    more = ("--cached_views", views)
    distil(world, tmp_path / "both", *more, "--model_size", "medium", "small")
    for size in PDNS:
        distil(world, tmp_path / size, *more, "--model_size", size)
        one, other = (
            tmp_path / folder / f"teacher_{size}.safetensors" for folder in ("both", size)
        )
        alone, beside = read_state_dict(one), read_state_dict(other)
        assert all(torch.equal(alone[key], beside[key]) for key in alone)
        assert read_about(one)["model_size"] == size
    rows = [(tmp_path / f / "losses.csv").read_text().split() for f in ("both", *PDNS)]
    assert rows[0][0] == "step,total,small,medium,learning_rate"
    both, small, medium = (list(map(float, row[1].split(",")[1:-1])) for row in rows)
    assert both == [pytest.approx(small[0] + medium[0]), small[0], medium[0]]


def test_side_by_side_the_backbone_runs_once(world, tmp_path, monkeypatch):
    calls = []

    def counted(backbone, compute):
        features = describe(backbone, compute)
        return lambda images: calls.append(len(images)) or features(images)

    monkeypatch.setattr(pretrain, "describe", counted)
    distil(world, tmp_path, "--model_size", "small", "medium")
    statistics, steps, held_out = [2, 2], [2] * 4, [1]
    assert calls == statistics + steps + held_out


def test_no_steps_give_the_initial_weights(world, tmp_path, capsys):
    teacher, _ = load_teacher(distil(world, tmp_path, "--train_steps", "0"))
    torch.manual_seed(0)
    expected = pdn_small().half().float()
    for key, tensor in expected.state_dict().items():
        assert torch.equal(teacher.state_dict()[key], tensor)
    explained = read_about(tmp_path / "teacher_small.safetensors")["held_out_explained_variance"]
    assert explained < 0.1


def test_shards_give_what_their_images_give_in_files(world, tmp_path):
    """With one image a shard, both are split and ordered alike."""
    shards = tmp_path / "shards"
    shards.mkdir()
    shutil.copy(world / "vgg16.safetensors", shards)
    for path in world.glob("*.png"):
        with tarfile.open(shards / f"{path.stem}.tar", "w") as tar:
            tar.add(path, path.name)
    more = ("--cached_views", "1")
    one, other = distil(world, tmp_path / "files", *more), distil(shards, tmp_path / "tars", *more)
    assert read_about(other)["train_images"] == read_about(one)["train_images"] == 5
    alone = read_state_dict(one)
    assert all(torch.equal(alone[key], t) for key, t in read_state_dict(other).items())
    distil(shards, tmp_path / "streamed")


def test_distillation_learns(world, tmp_path):
    for steps in ("1", "60"):
        more = ["--train_steps", steps, "--learning_rate", "1e-3", "--cached_views", "1"]
        distil(world, tmp_path / steps, *more)
    explained = [
        read_about(tmp_path / steps / "teacher_small.safetensors")["held_out_explained_variance"]
        for steps in ("1", "60")
    ]
    assert explained[1] > explained[0] + 0.05


@pytest.mark.parametrize("views", ["0", "1"])
def test_an_interrupted_distillation_goes_on_to_the_same_teacher(
    world, tmp_path, monkeypatch, views
):
    more = ("--cached_views", views, "--schedule", "cosine", "--model_size", "small", "medium")
    distil(world, tmp_path / "whole", *more)
    kind = Cached if views == "1" else Streamed
    batches = kind.batches

    def interrupted(self, steps, processes):
        for step, batch in zip(steps, batches(self, steps, processes), strict=True):
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(kind, "batches", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"after step 3; .* --resume"):
            distil(world, tmp_path / "parts", *more)
    with pytest.raises(InputError, match="--resume goes on"):
        distil(world, tmp_path / "parts", *more)
    distil(world, tmp_path / "parts", *more, "--resume")
    for size in PDNS:
        name = f"teacher_{size}.safetensors"
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("views", ["0", "1"])
def test_a_killed_distillation_loses_at_most_an_interval(world, tmp_path, monkeypatch, views):
    more = ("--cached_views", views, "--checkpoint_every", "2")
    whole = distil(world, tmp_path / "whole", *more)
    save = State.save

    def killed(self):
        save(self)
        raise MemoryError  # what ends a process after its checkpoint, at any moment

    with monkeypatch.context() as patch:
        patch.setattr(State, "save", killed)
        with pytest.raises(MemoryError):
            distil(world, tmp_path / "parts", *more)
    state = read_about(tmp_path / "parts" / "checkpoint.safetensors")
    assert state["step"] == 2
    assert distil(world, tmp_path / "parts", *more, "--resume").read_bytes() == whole.read_bytes()


def test_what_is_finished_is_left_alone_by_resume(world, tmp_path, capsys):
    path = distil(world, tmp_path, "--resume")  # which may begin, too
    before = path.stat().st_mtime_ns
    distil(world, tmp_path, "--resume")
    assert "finished already" in capsys.readouterr().err
    assert path.stat().st_mtime_ns == before


def test_what_overwrite_begins_anew_resume_goes_on_with(world, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "judge", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            distil(world, tmp_path)
        patch.setattr(pretrain, "fit", lambda *_: 1 / 0)  # before the first checkpoint
        with pytest.raises(ZeroDivisionError):
            distil(world, tmp_path, "--overwrite", "--seed", "1")
    assert not (tmp_path / "checkpoint.safetensors").exists()
    distil(world, tmp_path, "--resume", "--seed", "1")
    with pytest.raises(InputError, match="exclude each other"):
        distil(world, tmp_path, "--resume", "--overwrite")


def test_a_teacher_that_could_not_be_judged_is_not_trained_again(world, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "judge", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            distil(world, tmp_path)
    monkeypatch.setattr(State, "descend", lambda *_: pytest.fail("a step was taken"))
    distil(world, tmp_path, "--resume")

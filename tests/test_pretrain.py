"""pretrain.py: distillation in both ways, resumption, what the teacher's file says."""

import os
import shutil
import signal
import tarfile
import urllib.error
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.models import resnet18, vgg16

import pretrain
from data.images import normalise
from data.natural import find_natural_images, hold_out_natural
from data.samples import InputError
from models.backbone import build_backbone, published_weights
from models.pdn import PDNS, TEACHER_CHANNELS, pdn_small
from tests.conftest import REPOSITORY
from utils.devices import Compute
from utils.distillation import State, explained_variance
from utils.files import read_about
from utils.options import parse
from utils.processes import Processes
from utils.targets import Cached, FeatureCache, Streamed, describe
from utils.teachers import load_teacher, read_state_dict, shipped_teacher

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def features() -> dict:
    torch.manual_seed(0)
    return vgg16(weights=None, init_weights=False).features.state_dict()


@pytest.fixture(scope="module")
def world(tmp_path_factory, features) -> Path:
    world = tmp_path_factory.mktemp("pretrain")
    save_file(features, world / "vgg16.safetensors")
    for index in range(6):
        rng = np.random.default_rng(index)
        small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), "uint8"))
        small.resize((100, 90)).save(world / f"{index}.png")
    return world


def distil(world: Path, output: Path, *more: str) -> Path:
    """Distil the small teacher for four steps; return its file."""
    line = ["--imagenet_train_path", str(world), "--output_dir", str(output)]
    line += ["--model_size", "small", "--train_steps", "4", "--batch_size", "2"]
    line += ["--backbone", "vgg16", "--backbone_weights", str(world / "vgg16.safetensors")]
    line += ["--image_size", "64", "--crop_size", "48"]
    line += ["--workers", "0", "--device", "cpu", "--precision", "fp32", *more]
    pretrain.main(parse(pretrain.get_parser(), line))
    return output / "teacher_small.safetensors"


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
    assert not (tmp_path / "checkpoint.pt").exists()


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


def test_shards_give_what_their_images_give_in_files(world, tmp_path, features):
    """With one image a shard, both are split and ordered alike."""
    shards = tmp_path / "shards"
    shards.mkdir()
    save_file(features, shards / "vgg16.safetensors")
    for path in world.glob("*.png"):
        with tarfile.open(shards / f"{path.stem}.tar", "w") as tar:
            tar.add(path, path.name)
    more = ("--cached_views", "1")
    one, other = distil(world, tmp_path / "files", *more), distil(shards, tmp_path / "tars", *more)
    assert read_about(other)["train_images"] == read_about(one)["train_images"] == 5
    alone = read_state_dict(one)
    assert all(torch.equal(alone[key], t) for key, t in read_state_dict(other).items())
    distil(shards, tmp_path / "streamed")


@pytest.mark.parametrize("views", ["0", "1"])
def test_unreadable_images_are_skipped_counted_and_told(world, tmp_path, features, views, capsys):
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


def test_what_moments_say_is_the_mean_and_std_of_the_targets(world, tmp_path, features):
    options = pretrain.argparse.Namespace(
        seed=0, workers=1, image_size=64, max_unreadable=0, cached_views=2, batch_size=2
    )
    backbone = build_backbone("vgg16", TEACHER_CHANNELS, None, features)
    source = find_natural_images(world)
    for kind in (Cached, Streamed):
        stream = kind(source, describe(backbone, Compute(CPU)), options)
        mean, std = stream.moments(Processes()).mean_std()
        if kind is Cached:
            seen = stream.cache.features.float()
        else:
            seen = torch.cat([f for _, f in stream.batches(range(3), Processes())])
        torch.testing.assert_close(mean, seen.mean((0, 2, 3), keepdim=True))
        expected = seen.double().std((0, 2, 3), keepdim=True, correction=0).float()
        torch.testing.assert_close(std, expected, atol=1e-4, rtol=1e-4)


def test_distillation_learns(world, tmp_path):
    for steps in ("1", "60"):
        more = ["--train_steps", steps, "--learning_rate", "1e-3", "--cached_views", "1"]
        distil(world, tmp_path / steps, *more)
    explained = [
        read_about(tmp_path / steps / "teacher_small.safetensors")["held_out_explained_variance"]
        for steps in ("1", "60")
    ]
    assert explained[1] > explained[0] + 0.05


def test_cached_crops_are_aligned_with_their_features(world):
    """Features that spell the pixels' positions tell whether a crop's outputs are its own."""
    size, crop = 64, 48
    paths = sorted(world.glob("*.png"))[:2]
    options = pretrain.argparse.Namespace(seed=0, workers=1, image_size=size, max_unreadable=0)

    def positions(large: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(large.float(), 8)  # (N, 3, size / 4, size / 4): what lies there

    cache = FeatureCache(paths, positions, options, views=2, channels=3)
    cache.features = F.avg_pool2d(cache.images.float(), 4)
    images, features = cache.batch(step=0, batch_size=8, crop=crop, seed=1)
    own = F.avg_pool2d(images.float(), 4)[..., 4:-4, 4:-4]
    assert features.shape == (8, 3, (crop - 32) // 4, (crop - 32) // 4)
    torch.testing.assert_close(features, own)
    assert not torch.equal(*cache.batch(step=1, batch_size=2, crop=crop, seed=1)[0])


def test_the_second_of_two_views_is_mirrored(world):
    options = pretrain.argparse.Namespace(seed=2, workers=1, image_size=64, max_unreadable=0)
    paths = sorted(world.glob("*.png"))[:2]
    cache = FeatureCache(paths, lambda large: large[:, :, ::8, ::8], options, views=2, channels=3)
    for first, second in zip(cache.images[::2], cache.images[1::2], strict=True):
        assert (first.int() - second.flip(2).int()).abs().max() <= 1  # of resizing
        assert (first.int() - second.int()).abs().float().mean() > 5


def test_explained_variance_is_that_of_a_hand_made_predictor():
    torch.manual_seed(0)
    teacher = pdn_small()
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    target = torch.randn(3, TEACHER_CHANNELS, 16, 16)
    with torch.no_grad():
        output = teacher(normalise(images))
    target[..., 4:-4, 4:-4] = output + 0.5 * torch.randn_like(output)
    inner = target[..., 4:-4, 4:-4]
    residual = (output - inner).square().sum()
    total = (inner - inner.mean((0, 2, 3), keepdim=True)).square().sum()
    pairs = [(images[i : i + 1], target[i : i + 1]) for i in range(3)]
    found = explained_variance(teacher, iter(pairs))
    assert found == pytest.approx(float(1 - residual / total), abs=1e-5)


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
        with pytest.raises(KeyboardInterrupt, match="after step 3; --resume"):
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
    state = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
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
    assert not (tmp_path / "checkpoint.pt").exists()
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


def test_a_checkpoint_of_another_recipe_is_refused(world, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "save_teacher", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            distil(world, tmp_path, "--checkpoint_every", "2")
    with pytest.raises(InputError, match="--resume: seed was 0, not 1"):
        distil(world, tmp_path, "--resume", "--seed", "1")
    (tmp_path / "checkpoint.pt").write_bytes(b"PK cut")
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged"):
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


@pytest.mark.parametrize("size", PDNS)
def test_the_shipped_teachers_tell_their_recipe(size):
    path = shipped_teacher(size)
    assert path.is_relative_to(REPOSITORY)
    assert path.stat().st_size < 17e6
    assert load_teacher(path, size)[1] == size
    about = read_about(path)
    assert about["held_out_explained_variance"] > {"small": 0.48, "medium": 0.38}[size]
    preset = yaml.safe_load((REPOSITORY / "configs" / f"teacher_{size}.yaml").read_text())
    assert {key: about[key] for key in preset} == preset
    assert about["held_out_images"] == 50
    card = (REPOSITORY / "models" / "weights" / "README.md").read_text()
    assert f"{about['held_out_explained_variance']:.3f}" in card
    assert f"{about['train_steps']:,} steps" in card


@pytest.mark.slow
def test_the_shipped_teachers_explain_what_they_say_on_images_they_never_saw(shared):
    """Measure the shipped files anew, on their own held-out images, with the shared backbone."""
    source = find_natural_images(shared / "data" / "imagenet_samples")
    train, held_out = hold_out_natural(source, seed=0)
    weights = read_state_dict(shared / "weights" / "vgg16_features_fp16.safetensors")
    backbone = build_backbone("vgg16", TEACHER_CHANNELS, None, weights)
    features = describe(backbone, Compute(CPU))
    options = pretrain.argparse.Namespace(seed=0, workers=2, image_size=256, max_unreadable=0)
    known = FeatureCache(train.members()[:20], features, options, views=1)
    judged = FeatureCache(held_out[:15], features, options, views=1)
    for size in PDNS:
        about = read_about(shipped_teacher(size))
        assert about["seed"] == 0
        teacher, _ = load_teacher(shipped_teacher(size))
        explained = explained_variance(teacher, judged.pairs(*known.moments().mean_std()))
        assert explained == pytest.approx(about["held_out_explained_variance"], abs=0.08)

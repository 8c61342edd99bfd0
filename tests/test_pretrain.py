"""pretrain.py: distillation in both ways, resumption, what the teacher's file says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.models import vgg16

import pretrain
from data.samples import InputError
from models.backbone import build_backbone
from models.pdn import TEACHER_CHANNELS, pdn_small
from tests.conftest import REPOSITORY
from utils.devices import Compute
from utils.distillation import FeatureCache, explained_variance
from utils.files import read_about
from utils.options import parse
from utils.teachers import default_teacher, load_teacher

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


def distil(world: Path, output: Path, *more: str) -> None:
    line = ["--imagenet_train_path", str(world), "--output", str(output), "--model_size", "small"]
    line += ["--backbone", "vgg16", "--backbone_weights", str(world / "vgg16.safetensors")]
    line += ["--train_steps", "4", "--image_size", "64", "--crop_size", "48", "--batch_size", "2"]
    line += ["--workers", "0", "--device", "cpu", "--precision", "fp32", *more]
    pretrain.main(parse(pretrain.get_parser(), line))


@pytest.mark.parametrize("views", ["0", "1", "2"])
def test_a_distilled_teacher_loads_and_says_how_good_it_is(world, tmp_path, views, capsys):
    path = tmp_path / "teacher.safetensors"
    distil(world, path, "--cached_views", views)
    teacher, size = load_teacher(path)
    assert size == "small"
    assert teacher(torch.rand(1, 3, 64, 64)).shape == (1, TEACHER_CHANNELS, 8, 8)
    about = read_about(path)
    assert about["backbone"] == "vgg16"
    assert about["train_images"] == 5
    assert f"{about['held_out_explained_variance']:.4f}" in capsys.readouterr().out
    assert str(world) not in str(about)
    assert not list(tmp_path.glob("*.checkpoint.pt"))


def test_distillation_learns(world, tmp_path):
    for steps in ("1", "60"):
        more = ["--train_steps", steps, "--learning_rate", "1e-3", "--cached_views", "1"]
        distil(world, tmp_path / f"{steps}.safetensors", *more)
    explained = [
        read_about(tmp_path / f"{steps}.safetensors")["held_out_explained_variance"]
        for steps in (1, 60)
    ]
    assert explained[1] > explained[0] + 0.05


def test_backbone_features_are_what_the_papers_say(features):
    backbone = build_backbone("vgg16", TEACHER_CHANNELS, features)
    torch.manual_seed(1)
    image = torch.rand(1, 3, 64, 48)
    layers = vgg16(weights=None, init_weights=False).features.eval()
    layers.load_state_dict(features)
    with torch.no_grad():
        third, fourth = layers[:16](image), layers[:23](image)  # relu3_3, relu4_3
    expected = []
    for layer in (third, fourth):
        smooth = F.unfold(layer, 3, padding=1).view(1, layer.shape[1], 9, -1).mean(2)
        smooth = smooth.view(layer.shape)
        if layer is third:  # bilinear halving is the mean of two by two
            smooth = smooth.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
        channels = smooth.shape[1]
        bins = [(i * channels // 192, -(-(i + 1) * channels // 192)) for i in range(192)]
        expected.append(torch.stack([smooth[:, a:b].mean(1) for a, b in bins], 1))
    torch.testing.assert_close(backbone(image), torch.cat(expected, 1), atol=1e-5, rtol=1e-4)


def test_cached_crops_are_aligned_with_their_features(world):
    """Features that spell the pixels' positions tell whether a crop's outputs are its own."""
    size, crop = 64, 48
    paths = sorted(world.glob("*.png"))[:2]
    options = pretrain.argparse.Namespace(seed=0, workers=1)

    def positions(large: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(large.float(), 8)  # (N, 3, size / 4, size / 4): what lies there

    cache = FeatureCache(paths, size, positions, 3, options, views=2)
    cache.features = F.avg_pool2d(cache.images.float(), 4)
    images, features = cache.batch(step=0, batch_size=8, crop=crop, seed=1)
    own = F.avg_pool2d(images.float(), 4)[..., 4:-4, 4:-4]
    assert features.shape == (8, 3, (crop - 32) // 4, (crop - 32) // 4)
    torch.testing.assert_close(features, own)
    assert not torch.equal(*cache.batch(step=1, batch_size=2, crop=crop, seed=1)[0])


def test_explained_variance_is_that_of_a_hand_made_predictor():
    torch.manual_seed(0)
    teacher = pdn_small()
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    target = torch.randn(3, TEACHER_CHANNELS, 16, 16)
    with torch.no_grad():
        output = teacher(pretrain.normalise(images))
    target[..., 4:-4, 4:-4] = output + 0.5 * torch.randn_like(output)
    inner = target[..., 4:-4, 4:-4]
    residual = (output - inner).square().sum()
    total = (inner - inner.mean((0, 2, 3), keepdim=True)).square().sum()
    pairs = [(images[i : i + 1], target[i : i + 1]) for i in range(3)]
    found = explained_variance(teacher, iter(pairs), CPU)
    assert found == pytest.approx(float(1 - residual / total), abs=1e-5)


def test_an_interrupted_distillation_goes_on_to_the_same_teacher(world, tmp_path, monkeypatch):
    more = ("--cached_views", "1", "--schedule", "cosine")
    distil(world, tmp_path / "whole.safetensors", *more)
    monkeypatch.setattr(pretrain, "CHECKPOINT_STEPS", 2)
    batch, calls = FeatureCache.batch, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return batch(self, *arguments)

    path = tmp_path / "parts.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(FeatureCache, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            distil(world, path, *more)
    with pytest.raises(InputError, match="--resume goes on"):
        distil(world, path, *more)
    distil(world, path, *more, "--resume")
    assert path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_faults_are_named_together(world, tmp_path):
    with pytest.raises(InputError) as error:
        distil(world, tmp_path / "t.safetensors", "--crop_size", "30", "--image_size", "63")
    assert "--crop_size" in str(error.value)
    assert "--image_size" in str(error.value)


def test_backbone_weights_that_do_not_fit_are_named(world, tmp_path):
    save_file({"0.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors"):
        distil(
            world,
            tmp_path / "t.safetensors",
            "--backbone_weights",
            str(tmp_path / "other.safetensors"),
        )


def test_an_existing_teacher_is_not_replaced_unasked(world, tmp_path):
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="--overwrite"):
        distil(world, path)
    assert path.read_bytes() == b"precious"


def test_the_shipped_teacher_is_small_and_tells_its_recipe():
    path = default_teacher("small")
    assert path.is_relative_to(REPOSITORY)
    assert path.stat().st_size < 6 * 2**20
    assert load_teacher(path, "small")[1] == "small"
    about = read_about(path)
    assert about["held_out_explained_variance"] > 0.39
    assert about["held_out_images"] == 50


@pytest.mark.slow
def test_the_shipped_teacher_explains_what_it_says_on_images_it_never_saw(shared):
    """Measure the shipped file anew, on its own held-out images, with the shared backbone."""
    about = read_about(default_teacher("small"))
    folder = shared / "data" / "imagenet_samples"
    train, held_out = pretrain.split(pretrain.list_natural_images(folder), about["seed"])
    weights = pretrain.read_state_dict(shared / "weights" / "vgg16_features_fp16.safetensors")
    backbone = build_backbone("vgg16", TEACHER_CHANNELS, weights)
    describe = pretrain.describe(backbone, Compute(CPU))
    options = pretrain.argparse.Namespace(seed=0, workers=2)
    known = FeatureCache(train[:20], 256, describe, TEACHER_CHANNELS, options, views=1)
    mean, std = known.moments().mean_std()
    cache = FeatureCache(held_out[:15], 256, describe, TEACHER_CHANNELS, options, views=1)
    pairs = ((cache.images[i : i + 1], (cache.features[i : i + 1] - mean) / std) for i in range(15))
    teacher, _ = load_teacher(default_teacher("small"))
    explained = explained_variance(teacher, pairs, CPU)
    assert explained == pytest.approx(about["held_out_explained_variance"], abs=0.08)

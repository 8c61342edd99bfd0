"""What a teacher learns from, and how its learning is judged: alignment, statistics, views."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import pretrain
from data.images import normalise
from data.natural import find_natural_images
from distillation.loop import explained_variance
from distillation.targets import Cached, FeatureCache, Streamed, describe
from models.backbone import LAYERS, build_backbone
from models.pdn import TEACHER_CHANNELS, pdn_small
from scoring.calibration import LEAST_STD
from tests.distillation.distilling import make_world
from utils.devices import Compute
from utils.processes import Processes
from utils.teachers import read_state_dict

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("pretrain"), 6)


def test_what_moments_say_is_the_mean_and_std_of_the_targets(world, tmp_path):
    options = pretrain.argparse.Namespace(
        seed=0, workers=1, image_size=64, max_unreadable=0, cached_views=2, batch_size=2
    )
    weights = read_state_dict(world / "vgg16.safetensors")
    backbone = build_backbone("vgg16", TEACHER_CHANNELS, LAYERS["vgg16"], weights)
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
        expected = expected.clamp(min=LEAST_STD)  # the random backbone has channels without life
        torch.testing.assert_close(std, expected, atol=1e-4, rtol=1e-4)


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

"""The teacher's features of the training images: their statistics, and what room they may take."""

import numpy as np
import pytest
import torch

from data.images import normalise
from tests.conftest import disagreeing_detector
from training.features import describe_training_images
from utils.devices import Compute

CHANNELS = 384
SIZE = (64, 80)  # height, width
COMPUTE = Compute(torch.device("cpu"))
COUNT = 11  # more than one batch
ROOM = 64  # MiB, more than they need


@pytest.fixture
def detector():
    return disagreeing_detector("efficientad", SIZE).eval()


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (COUNT, 3, *SIZE), dtype=torch.uint8, generator=generator)


def taught(detector, images: torch.Tensor) -> torch.Tensor:
    """Return the teacher's own outputs, one image at a time: (N, C, h, w)."""
    with torch.no_grad():
        return torch.cat([detector.teacher(normalise(image[None])) for image in images])


def test_the_statistics_are_torchs_over_all_training_images(detector, images):
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    describe_training_images(detector, images, COMPUTE, ROOM)
    after = detector.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"teacher_mean", "teacher_std"}
    wide = taught(detector, images).double()
    for buffer, expected in (
        (detector.teacher_mean, wide.mean((0, 2, 3), keepdim=True)),
        (detector.teacher_std, wide.std((0, 2, 3), correction=0, keepdim=True)),
    ):
        assert buffer.shape == (1, CHANNELS, 1, 1)
        torch.testing.assert_close(buffer, expected.float(), rtol=1e-3, atol=1e-5)


def test_what_the_teacher_describes_then_has_mean_0_and_deviation_1(detector, images):
    describe_training_images(detector, images, COMPUTE, ROOM)
    described = torch.cat([detector.describe(normalise(image[None])) for image in images])
    assert described.mean((0, 2, 3)).abs().max() < 1e-3
    np.testing.assert_allclose(described.std((0, 2, 3), correction=0).numpy(), 1, rtol=1e-3)


def test_each_images_features_are_kept_as_the_teacher_gives_them(detector, images):
    kept = describe_training_images(detector, images, COMPUTE, ROOM)
    assert kept.dtype == torch.float32
    torch.testing.assert_close(kept.permute(0, 3, 1, 2), taught(detector, images))


def test_in_half_precision_they_take_half_and_lose_nothing_of_what_the_teacher_gave(
    detector, images
):
    compute = Compute(COMPUTE.device, "bf16")
    kept = describe_training_images(detector, images, compute, ROOM)
    assert kept.dtype == torch.bfloat16
    with compute.autocast(), torch.no_grad():
        features = detector.teacher(normalise(images[:8]))
    assert torch.equal(kept[:8].permute(0, 3, 1, 2), features)


def test_what_would_take_more_than_its_room_is_not_kept_and_that_is_said(detector, images, capsys):
    needed = COUNT * 8 * 12 * CHANNELS * 4 / 2**20
    assert describe_training_images(detector, images, COMPUTE, int(needed) + 1) is not None
    assert capsys.readouterr().err.count("--feature_memory") == 0
    assert describe_training_images(detector, images, COMPUTE, int(needed)) is None
    said = capsys.readouterr().err
    assert f"--feature_memory {int(needed)}" in said
    assert detector.teacher_std.std() > 0  # the statistics are there all the same


def test_a_room_of_0_is_a_choice_that_needs_no_comment(detector, images, capsys):
    assert describe_training_images(detector, images, COMPUTE, 0) is None
    assert "--feature_memory" not in capsys.readouterr().err


def test_on_a_full_gpu_they_wait_in_page_locked_memory(detector, images, monkeypatch):
    """What cannot be had here, a GPU, is played by the calls that ask about one."""
    from training import features

    made = []
    monkeypatch.setattr(features.torch.cuda, "mem_get_info", lambda _: (2**30, 2**36))
    monkeypatch.setattr(features.torch, "empty", lambda *_, **how: made.append(how))
    some = torch.zeros(8, 8, 12, CHANNELS)
    features.allocate(COUNT, some, torch.device("cuda:0"), ROOM)
    monkeypatch.setattr(features.torch.cuda, "mem_get_info", lambda _: (2**36, 2**36))
    features.allocate(COUNT, some, torch.device("cuda:0"), ROOM)
    assert made[0]["pin_memory"]
    assert made[1]["device"] == torch.device("cuda:0")

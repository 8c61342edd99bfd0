"""The opponent of the benchmarks does the published work: it must be neither weaker nor other."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.published import (
    ProductTransform,
    PublishedScoring,
    PublishedTraining,
    penalty_transform,
)
from data.images import normalise
from data.natural import penalty_view
from data.samples import InputError
from models.fusion import score_maps
from tests.conftest import disagreeing_detector, fill

CPU = torch.device("cpu")
SIZE = (64, 80)


def noise(seed: int) -> torch.Tensor:
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def published(detector, tmp_path, natural: bool = False) -> PublishedTraining:
    fill(tmp_path, 3)
    paths = sorted(tmp_path.glob("*.png"))
    return PublishedTraining(detector, paths, paths if natural else [], SIZE, 1, CPU)


@pytest.mark.parametrize("penalty", [False, True])
def test_its_loss_is_the_sum_of_our_terms_and_it_learns(tmp_path, penalty):
    detector = disagreeing_detector("glae", SIZE).eval()
    inputs = [noise(0), noise(1), noise(2) if penalty else None]
    with torch.no_grad():
        expected = sum(detector.losses(*inputs).values()).item()
    opponent = published(detector, tmp_path)
    losses = [opponent.step(*inputs) for _ in range(5)]
    assert losses[0] == pytest.approx(expected, rel=1e-5)
    assert losses[-1] < losses[0]


def test_it_computes_in_full_precision_channels_first_without_dropout(tmp_path):
    detector = disagreeing_detector("glae", SIZE).to(memory_format=torch.channels_last)
    opponent = published(detector, tmp_path)
    for parameter in opponent.detector.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.is_contiguous()
    dropouts = [m for m in opponent.detector.modules() if isinstance(m, nn.Dropout)]
    assert all(module.p == 0 for module in dropouts)
    own = [m for m in detector.modules() if isinstance(m, nn.Dropout)]
    assert all(module.p > 0 for module in own)  # the one that it was made of is still ours
    assert detector.student[3].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("natural", [False, True])
def test_its_loaders_decode_for_every_step(tmp_path, natural):
    opponent = published(disagreeing_detector("efficientad", SIZE), tmp_path, natural)
    with opponent.running() as step:
        losses = [step() for _ in range(4)]  # an epoch has three
    assert len(set(losses)) == 4


def test_its_plain_image_is_ours_and_its_twin_is_jittered(tmp_path):
    fill(tmp_path, 1)
    image = Image.open(tmp_path / "000.png").convert("RGB")
    plain, jittered = ProductTransform(SIZE)(image)
    resized = np.asarray(image.resize(SIZE[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    torch.testing.assert_close(plain, normalise(torch.from_numpy(resized.copy())))
    assert not torch.equal(plain, jittered)


def test_its_view_of_a_natural_image_is_ours(tmp_path):
    fill(tmp_path, 1)
    image = Image.open(tmp_path / "000.png").convert("RGB")
    torch.manual_seed(1)  # no grey
    theirs = penalty_transform(SIZE)(image)
    draws = map(np.random.default_rng, range(10))
    ours = [normalise(penalty_view(image, SIZE, rng, grey=0.3)) for rng in draws]
    assert any(torch.allclose(theirs, view, atol=1e-5) for view in ours)


def test_its_scores_and_maps_are_ours_but_for_the_frame():
    """It frames calibrated maps with 0, we raw ones: see `Detector.calibrated`."""
    detector = disagreeing_detector("glae", SIZE).eval()
    detector.student_quantiles.copy_(torch.tensor([0.2, 0.9]))
    detector.autoencoder_quantiles.copy_(torch.tensor([0.1, 0.3]))
    inside = detector.maps(noise(0))["combined"][..., 4:-4, 4:-4]
    expected = score_maps(nn.functional.pad(inside, (4, 4, 4, 4)), (90, 130))
    for theirs, ours in zip(
        PublishedScoring(detector, CPU).score(noise(0), (90, 130)), expected, strict=True
    ):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_more_distances_than_torchs_quantile_takes_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.published.QUANTILE_LIMIT", 1000)
    opponent = published(disagreeing_detector("glae", SIZE), tmp_path)
    with pytest.raises(InputError, match="--against published"):
        opponent.step(noise(0), noise(1), None)

"""Good images that do not differ at all, such as those of a saturated backlight."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.images import load_images
from scoring.calibration import calibrate
from scoring.scorer import Scorer
from tests.conftest import disagreeing_detector
from training.features import describe_training_images
from utils.devices import Compute

SIZE = (64, 80)
COMPUTE = Compute(torch.device("cpu"), scoring_batch_size=2)


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(params=["glae", "efficientad"])
def detector(request):
    return disagreeing_detector(request.param, SIZE)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_speck_is_the_strangest_and_every_map_is_finite(detector, tmp_path, number):
    white = np.full((*SIZE, 3), 255, np.uint8)
    speck = white.copy()
    speck[30:36, 40:46] = 20
    good = [save(tmp_path / f"{index}.png", white) for index in range(number)]
    bad = save(tmp_path / "speck.png", speck)
    describe_training_images(detector, load_images(good, SIZE, 1), COMPUTE, 64)
    calibrate(detector, good, SIZE, 1, COMPUTE)
    images = load_images([good[0], bad], SIZE, 1)
    (calm, strange), maps = Scorer(detector, COMPUTE).score(images, [SIZE] * 2)
    assert all(found.isfinite().all() for found in maps)
    threshold = detector.threshold.item()  # of batches of other sizes, which round otherwise
    assert calm.item() == pytest.approx(threshold, rel=1e-3)
    assert strange > 2 * threshold
    row, column = np.unravel_index(maps[1].numpy().argmax(), SIZE)
    assert 16 < row < 50
    assert 26 < column < 60  # as far as the networks see the speck


def test_one_image_or_two_equal_ones_give_the_threshold_that_they_score(detector, tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (*SIZE, 3), np.uint8)
    one, same = (save(tmp_path / f"{name}.png", pixels) for name in "ab")
    images = load_images([one], SIZE, 1)
    describe_training_images(detector, images, COMPUTE, 64)
    for paths in ([one], [one, same]):
        calibrate(detector, paths, SIZE, 1, COMPUTE)
        score, _ = Scorer(detector, COMPUTE).score(images, [SIZE])
        assert score.isfinite().all()
        assert score.item() == pytest.approx(detector.threshold.item(), rel=1e-5)

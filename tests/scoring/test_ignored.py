"""Fitting and calibrating with a region to ignore: by what is looked at alone."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from data.defects import make_defects
from models.building import build_detector
from models.detector import Detector
from models.experts import COMBINED
from models.fusion import UNCALIBRATED
from models.pdn import pdn_small, places_of
from scoring.calibration import ChannelMoments, calibrate
from scoring.fitting import HeldOut, fit_statistics
from scoring.good_images import GoodImages, described
from scoring.guard import map_error
from scoring.scorer import look
from tests.scoring.test_fitting import CPU, MAP, SIZE, made_with
from training.beginning import mean_image

STATISTICS = ("position", "composition")


def photographs(count: int = 12, seed: int = 0) -> torch.Tensor:
    """Return smooth random images, uint8 (N, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 3, 8, 10), generator=generator).float()
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear").to(torch.uint8)


@pytest.fixture(scope="module")
def ignored() -> torch.Tensor:
    pixels = torch.zeros(SIZE, dtype=torch.bool)
    pixels[:, 40:] = True
    return pixels


@pytest.fixture(scope="module")
def fitted(ignored) -> tuple[Detector, HeldOut]:
    torch.manual_seed(0)
    detector = build_detector("efficientad", "small", SIZE, pdn_small(), experts=STATISTICS).eval()
    images, moments = photographs(), ChannelMoments()
    detector.view.typical = mean_image(images)
    detector.view.ignored = ignored
    moments.add(described(detector, images, CPU))
    detector.teacher_mean, detector.teacher_std = moments.mean_std()
    good = GoodImages(detector, CPU, [(detector.view.filled(images), None)])
    held_out = fit_statistics(detector, good)
    calibrate(detector, [], SIZE, 1, CPU, held_out)
    return detector, held_out


def test_the_mean_image_is_rounded_as_by_hand():
    images = photographs(70)
    expected = np.floor(images.double().mean(0).numpy() + 0.5)
    assert np.array_equal(mean_image(images).numpy(), expected)


def test_features_are_those_of_the_filled_image(fitted, ignored):
    detector, images = fitted[0], photographs(2)
    noisy = torch.where(ignored, photographs(2, seed=5), images)
    assert torch.equal(described(detector, noisy, CPU), described(detector, images, CPU))


def test_statistics_know_one_feature_at_each_ignored_place_and_see_it_in_every_image(
    fitted, ignored
):
    detector, places = fitted[0], places_of(ignored, MAP)
    position = detector.statistics["position"]
    assert (position.mean[places.flatten()] == 0).all()
    assert (position.mean[~places.flatten()] != 0).any(1).all()
    features = described(detector, photographs(2), CPU)
    imputed = detector.imputed(features)
    assert torch.equal(imputed[..., ~places], features[..., ~places])
    assert (imputed[..., places] == 0).all()


@torch.no_grad()
def test_where_a_region_is_overlooked_the_composition_says_nothing(fitted, ignored):
    """By hand: the position's score is its largest distance at other places; theirs are weighed."""
    detector, images = deepcopy(fitted[0]), photographs(2)
    before = look(detector, images)
    detector.view.overlook(ignored.flip(1))
    found = look(detector, images)
    kept = before.raw["position"].masked_fill(detector.view.places(before.raw["position"]), 0)
    assert torch.equal(found.raw["position"], kept)
    scores = detector.scores({"position": kept, "composition": before.raw["composition"]})
    assert (found.scores["composition"] == 0).all()
    assert torch.equal(found.scores[COMBINED], scores[COMBINED])
    assert (found.scores["position"] <= before.scores["position"]).all()


def test_held_out_maps_are_0_there_but_the_compositions_sums_to_its_distance(fitted, ignored):
    maps, places = fitted[1].maps, places_of(ignored, MAP)
    assert (maps["position"][..., places] == 0).all()
    assert (maps["position"][..., ~places] > 0).all()
    assert (maps["composition"][..., places] != 0).any()
    shown = fitted[0].calibrated(maps)["composition"]
    assert (shown[..., 4:-4, 4:-4][..., places] == shown[0, 0, 0, 0]).all()  # as the frame


def test_quantiles_and_the_maps_threshold_are_of_places_that_are_looked_at(fitted, ignored):
    (detector, held_out), places = fitted, places_of(ignored, MAP)
    for name in STATISTICS:
        shown = held_out.maps[name][..., ~places].numpy()
        expected = np.quantile(shown, detector.recipe.map_quantiles)
        found = getattr(detector, f"{name}_quantiles").numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert found.tolist() != [*UNCALIBRATED]
    combined = detector.calibrated(held_out.maps)[COMBINED][..., 4:-4, 4:-4]
    expected = np.quantile(combined[..., ~places].numpy(), 0.999)
    assert detector.map_threshold.item() == pytest.approx(expected, rel=1e-5)


def test_made_defects_lie_where_something_is_looked_at(ignored):
    everywhere, seen = make_defects(photographs()), make_defects(photographs(), ignored)
    assert 10 < len(seen.images) < len(everywhere.images)
    assert not seen.masks[:, ignored].any()
    assert seen.masks.flatten(1).any(1).all()
    kept = 0
    for image, mask in zip(everywhere.images, everywhere.masks, strict=True):
        if (mask & ~ignored).sum() >= (mask & ignored).sum():  # most of it can be seen
            assert torch.equal(seen.images[kept], image)
            assert torch.equal(seen.masks[kept], mask & ~ignored)
            kept += 1
    assert kept == len(seen.images)


def test_an_ignored_place_is_neither_sound_nor_defective():
    """The map of 2 x 3 by hand: 5 is defective, and 6, as the only sound place, above it."""
    maps = torch.tensor([[1.0, 5.0, 3.0], [2.0, 4.0, 6.0]]).expand(1, 1, 2, 3)
    defects, pixels = made_with((8, 10, 10, 11)), torch.zeros(40, 44, dtype=torch.bool)
    pixels[20, 24] = True  # where the 6 has its centre
    assert map_error(maps, defects, 9, pixels) == pytest.approx(0.5 / 10)
    pixels[16, 20] = True  # and the 5
    assert map_error(maps, defects, 9, pixels) == pytest.approx(0.5)
    assert map_error(maps, defects, 9, torch.ones_like(pixels)) == pytest.approx(0.5)

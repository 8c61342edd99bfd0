"""Fitting statistics to good images: held out means held out, and few images are enough."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from data.defects import LOGICAL, STRUCTURAL, Defects
from data.images import normalise
from models.building import build_detector
from models.detector import Detector
from models.fusion import raw_score
from models.pdn import pdn_small
from scoring.calibration import ChannelMoments
from scoring.fitting import HeldOut, fit_statistics
from scoring.folds import FOLDS, OWN, SHARED, fit_folds, fold_numbers, held_out_maps
from scoring.good_images import GoodImages, described
from scoring.guard import map_error, score_error
from utils.devices import Compute

SIZE = (64, 80)  # height, width of the images, in pixels
MAP = (8, 12)  # of their maps
CPU = Compute(torch.device("cpu"))
NOTHING = torch.empty(0, 0, dtype=torch.bool)  # is ignored
NAMES = (OWN, SHARED, "composition")


def normalised_over(images: torch.Tensor) -> Detector:
    """Return a detector of both statistics around a teacher of random weights.

    Its teacher's channels have mean 0 and std 1 over the images.
    """
    torch.manual_seed(3)
    names, moments = ("position", "composition"), ChannelMoments()
    detector = build_detector("efficientad", "small", SIZE, pdn_small(), experts=names).eval()
    moments.add(described(detector, images, CPU))
    mean, std = moments.mean_std()
    detector.teacher_mean.copy_(mean)
    detector.teacher_std.copy_(std)
    return detector


def blobs(rng: np.random.Generator, sigma: float = 1.5) -> np.ndarray:
    """Draw smooth colours (H, W, 3) of mean 0 and std 1."""
    drawn = cv2.GaussianBlur(rng.normal(size=(*SIZE, 3)), (0, 0), sigma)
    return drawn / drawn.std()


def stacked(drawn: list[np.ndarray]) -> torch.Tensor:
    """Return images of grey levels (H, W, 3) as uint8 (N, 3, H, W)."""
    pixels = np.clip(np.stack(drawn), 0, 255).astype(np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def noise(count: int, seed: int = 0, strongest: float = 40) -> torch.Tensor:
    """Draw images of noise over a picture that all share, each of a strength of its own."""
    rng, picture = np.random.default_rng(seed), 40 * blobs(np.random.default_rng(77), 3)
    strengths = rng.uniform(10, strongest, count)
    return stacked([128 + picture + s * blobs(rng) for s in strengths])


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return noise(12)


@pytest.fixture(scope="module")
def detector(images) -> Detector:
    return normalised_over(images)


@pytest.fixture(scope="module")
def maps(detector, images) -> dict[str, torch.Tensor]:
    """What is found in each image by the fit that has not seen it."""
    return held_out(good_of(detector, images))


def good_of(detector: Detector, *parts: torch.Tensor, compute: Compute = CPU) -> GoodImages:
    return GoodImages(detector, compute, [(part, None) for part in parts])


def held_out(good: GoodImages) -> dict[str, torch.Tensor]:
    """Return all maps of each image by the fit that has not seen it."""
    numbers = fold_numbers(len(good.images))
    return held_out_maps(fit_folds(good, numbers), numbers, good.chunks("maps"))


def assert_close(found: torch.Tensor, expected: torch.Tensor, part: float = 1e-4) -> None:
    """Check maps to a part of what the expected ones are at most."""
    assert (found - expected).abs().max() <= part * expected.abs().max()


# Folds


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 23])
def test_folds_are_of_about_equal_size_and_drawn_alike_for_equal_counts(count):
    numbers = fold_numbers(count)
    sizes = torch.bincount(numbers)
    assert len(sizes) == min(FOLDS, count)
    assert sizes.max() - sizes.min() <= 1
    assert torch.equal(fold_numbers(count), numbers)


def test_an_image_is_held_out_of_a_fit_to_the_images_of_all_other_folds(detector, images, maps):
    numbers = fold_numbers(len(images))
    for fold in range(FOLDS):
        others = images[numbers != fold]
        by_hand = fit_folds(good_of(detector, others), torch.zeros(len(others)).long())[-1]
        expected = by_hand.maps(described(detector, images[numbers == fold], CPU))
        for name in NAMES:
            assert maps[name].shape == (len(images), 1, *MAP)
            assert_close(maps[name][numbers == fold], expected[name])


def test_an_image_says_nothing_about_those_of_its_own_fold_and_something_about_others(
    detector, images, maps
):
    folds = fold_numbers(len(images)).tolist()
    mates = [index for index, fold in enumerate(folds) if fold == folds[0]][1:]
    strangers = [index for index, fold in enumerate(folds) if fold != folds[0]]
    assert mates
    changed = images.clone()
    changed[0] = noise(1, seed=9)[0]
    after = held_out(good_of(detector, changed))
    for name in NAMES:
        assert torch.equal(maps[name][mates], after[name][mates])
        assert not any(torch.equal(maps[name][i], after[name][i]) for i in strangers)


@pytest.mark.parametrize(("name", "higher"), [(OWN, 2), (SHARED, 1.4), ("composition", 2)])
def test_an_outlier_is_by_far_the_strangest_only_while_it_is_held_out(name, higher):
    planted = noise(12, strongest=12)
    detector = normalised_over(planted)
    planted[4] = 255 - planted[4]
    good, numbers = good_of(detector, planted), fold_numbers(12)
    fits = fit_folds(good, numbers)
    held = raw_score(name, held_out_maps(fits, numbers, good.chunks("maps"))[name])
    seen = raw_score(name, fits[-1].maps(described(detector, planted, CPU))[name])
    assert held[4] > 2 * max(held[:4].max(), held[5:].max())
    assert held[4] > higher * seen[4]


def test_parts_and_chunks_of_images_are_one_set(detector, images, maps, monkeypatch):
    monkeypatch.setattr("scoring.good_images.CHUNK", 4)
    found = held_out(good_of(detector, images[:3], images[3:]))
    for name in NAMES:
        assert_close(found[name], maps[name])


# The fitted detector


def fitted(images: torch.Tensor, detector: Detector | None = None) -> tuple[Detector, HeldOut]:
    detector = normalised_over(images) if detector is None else detector
    return detector, fit_statistics(detector, good_of(detector, images))


def test_features_that_were_kept_give_the_fit_that_computing_them_gives(detector, images, maps):
    with torch.no_grad():
        own = torch.cat([detector.teacher(normalise(batch)) for batch in images.split(8)])
    own = own.permute(0, 2, 3, 1).contiguous()  # (N, h, w, C)
    kept = held_out(GoodImages(detector, CPU, [(images, own)]))
    half = held_out(GoodImages(detector, CPU, [(images[:5], own[:5]), (images[5:], None)]))
    for name in NAMES:
        assert_close(kept[name], maps[name])
        assert_close(half[name], maps[name])


def test_the_fitted_detector_scores_by_the_fit_to_all_images(images, maps):
    detector, held = fitted(images)
    features = described(detector, images, CPU)
    fit = fit_folds(good_of(detector, images), fold_numbers(len(images)))[-1].maps(features)
    way = OWN if detector.statistics["position"].own else SHARED
    for name, source in (("position", way), ("composition", "composition")):
        assert_close(detector.statistics[name](features), fit[source], 1e-5)
        assert_close(held.maps[name], maps[source], 1e-5)
        assert torch.equal(held.last(3)[name], held.maps[name][-3:])


PLAIN = torch.full((4, 3, *SIZE), 90, dtype=torch.uint8)


@pytest.mark.parametrize("good", [noise(1), noise(2), noise(3), PLAIN[:1], PLAIN])
def test_few_or_plain_good_images_are_enough_for_finite_results(good):
    detector, held = fitted(good)
    new = described(detector, noise(3, seed=1), CPU)
    for name, statistic in detector.statistics.items():
        assert len(held.maps[name]) == len(good)
        assert held.maps[name].isfinite().all()
        assert statistic(new).isfinite().all()
        assert all(0 < error < 1 for error in held.errors[name])


def test_fitting_the_same_again_is_equal_bit_for_bit(images):
    (first, held), second = fitted(images), normalised_over(images)
    for statistic in second.statistics.values():  # whatever was there
        statistic.mean.fill_(3)
        statistic.count.fill_(7)
    _, again = fitted(images, second)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert held.errors == again.errors
    assert all(torch.equal(held.maps[name], again.maps[name]) for name in held.maps)


def test_bf16_rates_held_out_images_as_full_precision_does(detector, images, maps):
    short = held_out(good_of(detector, images, compute=replace(CPU, precision="bf16")))
    for name in NAMES:
        scores = [raw_score(name, found[name]).numpy() for found in (maps, short)]
        assert not np.array_equal(*scores)
        assert np.corrcoef(*scores)[0, 1] > 0.99


# Which covariance


def textures(rng: np.random.Generator) -> torch.Tensor:
    """Draw grey surfaces of which no place is like the same place of another."""
    return stacked([128 + 30 * blobs(rng, 6)[..., :1].repeat(3, -1) for _ in range(24)])


def products(rng: np.random.Generator) -> torch.Tensor:
    """Draw one picture 24 times, up to 2 pixels aside: most varies at its edges."""
    picture = 128 + 45 * blobs(rng, 3)
    moved = [np.roll(picture, tuple(rng.integers(-2, 3, 2)), (0, 1)) for _ in range(24)]
    return stacked([shot + rng.normal(0, 2, picture.shape) for shot in moved])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("drawn", "own"), [(textures, False), (products, True)])
def test_a_texture_goes_by_the_shared_covariance_and_a_product_by_the_places_own(drawn, own, seed):
    detector, _ = fitted(drawn(np.random.default_rng(seed)))
    assert bool(detector.statistics["position"].own) == own


# Errors on made defects


def errors(good: list[float], structural: list[float], logical: list[float]) -> float:
    kinds = [STRUCTURAL] * len(structural) + [LOGICAL] * len(logical)
    return score_error(torch.tensor(good), torch.tensor(structural + logical), kinds)


@pytest.mark.parametrize("n", [1, 4, 90])
def test_the_error_of_ratings_is_one_less_the_auroc_and_half_an_error_more(n):
    good = [float(score) for score in range(n)]
    assert errors(good, [100.0, 200.0], [150.0]) == pytest.approx(0.5 / (n + 1))
    assert errors(good, [-1.0, -2.0], [-5.0]) == pytest.approx((n + 0.5) / (n + 1))


def test_equal_ratings_are_wrong_half_the_time():
    assert errors([7.0] * 7, [7.0] * 4, [7.0] * 3) == pytest.approx(0.5)


def test_the_two_kinds_of_defects_count_alike_however_many_there_are():
    good = [1.0, 2.0, 3.0, 4.0]
    assert errors(good, [9.0] * 90, [0.0]) == pytest.approx((0.5 * 4 + 0.5) / 5)
    assert errors(good, [9.0] * 90, [2.5]) == pytest.approx((0.25 * 4 + 0.5) / 5)


def made_with(*regions: tuple[int, int, int, int]) -> Defects:
    """Return a defect in rows and columns, each from, to, of 20 x 22 pixels: 2 x 2 a place."""
    masks = torch.zeros(len(regions), 20, 22, dtype=torch.bool)
    for mask, (top, bottom, left, right) in zip(masks, regions, strict=True):
        mask[top:bottom, left:right] = True
    return Defects(masks[:, None].repeat(1, 3, 1, 1).byte(), masks, [LOGICAL] * len(regions), [])


def test_the_error_of_maps_is_that_of_places_worked_by_hand():
    """A map of 2 x 3 in a frame of 4, of which nothing is known: the sound places are five.

    Of the others a defect covers a quarter of a place, too little, or some of the frame.
    """
    maps = torch.tensor([[1.0, 5.0, 3.0], [2.0, 4.0, 6.0]]).repeat(3, 1, 1, 1)
    maps[1:] *= 100
    defects = made_with((8, 10, 10, 11), (8, 9, 10, 11), (0, 6, 0, 6))
    wrong = 1 / 5  # of all pairs: 6 is above the defective place's 5
    assert map_error(maps, defects, 9, NOTHING) == pytest.approx((wrong * 9 + 0.5) / 10)
    covering = made_with((8, 9, 10, 11), (0, 6, 0, 6))
    assert map_error(maps[1:], covering, 9, NOTHING) == pytest.approx(0.5)

"""Learning from more good images: what one fit to all would be, and no image rates itself."""

import numpy as np
import pytest
import torch

from data.images import normalise
from models.building import build_detector
from models.detector import Detector
from models.experts import COMBINED, STATISTICS
from models.fusion import MAP_PADDING
from models.pdn import pdn_small
from models.statistics import EVERY
from scoring.calibration import calibrate
from scoring.fitting import HeldOut
from scoring.folds import OWN, fit_folds, fold_numbers, held_out_maps
from scoring.good_images import GoodImages, described
from scoring.learning import learn
from tests.scoring.test_fitting import CPU, SIZE, noise, normalised_over

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")
OLD, NEW = noise(14), noise(8, seed=5)
SIZES = [SIZE] * len(NEW)
RATE = 0.1


def trained(images: torch.Tensor, experts: tuple[str, ...] = STATISTICS) -> Detector:
    """Return a detector fitted to and calibrated on images, its experts counting alike."""
    detector = normalised_over(images)
    good, numbers = GoodImages(detector, CPU, [(images, None)]), fold_numbers(len(images))
    fits = fit_folds(good, numbers)
    maps = held_out_maps(fits, numbers, good.chunks("maps"))
    for name, statistic in detector.statistics.items():
        statistic.load_state_dict(getattr(fits[-1], name).state_dict())
    detector.experts = experts
    for name in set(STATISTICS) - {*experts}:
        del detector.statistics[name]
    found = {"position": maps[OWN], "composition": maps["composition"]}
    held_out = HeldOut({name: found[name] for name in experts}, dict.fromkeys(experts, (0.1, 0.1)))
    calibrate(detector, [], SIZE, 1, CPU, held_out)
    return detector


@pytest.fixture(scope="module")
def before() -> Detector:
    return trained(OLD)


@pytest.fixture
def detector(before) -> Detector:
    copy = build_detector("efficientad", "small", SIZE, pdn_small(), experts=before.experts).eval()
    copy.good_scores = torch.empty_like(before.good_scores)
    copy.load_state_dict(before.state_dict())
    for statistic in copy.statistics.values():
        statistic.prepare()  # as one that was read from its file
    return copy


def places_of(detector: Detector, images: torch.Tensor) -> np.ndarray:
    """Return features (N, places, C) in float64."""
    return described(detector, images, CPU).flatten(2).mT.double().numpy()


def close(found: torch.Tensor, expected: np.ndarray, part: float = 1e-5) -> bool:
    """Tell whether a sum is off by no more than a part of what it is at most."""
    off = np.abs(found.double().numpy() - expected).max()
    return found.shape == expected.shape and off <= part * np.abs(expected).max()


def packed_products(centred: np.ndarray) -> np.ndarray:
    """Return the upper triangles of the sums of y yᵀ, of y (N, ..., d), by numpy."""
    products = np.einsum("n...i,n...j->...ij", centred, centred)
    return products[(..., *np.triu_indices(centred.shape[-1]))]


@pytest.mark.parametrize("count", [1, 2, 8])
def test_the_statistics_become_a_fit_to_all_images_worked_in_float64(detector, count):
    learn(detector, NEW[:count], SIZES[:count], RATE, CPU)
    features = places_of(detector, torch.cat([OLD, NEW[:count]]))
    position, composition = detector.statistics["position"], detector.statistics["composition"]
    off = features - features.mean(0)
    some = off[:, ::EVERY].reshape(-1, off.shape[-1])
    turned = off @ position.basis.double().numpy()
    squares = (turned**2).sum(-1)
    assert position.count == composition.count == len(OLD) + count
    assert close(position.mean, features.mean(0))
    assert close(position.scatter, some.T @ some)
    assert close(position.products, packed_products(turned))
    assert close(position.cubes, (squares[..., None] * turned).sum(0))
    assert close(position.fourths, (squares**2).sum(0))
    summaries = np.concatenate([features.mean(1), features.std(1)], 1)
    summaries /= composition.units.double().numpy()
    off = summaries - summaries.mean(0)
    squares = (off**2).sum(-1)
    assert close(composition.mean, summaries.mean(0))
    assert close(composition.products, packed_products(off), 1e-4)  # of float32 summaries
    assert close(composition.cubes, (squares[:, None] * off).sum(0), 1e-4)
    assert close(composition.fourths, (squares**2).sum(0), 1e-4)


def test_it_scores_by_what_it_has_learnt_not_by_what_it_was_prepared_with(detector, before):
    learn(detector, NEW, SIZES, RATE, CPU)
    features = described(detector, NEW, CPU)
    for name, statistic in detector.statistics.items():
        found = statistic(features)
        statistic.prepare()
        assert torch.equal(statistic(features), found)
        assert not torch.allclose(before.statistics[name](features), found, rtol=0.1)


def test_an_image_is_rated_by_the_old_ones_and_the_other_folds_of_the_new(detector, before):
    """So what it is says nothing about those of its own fold, and something about the others."""
    found = learn(detector, NEW, SIZES, RATE, CPU)
    numbers = fold_numbers(len(NEW))
    features = described(before, NEW, CPU)
    for fold in range(int(numbers.max()) + 1):
        by_hand = {}
        for name, statistic in before.statistics.items():
            others = statistic.like(features[numbers != fold])
            others.merge(statistic)  # the other way round
            by_hand[name] = others(features[numbers == fold])
        expected = before.scores(by_hand)[COMBINED]
        torch.testing.assert_close(found.held_out[numbers == fold], expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        found.before,
        before.scores(before.distances(normalise(NEW)))[COMBINED],
        rtol=1e-3,
        atol=1e-3,
    )


def test_an_odd_image_is_less_strange_once_it_is_learnt_but_not_to_itself(detector):
    odd = NEW.clone()
    odd[3] = 255 - odd[3]
    found = learn(detector, odd, SIZES, RATE, CPU)
    seen = detector.scores(detector.distances(normalise(odd)))[COMBINED]
    assert found.held_out.argmax() == found.before.argmax() == 3
    assert seen[3] < found.held_out[3] - 1
    assert (seen < found.held_out).all()


def test_good_scores_are_added_row_by_row_and_the_units_that_they_are_in_stay(detector, before):
    found = learn(detector, NEW, SIZES, RATE, CPU)
    assert detector.good_scores.shape == (3, len(OLD) + len(NEW))
    for row, former in zip(detector.good_scores, before.good_scores, strict=True):
        assert (row.diff() >= 0).all()
        assert {*former.tolist()} < {*row.tolist()}
    union = np.sort(np.concatenate([before.good_scores[0], found.held_out]))
    np.testing.assert_array_equal(detector.good_scores[0], union)
    assert detector.threshold == union[21 - 1]  # ⌈(22 + 1) · 0.9⌉ = 21
    changed = ("good_scores", "threshold", "position_threshold", "composition_threshold")
    changed += ("map_threshold",)
    for name, tensor in before.state_dict().items():
        if name not in changed and not name.startswith("statistics."):
            assert torch.equal(detector.state_dict()[name], tensor), name
    assert torch.equal(detector.statistics["position"].basis, before.statistics["position"].basis)
    assert torch.equal(
        detector.statistics["composition"].units, before.statistics["composition"].units
    )


def test_the_maps_threshold_is_the_mean_of_old_and_new_maps_by_their_numbers(detector, before):
    learn(detector, NEW[:1], SIZES[:1], RATE, CPU)  # one alone is held out of nothing but itself
    shown = before.calibrated(before.distances(normalise(NEW[:1])))[COMBINED]
    inside = shown[..., MAP_PADDING:-MAP_PADDING, MAP_PADDING:-MAP_PADDING]
    own = np.quantile(inside.numpy(), 0.999)
    expected = (14 * before.map_threshold.item() + own) / 15
    assert detector.map_threshold.item() == pytest.approx(expected, rel=1e-4)


def test_the_same_again_is_equal_bit_for_bit(detector, before):
    first = learn(detector, NEW, SIZES, RATE, CPU)
    state = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    detector.good_scores = torch.empty_like(before.good_scores)
    detector.load_state_dict(before.state_dict())
    again = learn(detector, NEW, SIZES, RATE, CPU)
    assert torch.equal(first.held_out, again.held_out)
    assert all(torch.equal(state[name], t) for name, t in detector.state_dict().items())


def test_features_that_are_no_numbers_change_nothing(detector, before):
    detector.teacher[0].bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="--precision fp32"):
        learn(detector, NEW[:2], SIZES[:2], RATE, CPU)
    for name, tensor in before.state_dict().items():
        if name != "teacher.0.bias":
            assert torch.equal(detector.state_dict()[name], tensor), name


@pytest.mark.slow
def test_of_new_good_images_no_more_alarm_than_is_promised():
    """Over 6 draws of 10 old, 9 new and 30 later images; the promise is an average."""
    found = []
    for draw in range(6):
        old, new, later = noise(49, seed=100 + draw).split((10, 9, 30))
        detector = trained(old, ("position",))
        learn(detector, new, SIZES[:1] * len(new), RATE, CPU)
        scores = detector.scores(detector.distances(normalise(later)))[COMBINED]
        found.append((scores > detector.threshold).float().mean().item())
    assert np.mean(found) <= RATE + 2 * np.std(found) / np.sqrt(len(found))
    assert np.mean(found) > 0

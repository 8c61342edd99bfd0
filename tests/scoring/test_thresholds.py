"""Thresholds and p-values: against counting by hand, and by simulation the promise itself."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from data.samples import InputError
from models.building import build_detector
from models.detector import Detector
from models.experts import COMBINED
from scoring.thresholds import (
    good_scores,
    keep_good_scores,
    map_threshold,
    p_values,
    set_thresholds,
)
from utils.recipe import recipe_values

RATES = ("0.5", "0.3", "0.1", "0.05", "0.01", "0.003")


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build_detector("efficientad", "small", (64, 64), experts=("position", "composition"))


def keep(detector: Detector, scores, rate: float) -> None:
    """Keep the same scores for all that is rated."""
    scores = torch.as_tensor(scores, dtype=torch.float32)
    keep_good_scores(detector, dict.fromkeys(detector.rated, scores), rate)


@pytest.mark.filterwarnings("ignore:.*at best")
@pytest.mark.parametrize("text", RATES)
@pytest.mark.parametrize("count", [1, 2, 3, 9, 19, 20, 29, 99, 100, 332, 333])
def test_a_threshold_is_the_lowest_that_keeps_the_promise(detector, count, text):
    """Where any of n + 1 scores is as likely as another to be the new one."""
    scores = np.random.default_rng(count).permutation(count)
    keep(detector, scores, float(text))
    allowed = max(Fraction(text), Fraction(1, count + 1))
    exceeding = [Fraction(count - place, count + 1) for place in range(count)]  # by score
    lowest = next(score for score, part in enumerate(exceeding) if part <= allowed)
    assert detector.threshold.item() == detector.position_threshold.item() == lowest


def test_what_is_kept_rises_and_each_rated_thing_has_its_own(detector):
    rng = np.random.default_rng(0)
    good = {name: torch.from_numpy(rng.normal(size=40)).float() for name in detector.rated}
    keep_good_scores(detector, good, 0.1)
    assert detector.rated == (COMBINED, "position", "composition")
    for row, scores in zip(detector.good_scores, good.values(), strict=True):
        assert row.tolist() == sorted(scores.tolist())
    assert detector.position_threshold == good["position"].sort().values[36]  # of 41, 4.1 above
    assert detector.composition_threshold == good["composition"].sort().values[36]


def test_p_values_are_those_of_counting_and_below_a_rate_only_above_its_threshold(detector):
    rng = np.random.default_rng(1)
    good = rng.integers(0, 30, 57).astype(float)  # with ties
    new = np.arange(-1, 32, 0.5)
    for rate in (0.02, 0.1, 0.37):
        keep(detector, good, rate)
        found = p_values(good_scores(detector), torch.from_numpy(new))
        assert found.tolist() == [(1 + (good >= score).sum()) / 58 for score in new]
        anomalous = new > detector.threshold.item()
        assert ((found.numpy() <= rate) == anomalous).all()


@pytest.mark.parametrize("count", [10, 20, 50])
def test_of_good_images_no_more_are_called_anomalous_than_was_promised(detector, count):
    """Over 4,000 calibrations with heavy tails; the plain quantile of 20 would err in 9 %."""
    rng, rate = np.random.default_rng(count), 0.1
    scores = rng.standard_t(2, (4000, count + 50))
    found = []
    for row in scores:
        keep(detector, row[:count], rate)
        found.append((row[count:] > detector.threshold.item()).mean())
    promised = (count - int(np.ceil((count + 1) * 0.9)) + 1) / (count + 1)
    assert np.mean(found) == pytest.approx(promised, abs=4 * np.std(found) / 4000**0.5)
    assert promised <= rate


def test_too_few_good_images_say_what_they_promise_and_how_many_it_takes(detector, recwarn):
    assert set_kept(detector, 3, 0.05) == 0.25
    assert set_kept(detector, 1, 0.01) == 0.5
    assert set_kept(detector, 19, 0.05) == 0.05
    assert [str(warning.message) for warning in recwarn] == [
        "3 held-out good images promise a false-alarm rate of 0.25 at best, and that is used: "
        "0.05 takes 19",
        "1 held-out good image promises a false-alarm rate of 0.5 at best, and that is used: "
        "0.01 takes 99",
    ]


def set_kept(detector: Detector, count: int, rate: float) -> float:
    """Return what `count` good images keep of a rate, after a calibration by another."""
    keep(detector, range(count), 0.9)
    return set_thresholds(detector, rate)


def test_a_detector_without_scores_has_no_p_values_and_takes_no_other_rate():
    detector = build_detector("efficientad", "small", (64, 64))
    assert p_values(good_scores(detector), torch.zeros(3)) is None
    with pytest.raises(InputError, match=r"x\.safetensors is of an earlier version, .* leave"):
        set_thresholds(detector, 0.1, "x.safetensors")
    detector.threshold.fill_(0.5)
    detector.map_threshold.fill_(0.25)
    assert map_threshold(detector) == 0.25
    detector.map_threshold.fill_(float("nan"))  # as `read_detector` finds it in such a file
    assert map_threshold(detector) == 0.5


def test_the_rate_is_a_number_of_the_recipe(detector):
    assert recipe_values(detector.recipe)["false_alarm_rate"] == 0.05

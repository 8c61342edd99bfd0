"""Image-level metrics: against loops over pairs and thresholds, and cases worked out by hand."""

import json
from fractions import Fraction
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.image_metrics import auroc, average_precision, f1_max, mean

METRICS = (auroc, average_precision, f1_max)


def pairs_in_order(labels: list[int], scores: list[float]) -> Fraction:
    """Return the share of (good, bad) pairs in which the bad one scores higher; a tie is half."""
    good = [score for label, score in zip(labels, scores, strict=True) if not label]
    bad = [score for label, score in zip(labels, scores, strict=True) if label]
    halves = sum(2 * (b > g) + (b == g) for g in good for b in bad)
    return Fraction(halves, 2 * len(good) * len(bad))


def decisions(labels: list[int], scores: list[float]) -> list[tuple[int, int, int]]:
    """Return (hits, false alarms, misses) of every threshold, the highest first."""
    found = []
    for threshold in sorted(set(scores), reverse=True):
        called = [score >= threshold for score in scores]
        hits = sum(c and bool(label) for c, label in zip(called, labels, strict=True))
        found.append((hits, sum(called) - hits, sum(labels) - hits))
    return found


def precision_weighted_by_recall(labels: list[int], scores: list[float]) -> Fraction:
    """Return the sum of precision times the step in recall over all thresholds."""
    total, before = Fraction(0), 0
    for hits, alarms, misses in decisions(labels, scores):
        total += Fraction(hits, hits + alarms) * Fraction(hits - before, hits + misses)
        before = hits
    return total


def best_f1(labels: list[int], scores: list[float]) -> Fraction:
    return max(
        Fraction(2 * hits, 2 * hits + alarms + misses)
        for hits, alarms, misses in decisions(labels, scores)
    )


@st.composite
def two_classes(draw) -> tuple[list[int], list[float]]:
    """Draw labels of both kinds, and scores with many ties or none."""
    labels = draw(st.permutations([0, 1, *draw(st.lists(st.integers(0, 1), max_size=18))]))
    plateaus = st.sampled_from([-1.0, 0.0, 0.1, 0.5])
    values = draw(st.sampled_from([plateaus, st.floats(-1e3, 1e3, width=32)]))
    count = len(labels)
    return labels, draw(st.lists(values, min_size=count, max_size=count))


@settings(deadline=None)
@given(two_classes())
def test_auroc_is_the_share_of_pairs_in_order(case):
    assert auroc(*case) == pytest.approx(float(pairs_in_order(*case)), abs=1e-12)


@settings(deadline=None)
@given(two_classes())
def test_average_precision_weighs_each_thresholds_precision_by_its_step_in_recall(case):
    expected = float(precision_weighted_by_recall(*case))
    assert average_precision(*case) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(two_classes())
def test_f1_max_is_the_best_of_all_thresholds(case):
    assert f1_max(*case) == pytest.approx(float(best_f1(*case)), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.1, 0.4, 0.35, 0.8], (3 / 4, (1 + 2 / 3) / 2, 4 / 5)),
        ([0.1, 0.2, 0.3, 0.4], (1, 1, 1)),
        ([0.4, 0.3, 0.2, 0.1], (0, (1 / 3 + 2 / 4) / 2, 2 / 3)),
        ([0.5, 0.5, 0.5, 0.5], (1 / 2, 1 / 2, 2 / 3)),
        ([0.1, 0.4, 0.4, 0.8], (7 / 8, (1 + 2 / 3) / 2, 4 / 5)),
    ],
    ids=["one pair of four wrong", "perfect", "reversed", "constant", "a tie"],
)
def test_two_good_and_two_bad_images_have_the_numbers_worked_out_by_hand(scores, expected):
    found = [metric([0, 0, 1, 1], scores) for metric in METRICS]
    assert found == pytest.approx(expected, abs=1e-12)


def test_metrics_depend_on_the_order_of_scores_alone():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 60).tolist(), rng.normal(size=60).round(1)
    for metric in METRICS:
        expected = metric(labels, scores.tolist())
        assert 0 < expected < 1
        assert metric(labels, (0.5 + scores * 1e-9).tolist()) == pytest.approx(expected, abs=1e-12)
        assert metric(labels[::-1], np.exp(scores)[::-1].tolist()) == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("labels", [[], [0], [1], [0, 0, 0], [1, 1]])
def test_without_both_classes_there_is_no_number(metric, labels):
    assert metric(labels, [0.5 + 0.1 * i for i in range(len(labels))]) is None


def test_metrics_are_plain_numbers_that_json_keeps():
    labels, scores = [0, 1, 1, 0], np.array([0.1, 0.2, 0.05, 0.3], np.float32)
    found = [metric(labels, scores) for metric in METRICS] + [mean([np.float64(0.25), 0.5])]
    assert json.loads(json.dumps(found)) == found


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_mean_is_that_of_the_standard_library(values):
    assert mean(values) == pytest.approx(fmean(values), abs=1e-12)


@pytest.mark.parametrize("values", [[], [None], [0.5, None], [None, 0.5, 1.0]])
def test_a_mean_over_nothing_or_with_a_gap_is_no_number(values):
    assert mean(values) is None


def test_zero_is_a_number_like_others():
    assert mean([0.0, 0.0]) == 0.0
    assert mean([0.0, 1.0]) == 0.5

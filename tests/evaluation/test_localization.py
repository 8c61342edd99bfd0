"""Pixel metrics: against a twin that loops over all thresholds, scikit-learn, and by hand."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from evaluation import pixels
from evaluation.localization import CURVE_ERROR, CURVE_POINTS, localize
from evaluation.protocol import SPRO_LIMITS

SUBSETS = {"a": ("good", "a"), "b": ("good", "b"), "all": ("good", "a", "b")}


@dataclass
class Case:
    """One image: its map, its regions as (mask, saturation), its group."""

    scores: np.ndarray  # float32 (H, W)
    regions: list[tuple[np.ndarray, int]]
    group: str


def measure(cases: list[Case], subsets=SUBSETS, limits=SPRO_LIMITS, workers: int = 2):
    def read_regions(index: int):
        return [(np.flatnonzero(mask), k) for mask, k in cases[index].regions]

    groups = [case.group for case in cases]
    return localize(lambda i: cases[i].scores, read_regions, groups, subsets, limits, workers)


# The twin: thresholds in a loop, the curve's points one by one.


def twin_curve(cases: list[Case]) -> list[tuple[float, float]] | None:
    """Return (FPR, mean sPRO) for every distinct threshold; None without regions or negatives."""
    outside = [
        ~np.logical_or.reduce([np.zeros(case.scores.shape, bool), *(m for m, _ in case.regions)])
        for case in cases
    ]
    negatives = sum(int(mask.sum()) for mask in outside)
    regions = [(case.scores[mask], k) for case in cases for mask, k in case.regions]
    if not negatives or not regions:
        return None
    curve = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([c.scores.ravel() for c in cases]))[::-1]:
        false = sum(
            int((case.scores[mask] >= threshold).sum())
            for case, mask in zip(cases, outside, strict=True)
        )
        found = [min(int((scores >= threshold).sum()) / k, 1.0) for scores, k in regions]
        curve.append((false / negatives, sum(found) / len(found)))
    return curve


def twin_area(curve: list[tuple[float, float]], limit: float) -> float:
    """Return the area under straight lines between the points, cut at the limit."""
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            height = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + height) / 2
    return area / limit


def pooled(cases: list[Case]) -> tuple[np.ndarray, np.ndarray]:
    """Return every pixel's label and score."""
    masks = [[mask.ravel() for mask, _ in case.regions] for case in cases]
    nothing = [np.zeros(case.scores.size, bool) for case in cases]
    labels = [np.logical_or.reduce([n, *m]) for n, m in zip(nothing, masks, strict=True)]
    return np.concatenate(labels), np.concatenate([case.scores.ravel() for case in cases])


def assert_equals_twin(cases: list[Case]) -> None:
    results = measure(cases)
    for subset, members in SUBSETS.items():
        curve = twin_curve([case for case in cases if case.group in members])
        if curve is None:
            assert results[subset] is None
            continue
        for limit in SPRO_LIMITS:
            expected = twin_area(curve, limit)
            assert results[subset].areas[limit] == pytest.approx(expected, abs=1e-9)
        labels, scores = pooled([case for case in cases if case.group in members])
        expected = roc_auc_score(labels, scores)
        assert results[subset].pixel_auroc == pytest.approx(expected, abs=1e-9)


@st.composite
def images(draw) -> Case:
    """Draw an image with up to three regions, few or many different scores."""
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    size = height * width
    plateaus = st.sampled_from([-1.5, 0.0, 0.25, 0.5, 3.0])
    values = draw(st.sampled_from([plateaus, st.floats(-2, 2, width=32)]))
    scores = draw(st.lists(values, min_size=size, max_size=size))
    regions = []
    for _ in range(draw(st.integers(0, 3))):
        chosen = draw(st.sets(st.integers(0, size - 1), min_size=1))
        mask = np.zeros(size, bool)
        mask[list(chosen)] = True
        regions.append((mask.reshape(height, width), draw(st.integers(1, len(chosen)))))
    group = draw(st.sampled_from(["a", "b"])) if regions else draw(st.sampled_from(["good", "a"]))
    return Case(np.array(scores, np.float32).reshape(height, width), regions, group)


@given(st.lists(images(), min_size=1, max_size=5))
@settings(deadline=None, max_examples=200)
def test_every_metric_of_every_subset_is_that_of_a_loop_over_all_thresholds(cases):
    assert_equals_twin(cases)


@pytest.mark.parametrize("memory", [1, 3, 10])
@given(cases=st.lists(images(), min_size=1, max_size=5))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_little_memory_changes_nothing(memory, cases, monkeypatch):
    monkeypatch.setattr(pixels, "NEGATIVES_IN_MEMORY", memory)
    monkeypatch.setattr(pixels, "SAMPLE", 1)
    monkeypatch.setattr(pixels, "CHUNK", 2)
    assert_equals_twin(cases)


def noisy(count: int, size: tuple[int, int] = (60, 70), seed: int = 0) -> list[Case]:
    """Make images whose defects are brighter than the rest, most of the time."""
    rng = np.random.default_rng(seed)
    cases = [Case(rng.normal(size=size).astype(np.float32), [], "good") for _ in range(count)]
    for index in range(count):
        scores = rng.normal(size=size).astype(np.float32)
        mask = np.zeros(size, bool)
        mask[5 : 25 + index, 10:40] = True
        scores[mask] += rng.exponential(2, mask.sum()).astype(np.float32)
        other = np.zeros(size, bool)
        other[20:40, 30:50] = True
        cases.append(Case(scores, [(mask, 300), (other, int(other.sum()))], "ab"[index % 2]))
    return cases


def test_pixel_auroc_is_scikit_learns():
    cases = noisy(6)
    labels, scores = pooled(cases)
    assert measure(cases)["all"].pixel_auroc == pytest.approx(roc_auc_score(labels, scores), 1e-9)


def test_pro_of_all_pixels_as_one_region_is_scikit_learns_partial_auroc():
    """With one region that must be found whole, PRO is the true positive rate."""
    rng = np.random.default_rng(1)
    scores = np.round(rng.normal(size=(50, 50)), 1).astype(np.float32)  # with ties
    mask = rng.random((50, 50)) < 0.2
    scores[mask] += 1
    case = Case(scores, [(mask, int(mask.sum()))], "a")
    fpr, tpr, _ = roc_curve(mask.ravel(), scores.ravel(), drop_intermediate=False)
    for limit in (0.05, 0.3, 1.0):
        at = np.union1d(fpr[fpr <= limit], [limit])
        # np.interp takes the last of several points at one rate, so walk the steps up by hand
        expected = sum(
            (x1 - x0) * (np.interp(x0 + 1e-12, fpr, tpr) + np.interp(x1 - 1e-12, fpr, tpr)) / 2
            for x0, x1 in itertools.pairwise(at)
        )
        found = measure([case], limits=(limit,))["a"].areas[limit]
        assert found == pytest.approx(expected / limit, abs=1e-8)


@pytest.mark.parametrize(
    ("inside", "outside", "expected"),
    [(1.0, 0.0, lambda limit: 1.0), (0.0, 1.0, lambda limit: 0.0), (5, 5, lambda limit: limit / 2)],
    ids=["perfect", "reversed", "constant"],
)
def test_perfect_reversed_and_constant_maps_have_the_areas_worked_out_by_hand(
    inside, outside, expected
):
    mask = np.zeros((8, 9), bool)
    mask[2:5, 3:7] = True
    scores = np.where(mask, inside, outside).astype(np.float32)
    cases = [Case(scores, [(mask, 6)], "a"), Case(np.full((8, 9), outside, "f4"), [], "good")]
    found = measure(cases)["a"]
    for limit in SPRO_LIMITS:
        assert found.areas[limit] == pytest.approx(expected(limit), abs=1e-12)
    assert found.pixel_auroc == pytest.approx(expected(1.0))


def test_half_of_a_saturation_area_found_first_is_worth_a_half():
    """Of 8 pixels 4 are enough: 2 above all negatives, 6 below all of them."""
    mask = np.zeros((4, 10), bool)
    mask[:2, :4] = True
    scores = np.full((4, 10), 0.5, np.float32)
    scores[mask] = 0.0
    scores[0, :2] = 1.0
    found = measure([Case(scores, [(mask, 4)], "a")])["a"]
    # the negatives are one plateau: the curve lies at 1/2 over all rates
    assert all(area == pytest.approx(0.5) for area in found.areas.values())
    assert found.pixel_auroc == pytest.approx(2 / 8)


def test_each_subset_has_its_own_negatives():
    mask = np.zeros((2, 2), bool)
    mask[0, 0] = True
    worse = Case(np.array([[1, 9], [9, 9]], np.float32), [(mask, 1)], "a")
    better = Case(np.array([[2, 0], [0, 0]], np.float32), [(mask, 1)], "b")
    results = measure([worse, better])
    assert results["a"].pixel_auroc == 0.0
    assert results["b"].pixel_auroc == 1.0
    # of 6 negatives 3 are above both pixels: half of the rates, at full height from there on
    assert results["all"].areas[1.0] == pytest.approx(0.5)


def test_a_subset_that_is_absent_has_no_number():
    cases = noisy(2)
    without_b = [case for case in cases if case.group != "b"]
    assert measure(without_b)["b"] is None
    mask = np.ones((2, 2), bool)
    only_defect = Case(np.ones((2, 2), np.float32), [(mask, 4)], "a")
    assert measure([only_defect])["a"] is None


def test_the_order_of_images_and_the_number_of_workers_change_nothing():
    cases = noisy(5)
    results = measure(cases, workers=1)
    assert measure(cases, workers=3) == results
    backwards = measure(cases[::-1])
    for subset, result in results.items():
        assert backwards[subset].areas == pytest.approx(result.areas, abs=1e-12)
        assert backwards[subset].pixel_auroc == pytest.approx(result.pixel_auroc, abs=1e-12)


def test_what_does_not_fit_into_memory_is_read_again(monkeypatch):
    cases, reads = noisy(4), []
    monkeypatch.setattr(pixels, "SAMPLE", 7)
    whole = measure(cases)["all"]
    negatives = int((~pooled(cases)[0]).sum())
    monkeypatch.setattr(pixels, "NEGATIVES_IN_MEMORY", negatives // 3)
    groups = [case.group for case in cases]

    def read_map(index: int) -> np.ndarray:
        reads.append(index)
        return cases[index].scores

    def read_regions(index: int):
        return [(np.flatnonzero(mask), k) for mask, k in cases[index].regions]

    again = localize(read_map, read_regions, groups, SUBSETS, SPRO_LIMITS, 2)["all"]
    assert again.areas == pytest.approx(whole.areas, abs=1e-12)
    assert 3 <= len(reads) / len(cases) <= 6


def test_many_plateaus_as_of_8_bit_maps_are_exact(monkeypatch):
    monkeypatch.setattr(pixels, "NEGATIVES_IN_MEMORY", 2000)
    monkeypatch.setattr(pixels, "SAMPLE", 5)
    monkeypatch.setattr(pixels, "CHUNK", 50)
    cases = noisy(3, size=(40, 60))
    for case in cases:
        case.scores = np.clip(np.round(case.scores * 3), -5, 9).astype(np.float32)
    assert_equals_twin(cases)


# The curve


def distance_to(point: tuple[float, float], curve: np.ndarray) -> float:
    """Return |dx| + |dy| from a point to straight lines between a rising curve's points."""
    x, y = point
    best = np.inf
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        for share in np.linspace(0, 1, 11):
            best = min(best, abs(x0 + share * (x1 - x0) - x) + abs(y0 + share * (y1 - y0) - y))
    return best


def test_the_curve_is_thin_rises_from_0_to_1_and_stays_close_to_the_exact_one():
    cases = noisy(3, size=(30, 40))
    curve = np.array(measure(cases)["all"].curve)
    exact = twin_curve(cases)
    assert 50 < len(curve) <= CURVE_POINTS < len(exact)
    assert (np.diff(curve, axis=0) >= 0).all()
    assert tuple(curve[0]) == (0, 0)
    assert curve[-1] == pytest.approx([1, 1])
    for point in exact[:: len(exact) // 150]:
        assert distance_to(point, curve) <= CURVE_ERROR + 1e-9


def test_every_point_of_the_thinned_curve_is_on_the_exact_one():
    cases = noisy(3, size=(30, 40))
    exact = np.array(twin_curve(cases))
    for x, y in measure(cases)["all"].curve:
        after = int(np.searchsorted(exact[:, 0] + exact[:, 1], x + y - 1e-9))
        (x0, y0), (x1, y1) = exact[max(after - 1, 0)], exact[after]
        assert (x - x0) * (y1 - y0) == pytest.approx((y - y0) * (x1 - x0), abs=1e-9)


def test_a_constant_maps_curve_is_the_diagonal():
    mask = np.zeros((5, 5), bool)
    mask[1:3, 1:3] = True
    curve = measure([Case(np.zeros((5, 5), np.float32), [(mask, 4)], "a")])["a"].curve
    assert curve == [(0, 0), (1, 1)]

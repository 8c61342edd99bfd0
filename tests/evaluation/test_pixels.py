"""Labels, false positives and the worked example of evaluation/pixels.py, all by hand."""

import numpy as np
import pytest

from evaluation import pixels
from evaluation.labels import LabelledPixels
from evaluation.localization import localize
from evaluation.pixels import Negatives, PixelCounts

# The worked example: its region's scores, of which 2 saturate it, and its negatives.
EXAMPLE = np.array([[9, 7, 5, 2], [8, 7, 3, 1]], np.float32)
REGION = [(np.arange(4), 2)]


@pytest.fixture(params=[None, 2], ids=["one pass", "two passes"])
def passes(request, monkeypatch):
    """Leave memory for all negatives, or for two: what the example says of both must hold."""
    if request.param:
        monkeypatch.setattr(pixels, "NEGATIVES_IN_MEMORY", request.param)
        monkeypatch.setattr(pixels, "SAMPLE", 1)


@pytest.mark.usefixtures("passes")
def test_the_worked_examples_false_positives_and_gains_are_counted():
    counts = PixelCounts(lambda _: EXAMPLE, lambda _: REGION, [0])
    parts = list(counts.count_false_positives(lambda thresholds: thresholds, 1, "example"))
    rows = [
        row
        for part in parts
        for row in zip(part.scores, part.gains, part.fp_above[0], part.fp_at[0], strict=True)
    ]
    assert rows == [(9, 1 / 2, 0, 0), (7, 1 / 2, 1, 2), (5, 0, 2, 2), (2, 0, 3, 3)]
    assert (counts.negatives, counts.positives, counts.regions) == ([4], [4], [1])


@pytest.mark.usefixtures("passes")
def test_the_worked_examples_curve_and_areas_are_those_found_by_hand():
    found = localize(
        lambda _: EXAMPLE, lambda _: REGION, ["a"], {"a": ("a",)}, limits=(1.0, 3 / 8), workers=1
    )["a"]
    assert found.curve == [(0, 0), (0, 1 / 2), (1 / 4, 1 / 2), (1 / 2, 1), (3 / 4, 1), (1, 1)]
    assert found.areas == pytest.approx({1.0: 13 / 16, 3 / 8: 13 / 24})
    assert found.pixel_auroc == pytest.approx(19 / 32)


def test_with_memory_for_two_negatives_the_example_takes_two_passes(monkeypatch):
    monkeypatch.setattr(pixels, "NEGATIVES_IN_MEMORY", 2)
    monkeypatch.setattr(pixels, "SAMPLE", 1)
    reads = []

    def read_map(index: int) -> np.ndarray:
        reads.append(index)
        return EXAMPLE

    counts = PixelCounts(read_map, lambda _: REGION, [0])
    parts = counts.count_false_positives(lambda part: (len(reads), *part.scores), 1, "example")
    assert list(parts) == [(1, 9), (1, 7), (2, 5), (2, 2)]


def test_the_pixels_that_saturate_a_region_gain_and_overlaps_add_up():
    scores = np.array([6, 5, 4, 3, 2, 1], np.float32)
    regions = [(np.array([0, 1, 2]), 2), (np.array([1, 2, 3, 4]), 4)]
    labelled = LabelledPixels.of(scores, regions)
    assert labelled.scores.tolist() == [2, 3, 4, 5, 6]
    # 4 is the first region's third: two are enough. 5 is among the best of both regions.
    gains = labelled.gain_values[labelled.gain_index]
    assert gains.tolist() == [1 / 4, 1 / 4, 1 / 4, 1 / 2 + 1 / 4, 1 / 2]
    assert (labelled.regions, labelled.negatives) == (2, 1)
    assert labelled.negatives_of(scores).tolist() == [1]


def test_an_image_without_regions_has_negatives_alone():
    scores = np.array([3, 1, 2], np.float32)
    labelled = LabelledPixels.of(scores, [])
    assert (len(labelled.scores), labelled.regions, labelled.negatives) == (0, 0, 3)
    assert labelled.negatives_of(scores).tolist() == [3, 1, 2]


def test_equal_scores_share_a_threshold_and_add_their_gains():
    scores = np.array([2, 2, 5, 2, 9], np.float32)
    labelled = LabelledPixels.of(scores, [(np.array([0, 1, 2, 3]), 2)])
    columns = labelled.thresholds(slice(0, 4), distinct=True)
    # of the three at 2 one is among the region's two highest
    assert [column.tolist() for column in columns] == [[2, 5], [3, 1], [1 / 2, 1 / 2]]


def test_a_plateau_at_the_ceiling_is_counted_where_it_is_above_or_tied():
    """Of 12 negatives 5 are above the ceiling 4, 3 at it; 3, 2, 2 and 1 are below."""
    negatives = Negatives(np.array([1, 2, 2, 3], np.float32), 4.0, above_ceiling=5, at_ceiling=3)
    above, at = negatives.false_positives(np.array([2, 2.5, 3, 4], np.float32))
    assert above.tolist() == [9, 9, 8, 5]
    assert at.tolist() == [11, 9, 9, 8]
    assert [part.tolist() for part in negatives.false_positives(np.empty(0, np.float32))] == [
        [],
        [],
    ]

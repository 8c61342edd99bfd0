"""A run's key figures say what was found, what was promised, and where a threshold is poor."""

import numpy as np
import pytest

from data.samples import ANOMALOUS
from evaluation.results import UNLABELLED, ImageResult
from reporting.collected import Evaluated, collect
from reporting.figures import chance_of, defects, figures

COOKIES = {"good": [0.0, 0.1, 0.2, 0.9], "burnt": [0.5, 0.6, 0.7, 0.8], "cut": [0.5, 0.95]}


@pytest.fixture
def evaluated(make_output, tmp_path):
    def evaluate(scores: dict[str, list[float]], threshold: float) -> Evaluated:
        make_output(tmp_path, scores, threshold)
        (one,), faults = collect([tmp_path])
        assert not faults
        return one

    return evaluate


def said(one: Evaluated, warning: bool) -> str:
    return " ".join(figure.text for figure in figures(one) if figure.warning == warning)


def test_images_of_the_validation_and_those_that_set_the_threshold_are_told_apart(evaluated):
    one = evaluated(COOKIES, 0.9)
    assert "Trained on 99 good images, with 10 validation images." in said(one, False)
    for experts, how in (("position", ", each held out in turn (cross-fitting)"), ("student", "")):
        one.metrics["glae"] |= {"held_out": 109, "experts": {experts: {}}}
        set_by = f"validation images; the threshold is set by 109 held-out good images{how}."
        assert set_by in said(one, False)


def test_few_defects_above_the_threshold_are_told_where_the_auroc_is_high(evaluated):
    one = evaluated(COOKIES | {"good": [0.0, 0.1, 0.2, 0.3]}, 0.9)
    assert "finds 1 of 6 (16.7 %) defects" in said(one, False)
    assert "(AUROC 100.0 %), yet few" in said(one, True)


@pytest.mark.parametrize(
    ("scores", "threshold"),
    [
        (COOKIES | {"good": [0.0, 0.1, 0.2, 0.3]}, 0.55),
        ({"good": [0.0, 0.9], "burnt": [0.0, 0.9]}, 0.95),
    ],
    ids=["most are found", "scores tell nothing"],
)
def test_nothing_is_told_where_the_threshold_does_what_scores_allow(evaluated, scores, threshold):
    assert "yet few" not in said(evaluated(scores, threshold), True)


@pytest.mark.parametrize(
    ("alarms", "text", "warning"),
    [
        (
            1,
            "False alarms: 1 of 20 (5.0 %) good test images; at most 5.0 % are promised, and kept.",
            False,
        ),
        (
            2,
            "2 of 20 (10.0 %) good test images; at most 5.0 % are promised: in keeping with it",
            False,
        ),
        (
            5,
            "5 of 20 (25.0 %) good test images; at most 5.0 % are promised: more than chance",
            True,
        ),
    ],
)
def test_false_alarms_are_held_against_the_promise(evaluated, alarms, text, warning):
    assert text in said(evaluated({"good": alarms * [2.0] + (20 - alarms) * [0.0]}, 1.0), warning)


def test_the_chance_of_false_alarms_is_that_of_drawn_calibrations():
    rng, n, k, good = np.random.default_rng(0), 9, 2, 6
    kept = np.sort(rng.random((100_000, n)), 1)
    alarms = (rng.random((100_000, good)) > kept[:, [n - k]]).sum(1)  # k of n + 1 reach it
    for number in range(1, good + 1):
        drawn = (alarms >= number).mean()
        assert chance_of(number, good, k / (n + 1), n) == pytest.approx(drawn, abs=0.005)


def test_each_kind_of_defect_has_its_images_and_its_auroc(evaluated):
    rows = {row.name: row.cells for row in defects(evaluated(COOKIES, 0.55))}
    assert rows == {
        "burnt": ["4", "3", "75.0", "–", "80.0"],  # each above three of four good ones
        "cut": ["2", "1", "87.5", "–", "80.0"],  # above three, and above four
    }


def test_a_product_without_labels_has_its_verdicts_counted(evaluated):
    one = evaluated({"good": [0.0]}, 1.0)
    new = [ImageResult(f"new/{n}", UNLABELLED, "new", n, None, ANOMALOUS, 0.1, {}) for n in (3, 4)]
    text = said(Evaluated(one.run, one.metrics, new), False)
    assert "Of 2 images without a label, 2 are above the threshold." in text
    assert "There is no AUROC" in text

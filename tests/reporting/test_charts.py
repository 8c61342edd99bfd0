"""The data of charts: curves, calibration and promises are those of a count by hand."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sklearn.metrics import auc

from data.samples import ANOMALOUS, GOOD
from evaluation.results import TEST, UNLABELLED, ImageResult
from models.experts import COMBINED
from reporting.charts import chart_data, held_out_scores
from reporting.collected import Evaluated, collect
from scoring.thresholds import keep_good_scores
from tests.conftest import disagreeing_detector
from utils.runs import Run


def of_scores(make_output, output, scores: dict[str, list[float]], threshold: float) -> Evaluated:
    make_output(output, scores, threshold)
    return collect([output])[0][0]


def keep(one: Evaluated, kept: list[float]) -> None:
    """Write a detector that has kept held-out good images' scores, and what it promised."""
    one.run.detector_file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"good_scores": np.array([kept, kept], np.float32)}, one.run.detector_file)
    above = sum(score > one.metrics["glae"]["threshold"] for score in kept)
    one.metrics["glae"]["false_alarm_rate"] = (1 + above) / (len(kept) + 1)


def rates_by_hand(good: list[float], bad: list[float]) -> list[list[float]]:
    """Count (FPR, TPR) at every threshold."""
    thresholds = [np.inf, *sorted({*good, *bad}, reverse=True)]
    return [[np.mean(np.array(of) >= t) for of in (good, bad)] for t in thresholds]


def test_roc_curves_go_through_every_corner_of_the_count_by_hand(make_output, tmp_path):
    rng = np.random.default_rng(1)
    scores = {"good": rng.normal(0, 1, 30).round(1), "dent": rng.normal(1, 1, 20).round(1)}
    scores = {name: of.tolist() for name, of in scores.items()}  # some equal
    pooled, dent = chart_data(of_scores(make_output, tmp_path, scores, 1.0))["roc"]
    exact = np.array(rates_by_hand(scores["good"], scores["dent"]))
    points = np.array(pooled["points"])
    assert (pooled["name"], dent["name"]) == (None, "dent")
    assert all(np.abs(exact - point).max(1).min() < 1e-6 for point in points)
    assert auc(*points.T) == pytest.approx(pooled["areas"][0], abs=1e-6)


def test_a_long_roc_curve_is_thinned_to_what_can_be_seen(make_output, tmp_path):
    rng = np.random.default_rng(2)
    scores = {"good": rng.normal(0, 1, 5000).tolist(), "dent": rng.normal(1, 1, 5000).tolist()}
    (pooled, _) = chart_data(of_scores(make_output, tmp_path, scores, 1.0))["roc"]
    points = np.array(pooled["points"])
    assert len(points) <= 1002
    assert auc(*points.T) == pytest.approx(pooled["areas"][0], abs=1e-3)


def test_scores_next_to_each_other_in_float32_stay_apart(make_output, tmp_path):
    threshold = np.float32(1.1720923)
    scores = [float(np.nextafter(threshold, np.float32(end))) for end in (0, 2)]
    one = of_scores(make_output, tmp_path, {"good": scores}, float(threshold))
    data = chart_data(one)
    low, high = data["groups"][0]["scores"]
    assert low < data["threshold"] < high


def test_the_first_row_of_what_a_detector_keeps_is_the_combined_score(make_output, tmp_path):
    one = of_scores(make_output, tmp_path, {"good": [0.0]}, 2.0)
    detector = disagreeing_detector("efficientad", (64, 64))
    kept = {
        name: torch.tensor([3.0, 1.0, 2.0]) + index for index, name in enumerate(detector.rated)
    }
    assert torch.equal(kept[COMBINED], torch.tensor([3.0, 1.0, 2.0]))
    keep_good_scores(detector, kept, 0.5)
    keep(one, [1.0])
    save_file({"good_scores": detector.good_scores.numpy()}, one.run.detector_file)
    one.metrics["glae"]["false_alarm_rate"] = 2 / 4
    assert held_out_scores(one, 2.0).tolist() == [1, 2, 3]


@pytest.mark.parametrize("what", ["another", "damaged", "earlier", "missing", "nan"])
def test_held_out_scores_of_no_or_another_detector_are_not_shown(make_output, tmp_path, what):
    one = of_scores(make_output, tmp_path, {"good": [0.0]}, 2.0)
    keep(one, [1.0, 2.0, 3.0])
    path = one.run.detector_file
    assert len(held_out_scores(one, 2.0)) == 3
    if what == "another":  # or an exact one, calibrated again
        save_file({"good_scores": np.array([[1, 2, 2, 3]], np.float32)}, path)
    elif what == "damaged":
        path.write_bytes(path.read_bytes()[:-3])
    elif what == "earlier":
        save_file({"threshold": np.float32([2])}, path)
    elif what == "missing":
        path.unlink()
    else:
        save_file({"good_scores": np.array([[1, np.nan, 3]], np.float32)}, path)
    assert len(held_out_scores(one, 2.0)) == 0
    assert [group["kind"] for group in chart_data(one)["groups"]] == ["good"]


def with_p(one: Evaluated, p_values: list[float | None]) -> Evaluated:
    results = [r._replace(p_value=p) for r, p in zip(one.results, p_values, strict=True)]
    return dataclasses.replace(one, results=results)


def test_calibration_counts_the_good_images_with_a_p_value_of_at_most_the_rate(
    make_output, tmp_path
):
    one = of_scores(make_output, tmp_path, {"good": [3.0, 0.5, 0.0, 0.0], "dent": [9.0]}, 2.0)
    keep(one, [0.1, 0.2, 0.3, 2.5])  # p-values are fifths
    found = chart_data(with_p(one, [1 / 5, 2 / 5, 1.0, 1.0, 1 / 5]))["calibration"]
    assert found["rates"] == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert found["found"] == [0, 0.25, 0.5, 0.5, 0.5, 1]
    assert (found["promised"], found["above"], found["good"]) == (2 / 5, 1, 4)


def test_the_band_holds_what_chance_gives_in_95_of_100_runs(make_output, tmp_path):
    calibration, test, runs = 19, 25, 40_000
    one = of_scores(make_output, tmp_path, {"good": [0.0] * test}, 1.0)
    keep(one, np.linspace(0, 2, calibration).tolist())
    found = chart_data(one)["calibration"]
    rng = np.random.default_rng(3)
    kept = np.sort(rng.random((runs, calibration)), axis=1)[:, ::-1]
    new = rng.random((runs, test))
    for rate, low, high in list(zip(found["rates"], found["low"], found["high"], strict=True))[
        1:-1
    ]:
        highest = round(rate * (calibration + 1))
        parts = (new > kept[:, [highest - 1]]).mean(1)
        assert max((parts < low).mean(), (parts > high).mean()) < 0.03
        assert (parts <= low).mean() > 0.02  # and it is as narrow as can be
        assert (parts >= high).mean() > 0.02


def test_far_scores_leave_room_on_the_axis_for_the_good_ones(make_output, tmp_path):
    one = of_scores(make_output, tmp_path, {"good": [0.0, 1.0, 2.0], "dent": [5.0, 3e38]}, 2.5)
    low, high = chart_data(one)["axis"]
    assert low < 0 and 5 < high < 50


def test_areas_of_loco_are_those_of_its_two_kinds_and_their_mean(tmp_path):
    limits = {"0.01": 0.1, "0.05": 0.2, "0.1": 0.3, "0.3": 0.4, "1.0": 0.5}
    kinds = ("logical_anomalies", "structural_anomalies")
    curve = [[0, 0], [1, 1]]
    ours = {"curve": curve, "curve_by_defect": dict.fromkeys(kinds, curve)}
    spro = dict.fromkeys((*kinds, "mean"), limits)
    metrics = {"localization": {"auc_spro": spro}, "glae": ours}
    one = Evaluated(Run(tmp_path, "mvtec_loco", "box"), metrics)
    found = chart_data(one)["localization"]
    assert [curve["areas"] for curve in found["curves"]] == [[], *[[*limits.values()]] * 2]
    assert found["mean"] == [*limits.values()]
    metrics["localization"]["auc_spro"]["mean"] = dict.fromkeys(limits)  # as of one kind alone
    assert chart_data(one)["localization"]["mean"] is None


ODD = {
    "one good image": {"good": [0.5]},
    "no good images": {"dent": [0.5, 1.0]},
    "all equal": {"good": [1.0, 1.0], "dent": [1.0]},
    "as large as can be": {"good": [-1.7e308, 0.0], "dent": [1.7e308]},
}


@pytest.mark.parametrize("scores", ODD.values(), ids=ODD)
def test_odd_scores_have_an_axis_that_holds_the_threshold(make_output, tmp_path, scores):
    one = of_scores(make_output, tmp_path, scores, 1.0)
    data = json.loads(json.dumps(chart_data(one), allow_nan=False))
    low, high = data["axis"]
    assert low < 1.0 < high
    assert bool(data["roc"]) == (len(scores) == 2)
    assert bool(data["calibration"]) == ("good" in scores)


def test_what_earlier_or_damaged_files_lack_is_none(make_output, tmp_path):
    one = of_scores(make_output, tmp_path, {"good": [0.0], "dent": [1.0]}, 1.0)
    one.metrics["glae"] |= {"curve": None, "curve_by_defect": {"dent": [[0, "a"], 3]}}
    one.metrics["glae"] |= {"threshold": float("inf"), "false_alarm_rate": None}
    data = chart_data(with_p(one, [None, None]))
    absent = ("threshold", "axis", "localization", "calibration")
    assert [data[name] for name in absent] == [None] * 4
    assert chart_data(dataclasses.replace(one, results=[]))["groups"] == []


def test_pictures_without_a_label_are_a_group_of_their_own(make_output, tmp_path):
    one = of_scores(make_output, tmp_path, {"good": [0.0]}, 1.0)
    new = [ImageResult("new/a.png", UNLABELLED, "new", 3.0, 0.01, ANOMALOUS, 0.1, {})]
    old = [ImageResult("good/a.png", TEST, GOOD, 0.0, 0.5, GOOD, 0.1, {})]
    groups = chart_data(dataclasses.replace(one, results=new + old))["groups"]
    assert [(group["kind"], group["scores"]) for group in groups] == [
        ("good", [0.0]),
        ("unlabelled", [3.0]),
    ]

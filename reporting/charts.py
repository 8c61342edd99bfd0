"""The data of a run's charts, small and plain: a browser draws them, see templates/charts.js."""

import math
from collections import defaultdict

import numpy as np
from safetensors import safe_open
from scipy.stats import betabinom

from data.catalog import DATASETS
from data.samples import GOOD, require_file
from evaluation.columns import HEADLINE_LIMIT
from evaluation.localization import thinned
from evaluation.protocol import LOCO_SUBSETS, PRO_LIMIT, SPRO_LIMITS
from evaluation.results import UNLABELLED
from reporting.collected import Evaluated
from scoring.thresholds import promised_rate
from utils.files import DAMAGED

HELD_OUT, DEFECT = "held out", "defect"  # groups of scores, beside GOOD and UNLABELLED
ROC_STEP = 1 / 500  # of FPR + TPR: what is left out of a curve is not further from it
RATES = 101  # at which calibration is looked at
BAND = (0.025, 0.975)
MOST = 1e38  # scores to draw, whose differences are finite numbers
FAR = 12  # spreads from the threshold: an axis ends there, or one score would hide the others


def chart_data(one: Evaluated) -> dict:
    """Return what a run's charts show, as JSON can hold it; None or [] is for what is not there.

    `groups` of rising scores, good ones first; the `axis` [low, high] to show them on; `roc` and
    `localization` curves of points (FPR, rate), their areas as in the metrics file, "name" None for
    all defects together; `calibration`, see there.
    """
    threshold = finite(one.metrics["glae"].get("threshold"))
    kept = held_out_scores(one, threshold)
    groups = score_groups(one, kept)
    return {
        "threshold": threshold if threshold is None else plain(threshold),
        "groups": groups,
        "axis": score_axis(groups, threshold),
        "by_defect": DATASETS[one.run.dataset].saturated,  # whose two kinds are reported apart
        "roc": roc_curves(one),
        "localization": localization_curves(one),
        "calibration": calibration(one, kept, threshold),
    }


def finite(value: object) -> float | None:
    """Return a number of a metrics file, None for anything else."""
    return float(value) if isinstance(value, float | int) and math.isfinite(value) else None


def held_out_scores(one: Evaluated, threshold: float | None) -> np.ndarray:
    """Return the rising scores (n,) of held-out good images that the run's detector has kept.

    None where its file is not there, or is of an earlier version, or of another detector than was
    evaluated: then it promises another rate.
    """
    nothing = np.empty(0)
    if threshold is None:
        return nothing
    try:
        require_file(one.run.detector_file)
        with safe_open(one.run.detector_file, framework="numpy") as file:
            combined = file.get_tensor("good_scores")[0]  # the first of `Detector.rated`
            kept = np.sort(combined.astype(float), axis=None)
    except (*DAMAGED, IndexError):
        return nothing
    recorded = finite(one.metrics["glae"].get("false_alarm_rate"))
    same = recorded == promised_rate(kept, threshold) and np.isfinite(kept).all()
    return kept if same else nothing


def score_groups(one: Evaluated, kept: np.ndarray) -> list[dict]:
    """Return the groups of images that have scores, and these."""
    by_defect = scores_by_defect(one)
    groups = [(GOOD, GOOD, by_defect.pop(GOOD, []))]
    groups += [(DEFECT, name, by_defect[name]) for name in sorted(by_defect)]
    unlabelled = [result.score for result in one.unlabelled]
    groups += [(UNLABELLED, "pictures without a label", unlabelled)]
    groups += [(HELD_OUT, "held-out good images", kept.tolist())]
    return [
        {"kind": kind, "name": name, "scores": [plain(score) for score in sorted(scores)]}
        for kind, name, scores in groups
        if scores
    ]


def scores_by_defect(one: Evaluated) -> dict[str, list[float]]:
    """Return the scores of the test images by what is wrong with them, those of GOOD, too."""
    scores = defaultdict(list)
    for result in one.labelled:
        scores[result.defect].append(result.score)
    return dict(scores)


def plain(score: float) -> float:
    """Round to 9 digits, which tell all float32 apart, so that no verdict changes."""
    return float(f"{score:.9g}")


def score_axis(groups: list[dict], threshold: float | None) -> list[float] | None:
    """Return the range of scores to show, which holds the threshold; None without either."""
    if not groups or threshold is None:
        return None
    groups = [{**group, "scores": np.clip(group["scores"], -MOST, MOST)} for group in groups]
    every = np.concatenate([*(group["scores"] for group in groups), [threshold]])
    usual = next((g["scores"] for g in reversed(groups) if g["kind"] in (HELD_OUT, GOOD)), every)
    low, middle, high = np.quantile(usual, [0.25, 0.5, 0.75])
    spread = max(high - low, abs(threshold - middle)) or np.ptp(every) or abs(middle) or 1.0
    low = max(every.min(), min(middle, threshold) - FAR * spread)
    high = min(every.max(), max(middle, threshold) + FAR * spread)
    margin = (high - low) / 50 or spread / 2
    return [float(low - margin), float(high + margin)]


def roc_curves(one: Evaluated) -> list[dict]:
    """Return the ROC curve of all defects together, and of each against the good images."""
    from sklearn.metrics import roc_curve  # slow to import

    ours, by_defect = one.metrics["glae"], scores_by_defect(one)
    good = by_defect.pop(GOOD, [])
    if not good or not by_defect:
        return []
    bad = {None: [score for scores in by_defect.values() for score in scores]}
    bad |= {name: by_defect[name] for name in sorted(by_defect)}
    areas = {None: ours.get("auroc_pooled")} | (ours.get("auroc_by_defect") or {})
    curves = []
    for name, scores in bad.items():
        fpr, tpr, _ = roc_curve([0] * len(good) + [1] * len(scores), good + scores)
        points = points_of(thinned(np.stack([fpr, tpr], 1), ROC_STEP))
        curves.append({"name": name, "points": points, "areas": [finite(areas.get(name))]})
    return curves


def localization_curves(one: Evaluated) -> dict | None:
    """Return the (s)PRO curves that the metrics file has; None where it has none.

    Each has the area up to each of the `limits`, or no areas where the benchmark has none: of sPRO
    it reports the `mean` of logical and structural anomalies, not what they are together.
    """
    ours = one.metrics["glae"]
    curves = {None: ours.get("curve")} | (ours.get("curve_by_defect") or {})
    if DATASETS[one.run.dataset].saturated:
        spro = one.metrics["localization"]["auc_spro"]
        areas = {name: [spro[name][str(limit)] for limit in SPRO_LIMITS] for name in LOCO_SUBSETS}
        mean = [finite(spro["mean"][str(limit)]) for limit in SPRO_LIMITS]
        mean = None if None in mean else mean  # one of the kinds is not there
        found = {"metric": "sPRO", "limits": SPRO_LIMITS, "headline": HEADLINE_LIMIT, "mean": mean}
    else:
        by_defect = ours.get("au_pro_by_defect") or {}
        areas = {None: [one.metrics["au_pro"]]} | {name: [by_defect[name]] for name in by_defect}
        found = {"metric": "PRO", "limits": [PRO_LIMIT], "headline": PRO_LIMIT, "mean": None}
    found["curves"] = [
        {"name": name, "points": points, "areas": [finite(area) for area in areas.get(name, [])]}
        for name, curve in curves.items()
        if (points := points_of(curve))
    ]
    return found if found["curves"] else None


def points_of(curve: object) -> list[list[float]]:
    """Return a curve's points, rounded to a millionth; none of what is no curve."""
    try:
        points = np.array(curve, float)
    except (TypeError, ValueError):
        return []
    sound = points.ndim == 2 and points.shape[1] == 2 and np.isfinite(points).all()
    return points.round(6).tolist() if sound else []


def calibration(one: Evaluated, kept: np.ndarray, threshold: float | None) -> dict | None:
    """Return `rates` of false alarms, and the part `found` of good test images with p at most that.

    None without good test images, or without p-values, which earlier versions did not write. At
    each rate, `found` is from `low` to `high` in 95 of 100 runs that keep their promise; these are
    [] where the n kept scores are not known. A p-value is at most k / (n + 1) above the k-th
    highest of them. Calibration, too, has few images: of new good ones a part is above that is
    distributed as Beta(k, n + 1 - k), and so of m test images a beta-binomial number. Source: Vovk,
    *Conditional Validity of Inductive Conformal Predictors*, 2012; Bates et al., 2023.
    """
    good = [result for result in one.labelled if result.defect == GOOD]
    p = np.sort([result.p_value for result in good if result.p_value is not None])
    if not good or len(p) < len(good):
        return None
    steps = len(kept) + 1 if len(kept) else RATES - 1
    ranks = np.unique((np.linspace(0, 1, RATES) ** 2 * steps).round())  # close to each other near 0
    rates, band = ranks / steps, [[], []]
    if len(kept):
        chance = betabinom(len(good), ranks[1:-1], steps - ranks[1:-1])
        band = [[0.0, *(chance.ppf(q) / len(good)).tolist(), 1.0] for q in BAND]
    promised = finite(one.metrics["glae"].get("false_alarm_rate"))
    above = sum(threshold is not None and result.score > threshold for result in good)
    return {
        "rates": rates.tolist(),
        "found": (np.searchsorted(p, rates, side="right") / len(p)).tolist(),
        "low": band[0],
        "high": band[1],
        "promised": promised,  # by the stored threshold, which
        "above": above,  # good test images are above, of
        "good": len(good),
    }

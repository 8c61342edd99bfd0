"""Thresholds that keep a promise: at most so many of the good images are called anomalous.

Split conformal prediction. A new good image is as likely to stand at any place among n held-out
ones, whatever their distribution. Source: Vovk, Gammerman and Shafer, *Algorithmic Learning in a
Random World*, 2005; Bates et al., *Testing for Outliers with Conformal p-values*, 2023.
"""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from data.samples import InputError
from models.detector import THRESHOLDS, Detector
from models.experts import COMBINED
from models.recipe import exact


def keep_good_scores(detector: Detector, good: Mapping[str, torch.Tensor], rate: float) -> None:
    """Keep held-out good images' scores (n,) of all that is rated; set the thresholds by `rate`."""
    rising = [good[name].float().sort().values for name in detector.rated]
    detector.good_scores = torch.stack(rising)
    set_thresholds(detector, rate)


def set_thresholds(detector: Detector, rate: float, source: str = "the detector") -> float:
    """Set a detector's thresholds by a rate; return the one that they keep: see `thresholds_of`."""
    thresholds, kept = thresholds_of(detector.good_scores, rate, source)
    for name, threshold in zip(detector.rated, thresholds, strict=True):
        getattr(detector, THRESHOLDS[name]).copy_(threshold)
    return kept


def thresholds_of(good: torch.Tensor, rate: float, source: str) -> tuple[torch.Tensor, float]:
    """Return thresholds (...) that at most `rate` of good images exceed, and the rate they keep.

    `good` are rising scores (..., n) of held-out good images, `rate` is in (0, 1). Warns where
    there are too few for that rate: then it is the least that they allow. Raises InputError, which
    names the `source`, where there are none.
    """
    count = good.shape[-1]
    if not count:
        raise InputError(
            f"{source} is of an earlier version, which kept no good images' scores: train it again "
            "with --overwrite, or leave --false_alarm_rate out"
        )
    kept = kept_rate(count, rate)
    if kept != rate:
        warnings.warn(promise(count, rate), stacklevel=2)
    return good[..., rank(count, rate) - 1], kept


def strangest(paths: list[Path], scores: torch.Tensor, threshold: float) -> str:
    """Say which of held-out good images is the strangest, by their combined scores (n,).

    A threshold of few images stands at the highest of them or near it.
    """
    index = int(scores.argmax())
    return (
        f"strangest of {len(paths)} held-out good images: {paths[index]}, score "
        f"{scores[index]:.3g}, threshold {threshold:.3g}: if it is not good, or not taken like the "
        "others, remove it and train again"
    )


def promise(count: int, rate: float) -> str:
    """Say what `count` held-out good images promise where a false-alarm rate is asked for."""
    images = "image promises" if count == 1 else "images promise"
    if is_promised(count, rate):
        return f"{count} held-out good {images} a false-alarm rate of {rate:g}"
    return (
        f"{count} held-out good {images} a false-alarm rate of {1 / (count + 1):.3g} at best, and "
        f"that is used: {rate:g} takes {needed(rate)}"
    )


def rank(count: int, rate: float) -> int:
    """Return which of `count` rising good scores is the threshold of a false-alarm rate, from 1."""
    return max(min(math.ceil((count + 1) * (1 - exact(rate))), count), 1)


def is_promised(count: int, rate: float) -> bool:
    """Tell whether `count` good images are enough for a false-alarm rate."""
    return exact(rate) * (count + 1) >= 1


def kept_rate(count: int, rate: float) -> float:
    """Return a false-alarm rate, or the least that `count` good images can promise."""
    return rate if is_promised(count, rate) else 1 / (count + 1)


def needed(rate: float) -> int:
    """Return how many good images a false-alarm rate takes."""
    return math.ceil(1 / exact(rate)) - 1


def promised_rate(good: torch.Tensor | np.ndarray, threshold: float | torch.Tensor) -> float | None:
    """Return the part of good images that a threshold lets be called anomalous, at most.

    `good` are scores (n,) of held-out good images. None where there are none.
    """
    above = int((good > threshold).sum())
    return (1 + above) / (len(good) + 1) if len(good) else None


def is_anomalous(score: float, threshold: float) -> bool:
    """Tell whether a score is above a threshold; nor is what is no number good."""
    return not score <= threshold


def good_scores(detector: Detector) -> torch.Tensor:
    """Return held-out good images' combined scores (n,), rising; none of an earlier version."""
    return detector.good_scores[detector.rated.index(COMBINED)]


def p_values(good: torch.Tensor, scores: torch.Tensor) -> torch.Tensor | None:
    """Return how likely good images are to score as high, (N,) float64, of scores (N,).

    `good` are rising scores (n,) of held-out good images. None where there are none. A score above
    the threshold of a rate has at most that p, and no other has.
    """
    good = good.cpu()
    if not len(good):
        return None
    below = torch.searchsorted(good, scores.to(good))
    return (1 + len(good) - below).double() / (len(good) + 1)


def map_threshold(detector: Detector) -> float:
    """Return the combined map's threshold; networks of earlier versions shared it with scores."""
    own = detector.map_threshold
    return (detector.threshold if own.isnan() else own).item()

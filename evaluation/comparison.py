"""How much better one model is than another: a paired bootstrap of image AUROC over the images.

Test images are drawn again and again, good and defective ones each among themselves, for a mean
over kinds of defects each kind; the same for both models and in each of their seeds. How the
difference then varies gives its interval, by percentiles. It is of the images: the seeds stay those
that were trained. Source: Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapters
8 and 13. scipy.stats.bootstrap does the same, but takes a second to be imported alone.
"""

import os
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.samples import GOOD
from evaluation.protocol import LOCO_SUBSETS
from evaluation.results import UNLABELLED, ImageResult

RESAMPLES = 2000
LEVEL = 0.95  # of an interval
# The columns that have intervals → the kinds of defects whose AUROCs they average; None is of all.
KINDS: dict[str, tuple[str | None, ...]] = {
    "AUROC": (None,),
    "AUROC pooled": (None,),
    "AUROC logical": LOCO_SUBSETS[:1],
    "AUROC structural": LOCO_SUBSETS[1:],
    "AUROC mean": LOCO_SUBSETS,
}

Seeds = Sequence[Sequence[ImageResult]]  # a model's runs of a category → each image's result
Image = tuple[str, str]  # what is wrong with it, or GOOD, and its place
Scores = dict[Image, float]
Stratum = tuple[list[Image], np.ndarray]  # images of a kind, and how often each draw has them


class Difference(NamedTuple):
    """How much higher a model's metric is than another's, a fraction, and its interval if known."""

    value: float
    low: float | None = None
    high: float | None = None


class Resampled(NamedTuple):
    """One category's difference, and what it is by each draw of images."""

    value: float
    draws: np.ndarray  # float64 (RESAMPLES,)
    left_out: int  # images that some runs lack, or know as another kind


def resampled(first: Seeds, other: Seeds, column: str, category: str) -> Resampled | None:
    """Draw a category's test images: the AUROC of `other` less that of `first`, means over seeds.

    `column` is one of KINDS. The draws depend on nothing but the `category`'s name and its images,
    which are known again by their place. None where the images that all runs have are not of all
    kinds.
    """
    models = [[_scores(run) for run in runs] for runs in (first, other)]
    known = [{*scores} for runs in models for scores in runs]
    common = sorted(set.intersection(*known))
    good = [image for image in common if image[0] == GOOD]
    defective = [image for image in common if image[0] != GOOD]
    strata = [[i for i in defective if kind in (None, i[0])] for kind in KINDS[column]]
    if not good or not all(strata):
        return None
    generator = np.random.default_rng(zlib.crc32(os.fsencode(category)))
    strata = [(images, _counts(generator, len(images))) for images in (good, *strata)]
    lower, higher = (np.mean([_of_run(scores, *strata) for scores in runs], 0) for runs in models)
    draws = higher - lower
    return Resampled(float(draws[0]), draws[1:], len(set().union(*known)) - len(common))


def difference(categories: Sequence[Resampled]) -> Difference:
    """Return a category's difference with its interval, or the mean's over several categories."""
    draws = np.mean([category.draws for category in categories], 0)
    low, high = np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    value = np.mean([category.value for category in categories])
    return Difference(float(value), float(low), float(high))


def _scores(results: Sequence[ImageResult]) -> Scores:
    """Return each labelled image's score by its kind and place."""
    return {(r.defect, r.image): r.score for r in results if r.split != UNLABELLED}


def _of_run(scores: Scores, good: Stratum, *bad: Stratum) -> np.ndarray:
    """Return a run's AUROC by each draw (1 + RESAMPLES,), the mean over kinds of defects."""
    arrays = [(np.array([scores[image] for image in of]), counts) for of, counts in (good, *bad)]
    return np.mean([_aurocs(*arrays[0], *of_kind) for of_kind in arrays[1:]], 0)


def _counts(generator: np.random.Generator, images: int) -> np.ndarray:
    """Return how often each draw has each image, int (images, 1 + RESAMPLES); first once."""
    drawn = generator.integers(images, size=(images, RESAMPLES), dtype=np.int32)
    drawn = drawn * np.int64(RESAMPLES) + np.arange(RESAMPLES)
    counts = np.bincount(drawn.ravel(), minlength=images * RESAMPLES).astype(np.int32)
    return np.pad(counts.reshape(images, RESAMPLES), ((0, 0), (1, 0)), constant_values=1)


def _aurocs(
    good: np.ndarray, good_counts: np.ndarray, bad: np.ndarray, bad_counts: np.ndarray
) -> np.ndarray:
    """Return the AUROC by each draw (n,): how often bad outscores good, ties counted half.

    Scores (images,) and counts (images, n) are of the same images.
    """
    order = np.argsort(good)
    below = np.pad(good_counts[order].cumsum(0, np.int32), ((1, 0), (0, 0)))
    lower, upper = (np.searchsorted(good[order], bad, side) for side in ("left", "right"))
    doubled = (bad_counts * (below[lower] + below[upper])).sum(0, np.int64)
    return doubled / (2 * len(good) * len(bad))

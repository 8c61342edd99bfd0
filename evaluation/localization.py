"""Pixel-level metrics of any set of anomaly maps: pixel AUROC, PRO and sPRO, exact and streamed.

One mechanism for the three. As the threshold falls to the score of a region's pixel, the curve over
the false positive rate (FPR) rises by that pixel's gain: for PRO and sPRO by 1 / (saturation *
regions) if it is among its region's `saturation` highest pixels, for pixel AUROC, whose curve is
the true positive rate, by 1 / positives. So the area up to a limit is the sum of

    gain * (limit - FPR(score))    over the positives with FPR(score) < limit,

and takes no grid of thresholds. Positives and negatives of one score are found together: the curve
is a straight line between the rates above and at that score, as in scikit-learn's ROC. An example
is worked in evaluation/pixels.py. Sources: PRO, Bergmann et al., MVTec AD (IJCV 2021), section 5.3;
sPRO, Bergmann et al., MVTec LOCO AD (IJCV 2022), section 4.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.pixels import PixelCounts, ReadMap, ReadRegions, Thresholds

MOST_WORKERS = 16  # each has two maps waiting
CURVE_POINTS = 500
COARSE = 2 / (CURVE_POINTS - 2)  # steps of FPR + (s)PRO, which go from 0 to 2 in all
FINE = COARSE / 16
CURVE_ERROR = COARSE + FINE


@dataclass(frozen=True)
class Localization:
    """The pixel metrics of a subset of the images.

    `areas` maps a limit to the area under the (s)PRO curve up to it, divided by it. `curve` holds
    at most CURVE_POINTS of the exact curve's points (FPR, mean (s)PRO), both rising; the straight
    lines between them stay within CURVE_ERROR of it, in FPR and (s)PRO together.
    """

    pixel_auroc: float
    areas: dict[float, float]
    curve: list[tuple[float, float]]


def localize(
    read_map: ReadMap,
    read_regions: ReadRegions,
    groups: Sequence[str],
    subsets: Mapping[str, Sequence[str]],
    limits: Sequence[float],
    workers: int,
    what: str = "pixel metrics",
) -> dict[str, Localization | None]:
    """Return the pixel metrics of each subset; None for one without regions or negatives.

    `groups` names the group of each image, `subsets` the groups of each subset. Its negatives are
    the pixels of their images outside of all regions. `read_map` and `read_regions` take an
    image's number and are called from `workers` threads, `read_map` once for each pass. Held in
    memory are 0.3 GiB of negatives, 5 bytes for each region pixel, and a few maps for each worker.
    """
    if not groups:
        return dict.fromkeys(subsets)
    workers = min(workers, MOST_WORKERS)
    numbers, subset_groups = _merge_groups(groups, subsets)
    pixels = PixelCounts(read_map, read_regions, numbers)
    distinct = set(subset_groups.values())  # a single defect is all there is

    def part_of_each(thresholds: Thresholds) -> dict[tuple[int, ...], PartialMetrics | None]:
        return {of: PartialMetrics.of(thresholds, pixels, list(of), limits) for of in distinct}

    parts = list(pixels.count_false_positives(part_of_each, workers, what))
    joined = {of: _join([part[of] for part in parts]) for of in distinct}
    return {name: joined[of] for name, of in subset_groups.items()}


def _merge_groups(
    groups: Sequence[str], subsets: Mapping[str, Sequence[str]]
) -> tuple[list[int], dict[str, tuple[int, ...]]]:
    """Return the group of each image and the groups of each subset, as numbers from 0.

    Groups that are in the same subsets need not be told apart: they become one.
    """
    memberships = [tuple(name for name, of in subsets.items() if group in of) for group in groups]
    numbers = {membership: number for number, membership in enumerate(dict.fromkeys(memberships))}
    subset_groups = {
        name: tuple(number for membership, number in numbers.items() if name in membership)
        for name in subsets
    }
    return [numbers[membership] for membership in memberships], subset_groups


@dataclass
class SubsetThresholds:
    """The thresholds of a subset's positives, falling, and the subset's own false positives.

    False positives are counts: they are divided last. At a threshold the curve goes straight from
    `fp_above` to `fp_at`; `fp_middle` is half-way.
    """

    scores: np.ndarray  # float32 (n,)
    positives: np.ndarray  # int (n,)
    gains: np.ndarray  # float64 (n,)
    fp_above: np.ndarray  # int (n,)
    fp_at: np.ndarray  # int (n,)
    fp_middle: np.ndarray  # float64 (n,)

    @staticmethod
    def of(thresholds: Thresholds, groups: list[int]) -> "SubsetThresholds":
        """Choose the thresholds of these groups and add up their false positives."""
        fp_above, fp_at = (
            sum(fp[group] for group in groups) for fp in (thresholds.fp_above, thresholds.fp_at)
        )
        columns = (thresholds.scores, thresholds.positives, thresholds.gains, fp_above, fp_at)
        in_subset = np.isin(thresholds.group, groups)
        if not in_subset.all():
            columns = tuple(column[in_subset] for column in columns)
        *_, fp_above, fp_at = columns
        return SubsetThresholds(*columns, fp_middle=(fp_above + fp_at) / 2.0)


@dataclass
class PartialMetrics:
    """What a part of the thresholds adds to a subset's metrics, the areas not yet divided.

    `curve` begins at (s)PRO 0 and rises by `spro`.
    """

    pixel_auroc: float
    areas: dict[float, float]
    curve: np.ndarray  # (points, 2): FPR, (s)PRO
    spro: float

    @staticmethod
    def of(
        thresholds: Thresholds, pixels: PixelCounts, groups: list[int], limits: Sequence[float]
    ) -> "PartialMetrics | None":
        """Sum up; None for a subset without regions or negatives."""
        counts = (pixels.negatives, pixels.positives, pixels.regions)
        negatives, positives, regions = (int(count[groups].sum()) for count in counts)
        if not regions or not negatives:
            return None
        ours = SubsetThresholds.of(thresholds, groups)
        fpr_sum = np.sum(ours.positives * ours.fp_middle) / negatives
        pixel_auroc = (ours.positives.sum() - fpr_sum) / positives
        areas = {limit: _area(ours, limit * negatives) / (negatives * regions) for limit in limits}
        spro = np.cumsum(ours.gains) / regions
        curve = _curve(ours.scores, ours.fp_above / negatives, ours.fp_at / negatives, spro)
        return PartialMetrics(pixel_auroc, areas, curve, spro[-1] if len(spro) else 0.0)


def _area(thresholds: SubsetThresholds, limit: float) -> float:
    """Return the sum of gain * (limit - false positives) over the thresholds below the limit.

    `limit` is a number of false positives. Where it cuts a line, the triangle before it counts.
    """
    fp_above, fp_at, gains = thresholds.fp_above, thresholds.fp_at, thresholds.gains
    whole = np.searchsorted(fp_at, int(limit), "right")  # both ends are within the limit
    cut = slice(whole, np.searchsorted(fp_above, math.ceil(limit), "left"))  # it is between them
    area = np.sum(gains[:whole] * (limit - thresholds.fp_middle[:whole]))
    widths = 2 * (fp_at[cut] - fp_above[cut])
    return area + np.sum(gains[cut] * np.square(limit - fp_above[cut]) / widths)


def _curve(
    scores: np.ndarray, fpr_above: np.ndarray, fpr_at: np.ndarray, spro: np.ndarray
) -> np.ndarray:
    """Return the curve's points (FPR, (s)PRO) where FPR + (s)PRO reaches the next multiple of FINE.

    Distinct threshold i takes it straight from (fpr_above[i], spro[i - 1]) to (fpr_at[i], spro[i]):
    both points are kept.
    """
    last = np.diff(scores, append=-np.inf) != 0  # of each distinct threshold
    if not last.all():
        fpr_above, fpr_at, spro = fpr_above[last], fpr_at[last], spro[last]
    along = fpr_at + spro
    edges = np.arange(0, along[-1] + FINE, FINE) if len(along) else []
    kept = np.unique(np.append(np.searchsorted(along, edges), len(along) - 1))
    kept = kept[(kept >= 0) & (kept < len(along))]
    before = np.where(kept > 0, spro[kept - 1], 0.0)
    points = ((fpr_above[kept], before), (fpr_at[kept], spro[kept]))
    return np.stack(points, 1).transpose(2, 1, 0).reshape(-1, 2)


def thinned(curve: np.ndarray, step: float) -> np.ndarray:
    """Keep the first point, and the last in each band of FPR + (s)PRO that is `step` wide.

    From one kept point the curve goes straight into the next one's band and stays within it, so it
    is nowhere further than `step` from the straight line between them.
    """
    bands = np.floor(curve.sum(1) / step)
    kept = np.diff(bands, append=np.inf) != 0
    kept[0] = True
    return curve[kept]


def _join(parts: list[PartialMetrics | None]) -> Localization | None:
    """Join all parts, in the order of falling thresholds."""
    present = [part for part in parts if part]
    if not present:
        return None
    areas = {limit: sum(p.areas[limit] for p in present) / limit for limit in present[0].areas}
    starts = np.cumsum([0.0, *(part.spro for part in present)])
    curves = [np.add(p.curve, (0, spro)) for p, spro in zip(present, starts[:-1], strict=True)]
    curve = thinned(np.concatenate([[(0, 0)], *curves, [(1, starts[-1])]]), COARSE)
    points = list(dict.fromkeys(map(tuple, curve.tolist())))
    return Localization(sum(p.pixel_auroc for p in present), areas, points)

"""Pixel-level metrics of any set of anomaly maps: pixel AUROC, PRO and sPRO, exact and streamed.

One mechanism for the three. A region pixel that is found raises a curve over the false positive
rate by its gain: for PRO and sPRO by 1 / (saturation * regions) if it is among its region's first
`saturation` pixels, for pixel AUROC by 1 / pixels. It does so where the rate is that of its own
score, so the area up to a limit is the sum of

    gain * (limit - FPR(score))    over the pixels with FPR(score) < limit,

over all scores, without a list of thresholds. Pixels and negatives of one score are found together:
the curve is a straight line between the rates above and at that score, as in scikit-learn's ROC.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.pixels import PixelCounts, ReadMap, ReadRegions, Settled

SPRO_LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)  # false positive rates up to which sPRO is integrated
PRO_LIMIT = 0.3
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
    workers = min(workers, MOST_WORKERS)
    # Groups that are in the same subsets need not be told apart.
    kinds = [tuple(name for name, of in subsets.items() if group in of) for group in groups]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    pixels = PixelCounts(read_map, read_regions, [numbers[kind] for kind in kinds])
    members = {
        name: [number for kind, number in numbers.items() if name in kind] for name in subsets
    }
    different = {tuple(of) for of in members.values()}  # a single defect is all there is

    def sums(settled: Settled) -> dict[tuple[int, ...], Sums | None]:
        return {of: Sums.of(settled, pixels, list(of), limits) for of in different}

    parts = list(pixels.settle(sums, workers, what))
    joined = {of: _join([part[of] for part in parts]) for of in different}
    return {name: joined[tuple(of)] for name, of in members.items()}


@dataclass
class Sums:
    """What some of the region pixels add to a subset's metrics. `curve` begins at height 0."""

    pixel_auroc: float
    areas: dict[float, float]
    curve: np.ndarray  # (points, 2): FPR, (s)PRO
    height: float

    @staticmethod
    def of(
        settled: Settled, pixels: PixelCounts, groups: list[int], limits: Sequence[float]
    ) -> "Sums | None":
        """Sum up; None for a subset without regions or negatives."""
        counts = (pixels.negatives, pixels.positives, pixels.regions)
        negatives, positives, regions = (int(count[groups].sum()) for count in counts)
        if not regions or not negatives:
            return None
        above, not_below = (
            sum(count[group] for group in groups) for count in (settled.above, settled.not_below)
        )
        columns = (settled.scores, settled.pixels, settled.gains, above, not_below)
        ours = np.isin(settled.group, groups)
        if not ours.all():
            columns = (column[ours] for column in columns)
        scores, count, gains, above, not_below = columns
        middle = (above + not_below) / 2.0  # still counts: the rates come last
        missed = np.sum(count * middle) / negatives
        areas = {
            limit: _area(gains, above, not_below, middle, limit * negatives) / (negatives * regions)
            for limit in limits
        }
        last = np.diff(scores, append=-np.inf) != 0  # of each score
        heights = np.cumsum(gains) / regions
        height = heights[-1] if len(heights) else 0.0
        points = (above / negatives, not_below / negatives, heights)
        curve = _curve(*(points if last.all() else (column[last] for column in points)))
        return Sums((count.sum() - missed) / positives, areas, curve, height)


def _area(
    gains: np.ndarray, above: np.ndarray, not_below: np.ndarray, middle: np.ndarray, limit: float
) -> float:
    """Return the area up to `limit` under what pixels with these gains add.

    `above`, `not_below`, their `middle` and `limit` count negatives, and do not fall.
    """
    whole = np.searchsorted(not_below, int(limit), "right")  # both are within the limit
    cut = slice(whole, np.searchsorted(above, math.ceil(limit), "left"))  # it is between them
    area = np.sum(gains[:whole] * (limit - middle[:whole]))
    widths = 2 * (not_below[cut] - above[cut])
    return area + np.sum(gains[cut] * np.square(limit - above[cut]) / widths)


def _curve(above: np.ndarray, not_below: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return the curve's points (FPR, (s)PRO) where it enters the next band of their sum.

    Score i takes it straight from (above[i], heights[i - 1]) to (not_below[i], heights[i]). Both
    points are kept where the sum reaches the next multiple of FINE.
    """
    sums = not_below + heights
    edges = np.arange(0, sums[-1] + FINE, FINE) if len(sums) else []
    kept = np.unique(np.append(np.searchsorted(sums, edges), len(sums) - 1))
    kept = kept[(kept >= 0) & (kept < len(sums))]
    before = np.where(kept > 0, heights[kept - 1], 0.0)
    points = ((above[kept], before), (not_below[kept], heights[kept]))
    return np.stack(points, 1).transpose(2, 1, 0).reshape(-1, 2)


def _thinned(curve: np.ndarray, step: float) -> np.ndarray:
    """Keep the first point, and the last in each band of FPR + (s)PRO that is `step` wide.

    From one kept point the curve goes straight into the next one's band and stays within it, so it
    is nowhere further than `step` from the straight line between them.
    """
    bands = np.floor(curve.sum(1) / step)
    kept = np.diff(bands, append=np.inf) != 0
    kept[0] = True
    return curve[kept]


def _join(parts: list[Sums | None]) -> Localization | None:
    """Join the sums of all parts, in their order."""
    present = [part for part in parts if part]
    if not present:
        return None
    areas = {limit: sum(p.areas[limit] for p in present) / limit for limit in present[0].areas}
    starts = np.cumsum([0.0, *(part.height for part in present)])
    curves = [np.add(p.curve, (0, height)) for p, height in zip(present, starts[:-1], strict=True)]
    curve = _thinned(np.concatenate([[(0, 0)], *curves, [(1, starts[-1])]]), COARSE)
    points = list(dict.fromkeys(map(tuple, curve.tolist())))
    return Localization(sum(p.pixel_auroc for p in present), areas, points)

"""Label a map's pixels by its ground-truth regions: positives with their gains, and negatives.

What PRO and sPRO average is each region's overlap, min(found / saturation, 1), where `found` counts
its pixels that score at least a threshold and `saturation` how many of them are enough; PRO's
saturation is the whole region. As the threshold falls, a region's overlap thus rises by
1 / saturation at each of its `saturation` highest pixels, and no more after them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.masks import Region


@dataclass
class LabelledPixels:
    """One map's positives, the pixels in regions, their scores rising; and which are negatives.

    A positive's gain is what it adds to the sum of the regions' overlaps: 1 / saturation for each
    region among whose `saturation` highest pixels it is, nothing where higher ones saturate it.
    An image has few different gains: one byte a pixel, `gain_index`, tells which one it has.
    """

    scores: np.ndarray  # float32 (n,): the positives'
    gain_index: np.ndarray  # (n,), the smallest unsigned integers that do
    gain_values: np.ndarray  # float64
    regions: int
    negatives: int
    negative_bits: np.ndarray | None  # which pixels they are, packed; None: all

    @staticmethod
    def of(scores: np.ndarray, regions: Sequence[Region]) -> "LabelledPixels":
        """Label the pixels of a flat map, float32 (pixels,)."""
        if not regions:
            empty = np.empty(0, np.float32), np.empty(0, np.uint8), np.zeros(1)
            return LabelledPixels(*empty, 0, len(scores), None)
        negative = np.ones(len(scores), bool)
        for pixels, _ in regions:
            negative[pixels] = False
        if len(regions) == 1:  # as most images have
            positives = _of_one_region(scores, *regions[0])
        else:
            positives = _of_several_regions(scores, regions, np.flatnonzero(~negative))
        negatives = len(scores) - len(positives[0])
        return LabelledPixels(*positives, len(regions), negatives, np.packbits(negative))

    def negatives_of(self, scores: np.ndarray) -> np.ndarray:
        """Return the negatives' scores, of the same flat map."""
        if self.negative_bits is None:
            return scores
        return scores[np.unpackbits(self.negative_bits, count=len(scores)).view(bool)]

    def between(self, floor: float, ceiling: float) -> slice:
        """Return where the positives with scores in (floor, ceiling] are."""
        ends = np.array((floor, ceiling), np.float32)
        return slice(*np.searchsorted(self.scores, ends, "right"))

    def thresholds(self, part: slice, distinct: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a part's scores, how many positives have each, and their gains, all (n,).

        Each positive has an entry of its own, or with `distinct` each distinct score.
        """
        scores, gains = self.scores[part], self.gain_values[self.gain_index[part]]
        if not distinct:
            return scores, np.ones(len(scores), np.int32), gains
        scores, entry, positives = np.unique(scores, return_inverse=True, return_counts=True)
        return scores, positives, np.bincount(entry, gains, len(scores))


def _of_one_region(
    scores: np.ndarray, pixels: np.ndarray, saturation: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the positives' (scores, gain_index, gain_values): the last, the highest, gain."""
    gain_index = (np.arange(len(pixels)) >= len(pixels) - saturation).astype(np.uint8)
    return np.sort(scores[pixels]), gain_index, np.array((0.0, 1 / saturation))


def _of_several_regions(
    scores: np.ndarray, regions: Sequence[Region], positives: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the positives' (scores, gain_index, gain_values); regions may overlap."""
    gain_index, gain_values = np.zeros(len(scores), np.int32), [0.0]
    for pixels, saturation in regions:
        saturating = _highest(scores, pixels, saturation)
        former = gain_index[saturating]  # from the regions before, where they overlap
        for index in np.flatnonzero(np.bincount(former)):
            gain_index[saturating[former == index]] = len(gain_values)
            gain_values.append(gain_values[index] + 1 / saturation)
    rising = positives[np.argsort(scores[positives])]
    gain_index = gain_index[rising].astype(np.min_scalar_type(len(gain_values)))
    return scores[rising], gain_index, np.array(gain_values)


def _highest(scores: np.ndarray, pixels: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` of these pixels that have the highest scores."""
    rest = len(pixels) - count
    return pixels[np.argpartition(scores[pixels], rest)[rest:]] if rest else pixels

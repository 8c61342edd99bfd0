"""Pixel-level metrics: pixel AUROC, PRO and sPRO, exact.

Curves run over every distinct score, without sampled thresholds or histograms. PRO and sPRO
differ only in what a region is and when it counts as found: PRO's regions are the connected
components of a mask and must be covered whole; sPRO's are the channels of LOCO's ground truth,
and a saturation area is enough. Sources: Bergmann et al., MVTec AD (IJCV 2021), section 5.3;
Bergmann et al., MVTec LOCO AD (IJCV 2022), section 4.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.integrate import trapezoid

from data.samples import InputError

SPRO_LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)  # false positive rates up to which sPRO is integrated
PRO_LIMIT = 0.3

# What drops an alpha channel; grey, palette and 16-bit values stay as they are.
MASK_MODES = {"RGBA": "RGB", "CMYK": "RGB", "LA": "L", "1": "L"}

Region = tuple[np.ndarray, int]  # bool mask (H, W), saturation area in pixels


@dataclass
class PixelScores:
    """The scores of a set of images' pixels, by what they are.

    `negatives` and `positives` are float32 arrays of any length; a pixel of two regions is in
    `positives` once and in `regions` twice. A region is its pixels' scores and its saturation.
    """

    negatives: list[np.ndarray] = field(default_factory=list)
    positives: list[np.ndarray] = field(default_factory=list)
    regions: list[tuple[np.ndarray, int]] = field(default_factory=list)

    def add(self, scores: np.ndarray, regions: Iterable[Region]) -> None:
        """Take in one image's map, float32 (H, W), and the regions of its ground truth."""
        union = np.zeros(scores.shape, bool)
        for mask, saturation in regions:
            union |= mask
            self.regions.append((scores[mask], saturation))
        self.negatives.append(scores[~union])
        self.positives.append(scores[union])

    @staticmethod
    def merged(parts: Iterable["PixelScores"]) -> "PixelScores":
        """Return several sets as one, without copying their pixels."""
        whole = PixelScores()
        for part in parts:
            whole.negatives += part.negatives
            whole.positives += part.positives
            whole.regions += part.regions
        return whole


def pixel_auroc(pixels: PixelScores) -> float | None:
    """Return the pixel AUROC: the chance that a defect's pixel outscores a normal one, ties half.

    None unless there are pixels of both kinds.
    """
    negatives, positives = _sorted(pixels.negatives), _sorted(pixels.positives)
    if not len(negatives) or not len(positives):
        return None
    below = np.searchsorted(negatives, positives, "left")
    not_above = np.searchsorted(negatives, positives, "right")
    wins = (below.sum(dtype=np.float64) + not_above.sum(dtype=np.float64)) / 2
    return float(wins / (len(negatives) * len(positives)))


def spro_curve(pixels: PixelScores) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (false positive rates, mean sPRO) from (0, 0) to (1, 1), both rising.

    sPRO changes only at a region's scores, so two points for each of these, just before and at
    it, hold the whole curve. A region's sPRO min(found / saturation, 1) is the sum of 1 /
    saturation over its `saturation` best pixels. None without negatives or regions.
    """
    negatives = _sorted(pixels.negatives)
    if not len(negatives) or not pixels.regions:
        return None
    scores, gains = [], []
    for region, saturation in pixels.regions:
        best = np.sort(region)[::-1][:saturation]
        scores.append(best)
        gains.append(np.full(len(best), 1 / (saturation * len(pixels.regions))))
    scores, gains = np.concatenate(scores), np.concatenate(gains)
    order = np.argsort(-scores, kind="stable")
    thresholds, first = np.unique(-scores[order], return_index=True)
    thresholds = -thresholds  # falling
    after = np.add.reduceat(gains[order], first).cumsum()
    before = np.concatenate([[0.0], after[:-1]])
    above = len(negatives) - np.searchsorted(negatives, thresholds, "right")
    not_below = len(negatives) - np.searchsorted(negatives, thresholds, "left")
    rates = np.stack([above, not_below], 1).ravel() / len(negatives)
    heights = np.stack([before, after], 1).ravel()
    return np.concatenate([[0.0], rates, [1.0]]), np.concatenate([[0.0], heights, [after[-1]]])


def area_under(curve: tuple[np.ndarray, np.ndarray] | None, limit: float) -> float | None:
    """Return the area under a curve up to the false positive rate `limit`, divided by it."""
    if curve is None:
        return None
    rates, heights = curve
    end = int(np.searchsorted(rates, limit, "right"))
    if end < len(rates):  # cut the segment that crosses the limit
        share = (limit - rates[end - 1]) / (rates[end] - rates[end - 1])
        height = heights[end - 1] + share * (heights[end] - heights[end - 1])
        rates, heights = np.append(rates[:end], limit), np.append(heights[:end], height)
    return float(trapezoid(heights, rates) / limit)


def _sorted(parts: list[np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.float32)


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read a ground-truth image: (H, W), above 0 where the defect is.

    Raises InputError when it cannot be read or is not of the image's `size` (height, width).
    """
    try:
        with Image.open(path) as image:
            plain = MASK_MODES.get(image.mode, image.mode)
            mask = np.asarray(image.convert(plain))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"cannot read the mask {path}: {error}") from error
    mask = mask.max(2) if mask.ndim == 3 else mask
    if mask.shape != size:
        raise InputError(
            f"the mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels but its image is "
            f"{size[1]} x {size[0]}"
        )
    return mask


def components(masks: tuple[Path, ...], size: tuple[int, int]) -> list[Region]:
    """Return PRO's regions: the 8-connected components of the masks, to be covered whole."""
    union = np.zeros(size, np.uint8)
    for path in masks:
        union |= (read_mask(path, size) > 0).astype(np.uint8)
    count, labels = cv2.connectedComponents(union, connectivity=8)
    found = (labels == label for label in range(1, count))
    return [(mask, int(mask.sum())) for mask in found]


def channels(
    masks: tuple[Path, ...], size: tuple[int, int], defects_config: list[dict]
) -> list[Region]:
    """Return sPRO's regions: each mask is one, its grey value names its entry in the config.

    Raises InputError for a mask whose value the config does not list.
    """
    entries = {entry["pixel_value"]: entry for entry in defects_config}
    regions = []
    for path in masks:
        values = read_mask(path, size)
        mask = values > 0
        for value in np.unique(values[mask]).tolist():
            if value not in entries:
                raise InputError(f"{path} holds the value {value}, not in defects_config.json")
        if mask.any():
            regions.append((mask, saturation_area(int(mask.sum()), entries[int(values.max())])))
    return regions


def saturation_area(area: int, entry: dict) -> int:
    """Return how many of a channel's `area` pixels must be found; at least 1."""
    threshold = entry["saturation_threshold"]
    found = threshold * area if entry["relative_saturation"] else min(threshold, area)
    return max(1, int(found))

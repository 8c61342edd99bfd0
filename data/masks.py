"""Masks on disk → the regions that PRO and sPRO average over.

PRO's regions are the connected components of a mask and must be covered whole; sPRO's are the
channels of LOCO's ground truth, and a saturation area is enough. Sources: Bergmann et al., MVTec
AD (IJCV 2021), section 5.3; Bergmann et al., MVTec LOCO AD (IJCV 2022), section 4.
"""

from pathlib import Path

import cv2
import numpy as np

from data.image_files import Size
from data.mask_values import Odd, read_defect, read_mask
from data.samples import InputError


class UnlistedValue(InputError):
    """A mask holds a `value` that the table of defects lacks."""

    def __init__(self, masks: list[Path], value: int):
        more = f" and {len(masks) - 1} more hold" if len(masks) > 1 else " holds"
        super().__init__(f"{min(masks)}{more} the value {value}, not in defects_config.json")
        self.value = value


# One region: the flat indices of its pixels, int (n,), and how many of them must be found.
Region = tuple[np.ndarray, int]


def regions(
    masks: tuple[Path, ...],
    size: Size,
    defects_config: list[dict] | None,
    odd: Odd | None = None,
) -> list[Region]:
    """Return sPRO's regions where there is a defects_config, else PRO's, of an image of `size`.

    Adds to `odd` what is odd about the masks, for `warn_of_odd`.
    """
    if defects_config is None:
        return components(masks, size, odd)
    return channels(masks, size, defects_config, odd)


def components(masks: tuple[Path, ...], size: Size, odd: Odd | None = None) -> list[Region]:
    """Return PRO's regions: the 8-connected components of the masks, to be covered whole."""
    union = np.zeros(size, np.uint8)
    for path in masks:
        union |= read_defect(path, size, odd).view(np.uint8)
    count, labels = cv2.connectedComponents(union, connectivity=8)
    found = np.flatnonzero(union)
    kinds = labels.ravel()[found]
    by_label = found[np.argsort(kinds, kind="stable")]
    ends = np.bincount(kinds, minlength=count)[1:].cumsum()
    return [(region, len(region)) for region in np.split(by_label, ends[:-1]) if len(region)]


def channels(
    masks: tuple[Path, ...], size: Size, defects_config: list[dict], odd: Odd | None = None
) -> list[Region]:
    """Return sPRO's regions: each mask is one, its grey value names its entry in the config.

    Raises UnlistedValue for a mask whose value the config does not list.
    """
    entries = {entry["pixel_value"]: entry for entry in defects_config}
    regions = []
    for path in masks:
        values = read_mask(path, size, odd).ravel()
        found = np.flatnonzero(values > 0)
        for value in np.flatnonzero(np.bincount(values[found])).tolist():
            if value not in entries:
                raise UnlistedValue([path], value)
        if len(found):
            regions.append((found, saturation_area(len(found), entries[int(values.max())])))
    return regions


def saturation_area(area: int, entry: dict) -> int:
    """Return how many of a channel's `area` pixels must be found; at least 1."""
    threshold = entry["saturation_threshold"]
    found = threshold * area if entry["relative_saturation"] else min(threshold, area)
    return max(1, int(found))

"""Masks on disk → the regions that PRO and sPRO average over.

PRO's regions are the connected components of a mask and must be covered whole; sPRO's are the
channels of LOCO's ground truth, and a saturation area is enough. Sources: Bergmann et al., MVTec
AD (IJCV 2021), section 5.3; Bergmann et al., MVTec LOCO AD (IJCV 2022), section 4.
"""

from pathlib import Path

import cv2
import numpy as np

from data.images import Size, opened
from data.samples import InputError

# What drops an alpha channel; grey, palette and 16-bit values stay as they are.
MASK_MODES = {"RGBA": "RGB", "CMYK": "RGB", "LA": "L", "PA": "P", "1": "L"}

# One region: the flat indices of its pixels, int (n,), and how many of them must be found.
Region = tuple[np.ndarray, int]


def read_mask(path: Path, size: Size) -> np.ndarray:
    """Read a ground-truth image: (H, W), above 0 where the defect is.

    Raises InputError when it cannot be read or is not of the image's `size` (height, width).
    """
    with opened(path, kind="mask") as image:
        mask = np.asarray(image.convert(MASK_MODES.get(image.mode, image.mode)))
    if mask.dtype.kind == "f":
        raise InputError(f"the mask {path} holds floating-point pixels: save it as PNG")
    mask = mask.max(2) if mask.ndim == 3 else mask
    if mask.max(initial=0) >= 2**16:
        raise InputError(f"the mask {path} holds values above 65535: save it as 8 or 16 bits")
    if mask.shape != size:
        raise InputError(
            f"the mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels but its image is "
            f"{size[1]} x {size[0]}: save it in that size"
        )
    return mask


def regions(masks: tuple[Path, ...], size: Size, defects_config: list[dict] | None) -> list[Region]:
    """Return sPRO's regions where there is a defects_config, else PRO's, of an image of `size`."""
    if defects_config is None:
        return components(masks, size)
    return channels(masks, size, defects_config)


def components(masks: tuple[Path, ...], size: Size) -> list[Region]:
    """Return PRO's regions: the 8-connected components of the masks, to be covered whole."""
    union = np.zeros(size, np.uint8)
    for path in masks:
        union |= (read_mask(path, size) > 0).astype(np.uint8)
    count, labels = cv2.connectedComponents(union, connectivity=8)
    found = np.flatnonzero(union)
    kinds = labels.ravel()[found]
    by_label = found[np.argsort(kinds, kind="stable")]
    ends = np.bincount(kinds, minlength=count)[1:].cumsum()
    return [(region, len(region)) for region in np.split(by_label, ends[:-1]) if len(region)]


def channels(masks: tuple[Path, ...], size: Size, defects_config: list[dict]) -> list[Region]:
    """Return sPRO's regions: each mask is one, its grey value names its entry in the config.

    Raises InputError for a mask whose value the config does not list.
    """
    entries = {entry["pixel_value"]: entry for entry in defects_config}
    regions = []
    for path in masks:
        values = read_mask(path, size).ravel()
        found = np.flatnonzero(values > 0)
        for value in np.flatnonzero(np.bincount(values[found])).tolist():
            if value not in entries:
                raise InputError(f"{path} holds the value {value}, not in defects_config.json")
        if len(found):
            regions.append((found, saturation_area(len(found), entries[int(values.max())])))
    return regions


def saturation_area(area: int, entry: dict) -> int:
    """Return how many of a channel's `area` pixels must be found; at least 1."""
    threshold = entry["saturation_threshold"]
    found = threshold * area if entry["relative_saturation"] else min(threshold, area)
    return max(1, int(found))

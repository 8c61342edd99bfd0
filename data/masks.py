"""Masks on disk → the regions that PRO and sPRO average over.

PRO's regions are the connected components of a mask and must be covered whole; sPRO's are the
channels of LOCO's ground truth, and a saturation area is enough. Sources: Bergmann et al., MVTec
AD (IJCV 2021), section 5.3; Bergmann et al., MVTec LOCO AD (IJCV 2022), section 4.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data.depth import is_white_zero
from data.image_files import Size, opened, upright, warn_of
from data.samples import InputError

# What drops an alpha channel; grey, palette and 16-bit values stay as they are.
MASK_MODES = {"RGBA": "RGB", "CMYK": "RGB", "LA": "L", "PA": "P", "1": "L"}
LOSSY = ("JPEG", "MPO")  # they alter values, above all beside a rim
MOST_LABELS = 100  # equal steps from 0 up to the highest label


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
    soft: list[Path] | None = None,
) -> list[Region]:
    """Return sPRO's regions where there is a defects_config, else PRO's, of an image of `size`.

    Adds to `soft` the masks with soft edges, for `warn_of_soft`.
    """
    if defects_config is None:
        return components(masks, size, soft)
    return channels(masks, size, defects_config)


def components(masks: tuple[Path, ...], size: Size, soft: list[Path] | None = None) -> list[Region]:
    """Return PRO's regions: the 8-connected components of the masks, to be covered whole."""
    union = np.zeros(size, np.uint8)
    for path in masks:
        union |= read_defect(path, size, soft).view(np.uint8)
    count, labels = cv2.connectedComponents(union, connectivity=8)
    found = np.flatnonzero(union)
    kinds = labels.ravel()[found]
    by_label = found[np.argsort(kinds, kind="stable")]
    ends = np.bincount(kinds, minlength=count)[1:].cumsum()
    return [(region, len(region)) for region in np.split(by_label, ends[:-1]) if len(region)]


def channels(masks: tuple[Path, ...], size: Size, defects_config: list[dict]) -> list[Region]:
    """Return sPRO's regions: each mask is one, its grey value names its entry in the config.

    Raises UnlistedValue for a mask whose value the config does not list.
    """
    entries = {entry["pixel_value"]: entry for entry in defects_config}
    regions = []
    for path in masks:
        values = read_mask(path, size).ravel()
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


def read_mask(path: Path, size: Size) -> np.ndarray:
    """Read the values in a mask's file, (H, W): of a palette its indices.

    Raises InputError when it cannot be read or is not of the image's `size` (height, width).
    """
    with opened(path, kind="mask") as image:
        return checked(upright(image), path, size)


def read_defect(path: Path, size: Size, soft: list[Path] | None = None) -> np.ndarray:
    """Read where a mask shows a defect, bool (H, W): a palette's colours are looked up.

    Adds the mask to `soft` if it has soft edges; see `defect_of`. Raises as `read_mask`.
    """
    with opened(path, kind="mask") as image:
        lossy, white_is_zero = image.format in LOSSY, is_white_zero(image)
        shown = upright(image)
        if shown.mode in ("P", "PA"):
            shown = shown.convert("RGB")
        mask = checked(shown, path, size)
    if white_is_zero and mask.dtype != np.uint8:  # PIL heeds it up to 8 bits
        mask = 65535 - mask
    defect, is_soft = defect_of(mask, lossy)
    if is_soft and soft is not None:
        soft.append(path)
    return defect


def checked(image: Image.Image, path: Path, size: Size) -> np.ndarray:
    """Return a decoded mask's values, (H, W), the highest of its colours. Raises as `read_mask`."""
    mask = np.asarray(image.convert(MASK_MODES.get(image.mode, image.mode)))
    if mask.dtype.kind == "f":
        raise InputError(f"the mask {path} holds floating-point pixels: save it as PNG")
    mask = mask.max(2) if mask.ndim == 3 else mask
    negative = mask.min(initial=0) < 0
    if negative or mask.max(initial=0) >= 2**16:
        text = f"values {'below 0' if negative else 'above 65535'}: save it as 8 or 16 bits"
        raise InputError(f"the mask {path} holds {text}")
    if mask.shape != size:
        raise InputError(
            f"the mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels but its image is "
            f"{size[1]} x {size[0]}: save it in that size"
        )
    return mask


def defect_of(mask: np.ndarray, lossy: bool = False) -> tuple[np.ndarray, bool]:
    """Return where values (H, W) mean a defect, bool (H, W), and whether they have soft edges.

    Of two values the higher one does, of labels all above 0: of three values, or 0 and a few
    multiples of one step. Others come from resizing, smoothing or a `lossy` format: then those from
    half of the highest on.
    """
    defect, highest = mask > 0, int(mask.max(initial=0))
    if np.count_nonzero(defect) in (0, np.count_nonzero(mask == highest)):  # as a rule
        return defect, False
    values = np.unique(mask)
    if not lossy and len(values) == 2:
        return mask == highest, False
    if not lossy and (len(values) == 3 or highest < MOST_LABELS * int(np.gcd.reduce(values))):
        return defect, False
    return mask >= highest // 2, True


def warn_of_soft(masks: list[Path]) -> None:
    """Warn of masks with soft edges, once for all of them."""
    text = "values between background and defect, as JPEG and resizing make them"
    warn_of(masks, f"{text}; those from half of a mask's highest on count as defect")

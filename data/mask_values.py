"""Mask files → which pixels are defective, by their values and where these lie."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data.depth import deep_colours, is_deep_colour, is_white_zero
from data.image_files import Size, opened, upright, warn_of
from data.samples import InputError

# Modes without pixels that can be compared as they are; alpha is kept, last.
MASK_MODES = {"CMYK": "RGB", "RGBX": "RGB", "RGBa": "RGBA", "La": "LA", "PA": "P", "1": "L"}
WITH_ALPHA = (2, 4)  # channels
LOSSY = ("JPEG", "MPO")  # they alter values, above all beside a rim
FAINT = 16  # what a JPEG may alter a value by

# What a user should know of a mask
SOFT = (
    "values between background and defect, as JPEG and resizing make them; "
    "those from half of a mask's highest on count as defect"
)
FAINT_JPEG = f"a JPEG of values below {FAINT}, which JPEG loses: save masks as PNG"
RARER = "colours of one brightness: all but the commonest one count as defect"
EMPTY = "the mask of a defect shows none"
WHOLE = "the whole image counts as defect"
ODDITIES = (SOFT, FAINT_JPEG, RARER, EMPTY, WHOLE)

Odd = list[tuple[str, Path]]  # one of ODDITIES, and the mask


def read_mask(path: Path, size: Size, odd: Odd | None = None) -> np.ndarray:
    """Read the values in a mask's file, (H, W): of a palette its indices.

    Adds to `odd` what is odd about it, for `warn_of_odd`. Raises InputError when it cannot be read
    or is not of the image's `size` (height, width).
    """
    with opened(path, kind="mask") as image:
        values, oddities = brightness(checked(pixels_of(image, path), path, size))
    note(odd, path, *oddities, *extent(values > 0))
    return values


def read_defect(path: Path, size: Size, odd: Odd | None = None) -> np.ndarray:
    """Read where a mask shows a defect, bool (H, W): a palette's colours are looked up.

    See `defect_of`; `odd` and what it raises as in `read_mask`.
    """
    with opened(path, kind="mask") as image:
        lossy, inverted = image.format in LOSSY, is_white_zero(image)
        pixels = checked(pixels_of(image, path, look_up=True), path, size)
    if inverted and pixels.dtype != np.uint8:  # PIL heeds it up to 8 bits
        pixels = 65535 - pixels
    values, oddities = brightness(pixels)
    defect, soft = defect_of(values, lossy)
    if lossy and 0 < values.max() < FAINT:
        oddities.append(FAINT_JPEG)
    elif soft:
        oddities.append(SOFT)
    note(odd, path, *oddities, *extent(defect))
    return defect


def pixels_of(image: Image.Image, path: Path, look_up: bool = False) -> np.ndarray:
    """Decode a mask, (H, W) or (H, W, C) with alpha last; of a palette the indices, or colours."""
    deep = is_deep_colour(image)
    shown = upright(image)
    if shown.mode in ("P", "PA") and look_up:
        shown = shown.convert("RGBA" if shown.has_transparency_data else "RGB")
    pixels = np.asarray(shown.convert(MASK_MODES.get(shown.mode, shown.mode)))
    if not deep or pixels.ndim == 2:
        return pixels
    colours = deep_colours(image, path, None)
    has_alpha = pixels.shape[2] in WITH_ALPHA
    return np.dstack([colours, pixels[..., -1]]) if has_alpha else colours


def checked(pixels: np.ndarray, path: Path, size: Size) -> np.ndarray:
    """Return a mask's pixels as uint8 or uint16. Raises as `read_mask`."""
    if pixels.dtype.kind == "f":
        raise InputError(f"the mask {path} holds floating-point pixels: save it as PNG")
    negative = pixels.min(initial=0) < 0
    if negative or pixels.max(initial=0) >= 2**16:
        text = f"values {'below 0' if negative else 'above 65535'}: save it as 8 or 16 bits"
        raise InputError(f"the mask {path} holds {text}")
    if pixels.shape[:2] != size:
        raise InputError(
            f"the mask {path} is {pixels.shape[1]} x {pixels.shape[0]} pixels but its image is "
            f"{size[1]} x {size[0]}: save it in that size"
        )
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.uint16)


def brightness(pixels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return one value for each of a mask's pixels, (H, W), and what is odd about them.

    The brightest of its colours; where that is the same everywhere its alpha, and otherwise how far
    its colours are from the commonest one.
    """
    if pixels.ndim == 2:
        return pixels, []
    colours, alpha = pixels, None
    if pixels.shape[2] in WITH_ALPHA:
        colours, alpha = pixels[..., :-1], pixels[..., -1]
    brightest = colours.max(2)
    contrast = np.ptp(brightest)
    if not contrast and alpha is not None and np.ptp(alpha):
        return alpha, []
    if contrast >= np.ptp(colours, (0, 1)).max() / 2:  # not 0: JPEG alters one brightness, too
        return brightest, []
    return distance_from_commonest(colours), [RARER]


def distance_from_commonest(colours: np.ndarray) -> np.ndarray:
    """Return how far (H, W, C) is from its commonest colour, (H, W): the largest difference."""
    codes = colours.astype(np.int64) @ 2 ** (16 * np.arange(colours.shape[2]))
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    commonest = colours.reshape(-1, colours.shape[2])[first[counts.argmax()]]
    distance = np.abs(colours.astype(np.int32) - commonest)
    return distance.max(2).astype(colours.dtype)


def defect_of(mask: np.ndarray, lossy: bool = False) -> tuple[np.ndarray, bool]:
    """Return where values (H, W) mean a defect, bool (H, W), and whether they have soft edges.

    Of two values the higher one does, of labels all above 0, of soft edges, as resizing, smoothing
    or a `lossy` format make them, those from half of the highest on.
    """
    defect, highest = mask > 0, int(mask.max(initial=0))
    if np.count_nonzero(defect) in (0, np.count_nonzero(mask == highest)):  # as a rule
        return defect, False
    if not lossy and len(np.unique(mask)) == 2:
        return mask == highest, False
    if not lossy and not has_soft_edges(mask):
        return defect, False
    return 2 * mask.astype(np.int32) >= highest, True


def has_soft_edges(mask: np.ndarray) -> bool:
    """Tell soft edges from labels, in a mask (H, W) of more than two values.

    It has them if at least half of the values between its lowest and its highest have at least half
    of their pixels on edges.
    """
    pixels = np.bincount(mask.ravel())
    on_edges = np.bincount(mask[edges(mask)], minlength=len(pixels))
    between = np.flatnonzero(pixels)[1:-1]
    soft = np.count_nonzero(2 * on_edges[between] >= pixels[between])
    return 2 * soft >= len(between)


def edges(mask: np.ndarray) -> np.ndarray:
    """Return which pixels (H, W) have a higher neighbour and a lower one, or else fill no square.

    A label's pixels fill squares, of 2 x 2 at least, or have but the background around them.
    """
    around, square = np.ones((3, 3), np.uint8), np.ones((2, 2), np.uint8)
    has_lower, has_higher = cv2.erode(mask, around) < mask, mask < cv2.dilate(mask, around)
    lowest, highest = (f(mask, square, anchor=(0, 0)) for f in (cv2.erode, cv2.dilate))
    fills_square = cv2.dilate((lowest == highest).view(np.uint8), square, anchor=(1, 1)) > 0
    return has_higher & (has_lower | ~fills_square)


def extent(defect: np.ndarray) -> list[str]:
    """Return what is odd about how much of an image (H, W) is defective."""
    return [] if defect.any() and not defect.all() else [WHOLE if defect.any() else EMPTY]


def note(odd: Odd | None, path: Path, *oddities: str) -> None:
    """Add what is odd about a mask to `odd`, if there is such a list."""
    if odd is not None:
        odd += [(oddity, path) for oddity in oddities]


def warn_of_odd(odd: Odd) -> None:
    """Warn of masks, once for all that are odd in the same way."""
    for oddity in ODDITIES:
        warn_of([path for found, path in odd if found == oddity], oddity)

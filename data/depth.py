"""Images deeper than 8 bits: which depth their values have, and their way to 8 bits.

A camera of 10, 12 or 14 bits stores its values as they are in files of 16 bits, of which they fill
a 64th to a quarter. One depth for all images of a category keeps its grey levels comparable.
"""

from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from data.image_files import BITS_PER_SAMPLE, PHOTOMETRIC, opened, turn_of, turned, upright
from data.samples import InputError

DEPTHS = (8, 10, 12, 14, 16)  # bits, of cameras
WHITE_IS_ZERO = 0  # photometric interpretation of a TIFF; source: TIFF 6.0, section 4


class Picture(NamedTuple):
    """What an image file holds, upright; `bits` is the smallest of DEPTHS that it fits into."""

    pixels: Image.Image | np.ndarray  # deeper than 8 bits: uint16 (H, W) or (H, W, 3)
    bits: int = 8
    white_is_zero: bool = False

    @property
    def is_deep(self) -> bool:
        """Whether its file is deeper than 8 bits, if maybe not its values."""
        return isinstance(self.pixels, np.ndarray)

    def rgb(self, bits: int | None = None) -> Image.Image:
        """Return it as 8-bit RGB; values of a deep file are of `bits`, or of its own."""
        if not self.is_deep:
            return self.pixels.convert("RGB")
        levels = grey_levels(bits or self.bits, self.white_is_zero)
        return Image.fromarray(levels[self.pixels]).convert("RGB")


@lru_cache
def grey_levels(bits: int, white_is_zero: bool) -> np.ndarray:
    """Return the grey level of each 16-bit value, uint8 (65536,): rounded, clipped at `bits`."""
    most = 2**bits - 1
    values = np.arange(2**16).clip(max=most)
    levels = ((values * 255 + most // 2) // most).astype(np.uint8)
    return 255 - levels if white_is_zero else levels


def depth(values: np.ndarray) -> int:
    """Return the smallest of DEPTHS that holds all of these 16-bit values."""
    return next(bits for bits in DEPTHS if values.max(initial=0) < 2**bits)


def read_picture(path: Path, content: BinaryIO | None = None) -> Picture:
    """Read an image file; `content` is what it holds if it lies in an archive.

    Raises InputError naming a file that is missing, cut short, too large or no image that we can
    show.
    """
    with opened(path, content) as image:
        if image.mode == "F":
            raise InputError(f"{path} holds floating-point pixels of unknown range: save it as PNG")
        if is_deep_colour(image):
            pixels = deep_colours(image, path, content)
        elif image.mode.startswith("I"):
            pixels = deep_greys(image, path)
        else:
            return Picture(upright(image))
        return Picture(pixels, depth(pixels), is_white_zero(image))


def is_white_zero(image: Image.Image) -> bool:
    """Tell whether a grey image says that 0 is white, which PIL heeds up to 8 bits alone."""
    return image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO


def is_deep_colour(image: Image.Image) -> bool:
    """Tell whether a colour has 16 bits, of which PIL keeps the upper 8."""
    if image.mode.startswith("I"):
        return False
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))) == 16
    return image.format == "PNG" and any(";16" in tile[3] for tile in image.tile)


def deep_greys(image: Image.Image, path: Path) -> np.ndarray:
    """Return an image's grey values, uint16 (H, W), upright."""
    values = np.asarray(upright(image))
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path} holds 32-bit pixels of unknown range: save it as 8 or 16 bits")
    return values.astype(np.uint16)


def deep_colours(image: Image.Image, path: Path, content: BinaryIO | None) -> np.ndarray:
    """Return an image's 16-bit colours, uint16 (H, W, 3), upright.

    OpenCV reads them; it is believed where its upper 8 bits are what PIL, with its checks, reads.
    """
    import cv2  # here, so that a command that meets no such image starts sooner

    turn = turn_of(image)
    image.load()
    encoded = content.getbuffer() if content else path.read_bytes()
    silence_opencv()
    values = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    upper = np.asarray(image.convert("RGB"))
    if values is None or values.ndim < 3 or not np.array_equal(values[..., 2::-1] >> 8, upper):
        raise InputError(f"cannot read the 16-bit colours of {path}: save it as PNG without alpha")
    bands = [Image.fromarray(values[..., band].copy()) for band in (2, 1, 0)]
    return np.stack([np.asarray(turned(band, turn)) for band in bands], -1)


def silence_opencv() -> None:
    """Keep OpenCV from writing lines of its own to stderr: our error says it."""
    import cv2

    set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # version 4, 5
    set_level(0)

"""Image files from anybody: opened without trust, checked by their headers, turned upright."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import Transpose

from data.samples import InputError, require_file

Size = tuple[int, int]  # height, width, in pixels

# What PIL may take a file for: it knows others, some of which start other programs.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "PPM", "GIF", "JPEG2000", "AVIF")
MOST_PIXELS = 89_478_485  # a quarter of a GiB as RGB; a few bytes can claim any number
TOO_MANY = f"more than {MOST_PIXELS // 10**6} million"

# Tags of a TIFF; source: TIFF 6.0, sections 8 and 12
NEW_SUBFILE_TYPE, SUBFILE_TYPE = 254, 255
WIDTH, HEIGHT, BITS_PER_SAMPLE, PHOTOMETRIC = 256, 257, 258, 262
REDUCED = 1  # bit of NewSubfileType: a smaller copy of another page
FORMERLY_REDUCED = 2  # the same as a SubfileType
MOST_PAGES = 32  # that are looked at: a pyramid of 89 million pixels has 14

# A PNG's bytes; source: PNG (third edition), section 5
SIGNATURE, CHECKSUM = 8, 4
MOST_CHUNKS = 2**16  # that are looked at: half a GB in those of 8 KiB, as usual
MOST_EXIF = 2**16  # bytes, as in a JPEG

# What shows an image upright, by its EXIF orientation; source: EXIF 2.32, tag 274
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
SWAPPING = (5, 6, 7, 8)  # orientations that swap height and width


@contextmanager
def opened(
    path: Path, content: BinaryIO | None = None, kind: str = "image"
) -> Iterator[Image.Image]:
    """Give an image file, not decoded yet; `content` is what it holds if it lies in an archive.

    Raises InputError, which calls it `kind`, for whatever fails in the block: a damaged file fails
    in any way.
    """
    try:
        if content is None:
            require_file(path)
        Image.init()  # or only some of the formats are known
        known = [name for name in FORMATS if name in Image.OPEN]  # Pillow 11.3 brought AVIF
        with Image.open(content or path, formats=known) as image:
            check_header(image)
            if image.format == "TIFF":  # PIL maps a file that it knows by name, and turns it wrong
                image.filename = ""
            if image.format == "PNG" and "exif" not in image.info:
                image.info |= exif_of_png(image.fp)
            yield image
    except (InputError, MemoryError):
        raise
    except Exception as error:
        text = f"cannot read the {kind} {path}: {reason(error)}; replace or remove it"
        raise InputError(text) from error


def reason(error: Exception) -> str:
    """Say why an image cannot be read."""
    if isinstance(error, UnidentifiedImageError):
        return "no known format"
    if isinstance(error, Image.DecompressionBombError):  # PIL's own limit is twice ours
        return f"its pixels are {TOO_MANY}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def check_header(image: Image.Image) -> None:
    """Raise ValueError for an image that is too large or one of several in its file."""
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"its {image.width} x {image.height} pixels are {TOO_MANY}")
    if image.format == "TIFF":
        several = has_second_image(image)
    else:  # a camera's MPO holds a preview beside the image
        several = image.format != "MPO" and getattr(image, "is_animated", False)
    if several:
        raise ValueError("it holds several images, and which is meant is not known")


def has_second_image(image: Image.Image) -> bool:
    """Tell whether a TIFF has a page, of its first ones, beside smaller copies of the first."""
    try:
        for page in range(1, MOST_PAGES):
            image.seek(page)
            reduced = int(image.tag_v2.get(NEW_SUBFILE_TYPE, 0)) & REDUCED
            if not reduced and image.tag_v2.get(SUBFILE_TYPE) != FORMERLY_REDUCED:
                return True
    except EOFError:
        pass
    image.seek(0)
    return False


def exif_of_png(file: BinaryIO) -> dict[str, bytes]:
    """Return the EXIF of a PNG as PIL stores it, {} if there is none, without decoding its pixels.

    PIL reads what lies behind them, which is allowed, only after them.
    """
    former = file.tell()
    file.seek(SIGNATURE)
    found = {}
    for _ in range(MOST_CHUNKS):
        length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        if kind == b"eXIf":
            found["exif"] = b"Exif\0\0" + file.read(min(length, MOST_EXIF))
        if kind in (b"eXIf", b"IEND", b""):
            break
        file.seek(length + CHECKSUM, 1)
    file.seek(former)
    return found


def orientation(image: Image.Image) -> int:
    """Return an image's EXIF orientation, without decoding it; 1, upright, if that is damaged."""
    try:
        # a PNG's own method would decode the image, to look for EXIF behind its pixels
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # damaged in any way
        return 1
    return found if found in TURNS else 1


def upright_size(image: Image.Image) -> Size:
    """Return the (height, width) that an image is shown in, without decoding it."""
    width, height = image.size
    if image.format == "TIFF":  # some versions of PIL have swapped these already
        width, height = image.tag_v2[WIDTH], image.tag_v2[HEIGHT]
    return (width, height) if orientation(image) in SWAPPING else (height, width)


def turn_of(image: Image.Image) -> Transpose | None:
    """Return what turns an image's decoded pixels upright: nothing for a TIFF, PIL does it."""
    return None if image.format == "TIFF" else TURNS.get(orientation(image))


def turned(image: Image.Image, turn: Transpose | None) -> Image.Image:
    """Turn an image as `turn_of` says."""
    return image if turn is None else image.transpose(turn)


def upright(image: Image.Image) -> Image.Image:
    """Decode an image as every viewer shows it."""
    size, turn = upright_size(image), turn_of(image)
    image.load()
    image = turned(image, turn)
    if (image.height, image.width) != size:
        raise ValueError("its pixels are not of the size that its header says")
    return image


def warn_of(paths: list[Path], text: str) -> None:
    """Warn of files, once for all of them: one example, how many more, and `text`."""
    if paths:
        first, *more = sorted(set(paths))
        warn_once(f"{first}{f' and {len(more)} more' * bool(more)}: {text}")


@cache
def warn_once(text: str) -> None:
    """Warn; not again when the same files are read again."""
    warnings.warn(text, stacklevel=3)

"""Images and masks that say how they are to be turned are read as every viewer shows them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from data.images import decode, image_size
from data.mask_values import read_mask
from data.masks import components
from tests.data.waves import colours, write

ORIENTATION = 274
# What an orientation says of the stored rows and columns; source: TIFF 6.0, page 36.
SHOWN = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],  # the first column is the right side
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],  # the first row is the bottom
    5: lambda stored: stored.swapaxes(0, 1),  # the first row is the left side, its start the top
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],  # the first row is the right side
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored: stored.swapaxes(0, 1)[
        ::-1
    ],  # the first row is the left side, its end the top
}


def tagged(path: Path, pixels: np.ndarray, orientation: int, **options) -> Path:
    """Save an image with the EXIF that a camera writes."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return path


def tagged_tiff(path: Path, pixels: np.ndarray, orientation: int, **options) -> Path:
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    tags = [(ORIENTATION, "H", 1, orientation, True)]
    tifffile.imwrite(path, pixels, photometric=photometric, extratags=tags, **options)
    return path


def add_exif(path: Path, orientation: int, behind: bool) -> None:
    """Put EXIF into a PNG: behind its header or, as is allowed as well, behind its pixels."""
    tag = tagged(path.with_name("tag.png"), np.zeros((1, 1), np.uint8), orientation).read_bytes()
    start = tag.index(b"eXIf") - 4
    chunk = tag[start : start + 12 + int.from_bytes(tag[start : start + 4], "big")]
    content = path.read_bytes()
    place = len(content) - 12 if behind else 33  # the end is 12 bytes, signature and header 33
    path.write_bytes(content[:place] + chunk + content[place:])


def assert_shown(path: Path, expected: np.ndarray, tolerance: float = 0) -> None:
    """Check size and colours of an image, which is grey where `expected` is (H, W)."""
    assert image_size(path) == expected.shape[:2]
    found = np.asarray(decode(path)).astype(int)
    expected = expected if expected.ndim == 3 else np.stack([expected] * 3, -1)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() <= tolerance


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_an_image_is_turned_as_its_exif_says(tmp_path, suffix, orientation):
    options = {"jpg": {"quality": 98, "subsampling": 0}, "webp": {"lossless": True}}
    path = tmp_path / f"image.{suffix}"
    tagged(path, colours(), orientation, **options.get(suffix, {}))
    assert_shown(path, SHOWN[orientation](colours()), 2 if suffix == "jpg" else 0)


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("packed", [None, "zlib"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiff_is_turned_at_every_depth(tmp_path, bits, channels, packed, orientation):
    stored = colours() if channels == 3 else colours()[..., 0]
    deep = stored.astype(np.uint16) * 257 if bits == 16 else stored
    path = tagged_tiff(tmp_path / "image.tif", deep, orientation, compression=packed)
    assert_shown(path, SHOWN[orientation](stored))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("behind", [False, True])
def test_a_deep_png_is_turned(tmp_path, channels, behind):
    stored = colours() if channels == 3 else colours()[..., 0]
    path = tmp_path / "image.png"
    swapped = stored[..., ::-1] if channels == 3 else stored  # OpenCV begins with blue
    cv2.imwrite(str(path), swapped * np.uint16(257))
    add_exif(path, 6, behind)
    assert_shown(path, SHOWN[6](stored))


@pytest.mark.parametrize("orientation", SHOWN)
def test_a_png_is_turned_by_what_lies_behind_its_pixels(tmp_path, orientation):
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), noise[..., ::-1])
    assert path.read_bytes().count(b"IDAT") > 1
    add_exif(path, orientation, behind=True)
    assert_shown(path, SHOWN[orientation](noise))


@pytest.mark.parametrize("cut", [4, 10])
def test_a_png_without_its_end_is_still_searched_for_exif(tmp_path, cut):
    path = write(tmp_path / "image.png")
    add_exif(path, 6, behind=True)
    path.write_bytes(path.read_bytes()[:-cut])
    assert image_size(path) == colours().shape[1::-1]


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_is_none_changes_nothing(tmp_path, orientation):
    assert_shown(tagged(tmp_path / "image.png", colours(), orientation), colours())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0no tags", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"]
)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_damaged_exif_does_not_refuse_an_image(tmp_path, suffix, exif):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(colours()).save(path, exif=exif)
    assert image_size(path) == decode(path).size[::-1] == (40, 56)


def test_a_mask_is_turned_like_its_image(tmp_path):
    stored = np.zeros((40, 56), np.uint8)
    stored[3:9, 5:20] = 255
    path = tagged(tmp_path / "mask.png", stored, 8)
    shown = SHOWN[8](stored)
    np.testing.assert_array_equal(read_mask(path, (56, 40)), shown)
    ((pixels, _),) = components((path,), (56, 40))
    np.testing.assert_array_equal(pixels, np.flatnonzero(shown))


def test_an_image_without_orientation_is_as_it_was(tmp_path):
    assert_shown(write(tmp_path / "image.png"), colours())

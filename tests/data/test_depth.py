"""Values of 10 to 16 bits, inverted greys and 16-bit colours keep their grey levels."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from data.images import decode, image_batches
from data.samples import InputError

SIZE = (40, 56)


def camera(bits: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Draw what a camera stores: uint16 values that need all of `bits`."""
    values = np.random.default_rng(seed).integers(0, 2**bits, (*SIZE, channels)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    return values[..., 0] if channels == 1 else values


def levels(values: np.ndarray, bits: int) -> np.ndarray:
    """Return the grey levels of values, not rounded, (H, W, 3)."""
    grey = values.astype(float) * 255 / (2**bits - 1)
    return grey if grey.ndim == 3 else np.stack([grey] * 3, -1)


def assert_levels(path: Path, expected: np.ndarray, bits: int | None = None) -> None:
    """Check an image's grey levels, to half a level."""
    assert np.abs(np.asarray(decode(path, bits=bits)) - expected).max() <= 0.5


def save(path: Path, values: np.ndarray, **options) -> Path:
    if path.suffix == ".png":
        cv2.imwrite(str(path), values if values.ndim == 2 else values[..., ::-1])
    else:
        options.setdefault("photometric", "minisblack" if values.ndim == 2 else "rgb")
        tifffile.imwrite(path, values, **options)
    return path


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_an_image_alone_is_read_at_the_smallest_depth_that_holds_it(tmp_path, name, channels, bits):
    values = camera(bits, channels)
    assert_levels(save(tmp_path / name, values), levels(values, bits))


@pytest.mark.parametrize("bits", [12, 16])
def test_a_given_depth_is_the_scale_however_dark_an_image_is(tmp_path, bits):
    values = camera(10)
    assert_levels(save(tmp_path / "dark.png", values), levels(values, bits), bits)


def test_values_above_the_given_depth_are_white(tmp_path):
    values = camera(12)
    path = save(tmp_path / "bright.png", values)
    assert_levels(path, levels(np.minimum(values, 1023), 10), 10)


@pytest.mark.parametrize("bits", [None, 8])
def test_16_bits_that_hold_values_of_8_are_values_of_8(tmp_path, bits):
    values = camera(8)
    assert_levels(save(tmp_path / "shallow.png", values), levels(values, 8), bits)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_files_of_8_bits_are_left_alone_by_a_depth(tmp_path, bits):
    values = camera(8).astype(np.uint8)
    assert_levels(save(tmp_path / "plain.png", values), levels(values, 8), bits)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_0_is_white_where_a_tiff_says_so(tmp_path, bits):
    values = camera(bits).astype(np.uint8 if bits == 8 else np.uint16)
    path = save(tmp_path / "inverted.tif", values, photometric="miniswhite")
    assert_levels(path, 255 - levels(values, bits))


@pytest.mark.parametrize("packed", [None, "zlib"])
def test_alpha_of_16_bits_is_dropped(tmp_path, packed):
    values = camera(12, 4)
    options = {"extrasamples": ["unassalpha"], "compression": packed}
    path = save(tmp_path / "alpha.tif", values, photometric="rgb", **options)
    assert_levels(path, levels(values[..., :3], 12))


def test_16_bit_colours_that_cannot_be_read_rightly_are_refused(tmp_path):
    """Planes one after the other, which neither library reads."""
    planes = np.moveaxis(camera(12, 3), 2, 0)
    path = tmp_path / "planes.tif"
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(InputError, match="16-bit colours") as caught:
        decode(path)
    assert str(path) in str(caught.value)


def test_16_bits_of_cmyk_are_refused_in_one_line(tmp_path, capfd):
    path = save(tmp_path / "print.tif", camera(16, 4), photometric="separated")
    with pytest.raises(InputError, match="16-bit colours"):
        decode(path)
    assert capfd.readouterr() == ("", "")


def test_images_above_the_depth_are_told_in_one_warning(tmp_path, recwarn):
    paths = [save(tmp_path / f"{bits}.png", camera(bits)) for bits in (10, 12, 14, 16)]
    assert len(list(image_batches(paths, (16, 16), 2, 2, bits=12))) == 2
    (warning,) = recwarn
    assert f"{tmp_path / '14.png'} and 1 more" in str(warning.message)


# Thumbnails


def pages(path: Path, *types: int) -> Path:
    """Write a TIFF whose pages have these NewSubfileTypes."""
    with tifffile.TiffWriter(path) as file:
        for number, kind in enumerate(types):
            side = 40 // (number + 1)
            file.write(np.full((side, side), 90 + number, np.uint8), subfiletype=kind)
    return path


@pytest.mark.parametrize("types", [(0, 1), (0, 1, 1, 1)])
def test_a_marked_thumbnail_is_no_second_image(tmp_path, types):
    pixels = np.asarray(decode(pages(tmp_path / "image.tif", *types)))
    np.testing.assert_array_equal(pixels, np.full((40, 40, 3), 90))


def test_a_thumbnail_with_the_older_mark_is_no_second_image(tmp_path):
    path = tmp_path / "image.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.full((40, 40), 90, np.uint8))
        file.write(np.full((20, 20), 91, np.uint8), extratags=[(255, "H", 1, 2, True)])
    np.testing.assert_array_equal(np.asarray(decode(path)), np.full((40, 40, 3), 90))


@pytest.mark.parametrize("types", [(0, 0), (0, 1, 0), (1, 0)])
def test_a_second_image_beside_thumbnails_is_refused(tmp_path, types):
    with pytest.raises(InputError, match="several images"):
        decode(pages(tmp_path / "image.tif", *types))


def test_a_ring_of_thumbnails_ends(tmp_path):
    path = pages(tmp_path / "ring.tif", 0, 1)
    content = bytearray(path.read_bytes())
    first = int.from_bytes(content[4:8], "little")
    entries = int.from_bytes(content[first : first + 2], "little")
    end = first + 2 + 12 * entries
    second = int.from_bytes(content[end : end + 4], "little")
    end = second + 2 + 12 * int.from_bytes(content[second : second + 2], "little")
    content[end : end + 4] = second.to_bytes(4, "little")  # it follows itself
    path.write_bytes(content)
    assert decode(path).size == (40, 40)

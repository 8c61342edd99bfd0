"""Decoding: odd files are read as what they are, and one that cannot be read is named."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from data.images import decode
from data.samples import InputError
from tests.data.waves import colours, write


def decoded(path: Path) -> np.ndarray:
    image = decode(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".PNG"])
def test_a_lossless_colour_image_is_read_as_it_is(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), colours()[..., ::-1])
    np.testing.assert_array_equal(decoded(path), colours())


def test_a_jpeg_is_read_as_rgb(tmp_path):
    Image.fromarray(colours()).save(tmp_path / "a.jpg", quality=98, subsampling=0)
    assert np.abs(decoded(tmp_path / "a.jpg") - colours()).mean() < 2


def test_grayscale_is_repeated(tmp_path):
    grey = colours()[..., 0]
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    np.testing.assert_array_equal(decoded(tmp_path / "grey.png"), np.stack([grey] * 3, -1))


def test_black_and_white_becomes_0_and_255(tmp_path):
    bits = colours()[..., 0] > 128
    Image.fromarray(bits).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(decoded(tmp_path / "bits.png")[..., 1], np.where(bits, 255, 0))


def test_a_palette_is_looked_up(tmp_path):
    palette = np.random.default_rng(1).integers(0, 256, (7, 3))
    indices = np.arange(40 * 56).reshape(40, 56) % 7
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(tmp_path / "palette.png")
    with Image.open(tmp_path / "palette.png") as file:
        assert file.mode == "P"
    np.testing.assert_array_equal(decoded(tmp_path / "palette.png"), palette[indices])


@pytest.mark.parametrize("channels", [3, 1])
def test_alpha_is_dropped(tmp_path, channels):
    pixels = colours()[..., :channels]
    alpha = np.linspace(0, 255, pixels[..., 0].size).reshape(*pixels.shape[:2], 1)
    both = np.concatenate([pixels, alpha.astype(np.uint8)], -1)
    Image.fromarray(both).save(tmp_path / "alpha.png")
    expected = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    np.testing.assert_array_equal(decoded(tmp_path / "alpha.png"), expected)


def test_cmyk_becomes_rgb(tmp_path):
    inks = np.zeros((20, 30, 4), np.uint8)
    inks[:, :10, 0] = 255  # cyan, then magenta, then black
    inks[:, 10:20, 1] = 255
    inks[:, 20:, 3] = 255
    Image.frombytes("CMYK", (30, 20), inks.tobytes()).save(tmp_path / "cmyk.tif")
    pixels = decoded(tmp_path / "cmyk.tif")
    assert pixels[10, 5].tolist() == [0, 255, 255]
    assert pixels[10, 15].tolist() == [255, 0, 255]
    assert pixels[10, 25].tolist() == [0, 0, 0]


def deep(channels: int) -> np.ndarray:
    """Draw 16-bit ramps from 0 to 65535: (40, 56) or (40, 56, 3)."""
    ramp = np.linspace(0, 65535, 40 * 56).round().astype(np.uint16).reshape(40, 56)
    return ramp if channels == 1 else np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["png", "tiff", "big-endian tiff"])
def test_16_bits_are_scaled_to_8_and_not_clipped(tmp_path, kind, channels):
    pixels = deep(channels)
    path = tmp_path / f"deep.{kind[-4:].strip()}"
    if kind == "png":
        cv2.imwrite(str(path), pixels if channels == 1 else pixels[..., ::-1])
    else:
        photometric = "minisblack" if channels == 1 else "rgb"
        order = ">" if kind.startswith("big") else "<"
        tifffile.imwrite(path, pixels, photometric=photometric, byteorder=order)
    expected = pixels / 65535 * 255
    expected = expected if channels == 3 else np.stack([expected] * 3, -1)
    assert np.abs(decoded(path) - expected).max() <= 1


def truncated(path: Path) -> None:
    write(path.with_name("whole.png"))
    path.write_bytes(path.with_name("whole.png").read_bytes()[:900])


def cut_jpeg(path: Path) -> None:
    write(path.with_name("whole.jpg"))
    path.write_bytes(path.with_name("whole.jpg").read_bytes()[:600])


FAULTS = {
    "truncated.png": truncated,
    "truncated.jpg": cut_jpeg,
    "text.png": lambda path: path.write_text("not a picture"),
    "empty.png": lambda path: path.write_bytes(b""),
    "missing.png": lambda path: None,
    "folder.png": lambda path: path.mkdir(),
    "float.tif": lambda path: tifffile.imwrite(path, np.full((9, 9), 0.5, np.float32)),
    "wide.tif": lambda path: tifffile.imwrite(path, np.full((9, 9), 2**20, np.int32)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_unreadable_image_is_an_input_error_that_names_it(tmp_path, name):
    FAULTS[name](tmp_path / name)
    with pytest.raises(InputError) as caught:
        decode(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "ppm", "webp"])
def test_an_image_cut_anywhere_is_whole_or_an_input_error(tmp_path, suffix):
    whole = write(tmp_path / f"whole.{suffix}", size=(9, 11))
    expected, content = decoded(whole), whole.read_bytes()
    cut, refused = tmp_path / f"cut.{suffix}", 0
    for length in range(0, len(content), 3):
        cut.write_bytes(content[:length])
        try:
            np.testing.assert_array_equal(decoded(cut), expected)
        except InputError:
            refused += 1
    assert refused > len(content) / 3 / 2

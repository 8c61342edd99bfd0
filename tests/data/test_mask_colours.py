"""A defect is found in whatever colours or alpha a mask shows it, and odd masks are told."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.mask_values import read_defect, read_mask, warn_of_odd
from data.samples import Category, Sample
from tests.data.drawn_masks import SIZE, entry, save, square
from training.reading import read_images

DEFECT = square(1) > 0
RED, BLUE, WHITE, BLACK = (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def painted(defect: tuple[int, ...], background: tuple[int, ...]) -> np.ndarray:
    """Draw the square in one colour on another, uint8 (H, W, C)."""
    return np.where(DEFECT[..., None], defect, background).astype(np.uint8)


def told(path: Path, recwarn) -> str:
    """Return what is told of a mask that shows the square."""
    odd: list = []
    np.testing.assert_array_equal(read_defect(path, SIZE, odd), DEFECT)
    warn_of_odd(odd)
    return "".join(str(warning.message) for warning in recwarn)


@pytest.mark.parametrize("defect, background", [(RED, WHITE), (RED, BLUE), (BLUE, RED)])
def test_of_colours_of_one_brightness_the_rarer_is_the_defect_and_that_is_told(
    tmp_path, defect, background, recwarn
):
    path = save(tmp_path / "mask.png", painted(defect, background))
    assert f"{path}: colours of one brightness" in told(path, recwarn)


def test_a_jpeg_of_red_on_white_shows_what_is_red(tmp_path):
    square = np.full((64, 96, 3), 255, np.uint8)
    square[16:32, 32:64] = RED  # whole blocks, which JPEG keeps
    path = save(tmp_path / "mask.jpg", square, quality=95, subsampling=0)
    np.testing.assert_array_equal(read_defect(path, (64, 96)), square[..., 1] == 0)


@pytest.mark.parametrize(
    "colour, background",
    [(BLACK, BLACK), (WHITE, WHITE), (RED, RED), (RED, WHITE), (WHITE, BLACK)],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_what_is_painted_in_alpha_is_the_defect(tmp_path, colour, background, suffix, recwarn):
    path = save(tmp_path / f"mask.{suffix}", painted((*colour, 255), (*background, 0)))
    assert told(path, recwarn) == ""


def test_grey_with_a_painted_alpha_is_read_alike_with_a_table_of_defects(tmp_path):
    path = save(tmp_path / "mask.png", painted((0, 250), (0, 0)))
    np.testing.assert_array_equal(read_defect(path, SIZE), DEFECT)
    np.testing.assert_array_equal(read_mask(path, SIZE), np.where(DEFECT, 250, 0))


def test_a_palette_with_a_clear_background_shows_what_is_not_clear(tmp_path):
    image = Image.fromarray(DEFECT.astype(np.uint8))
    image.putpalette([0] * 6)
    image.save(tmp_path / "mask.png", transparency=0)
    np.testing.assert_array_equal(read_defect(tmp_path / "mask.png", SIZE), DEFECT)


@pytest.mark.parametrize("value", [1, 200, 65535])
@pytest.mark.parametrize("channels", [3, 4])
def test_no_bit_of_colours_of_16_is_lost(tmp_path, value, channels):
    pixels = np.stack([square(value, np.uint16)] * 3 + [np.full(SIZE, 65535, np.uint16)], 2)
    cv2.imwrite(str(tmp_path / "mask.png"), pixels[..., :channels])
    np.testing.assert_array_equal(read_defect(tmp_path / "mask.png", SIZE), DEFECT)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", SIZE), square(value, np.uint16))


@pytest.mark.parametrize("value, text", [(0, "shows none"), (255, "the whole image")])
@pytest.mark.parametrize("config", [None, [entry(255, 1.0, True)]])
def test_masks_that_show_nothing_or_everything_are_told_once(
    tmp_path, value, text, config, recwarn
):
    samples = []
    for number in range(3):
        pixels = np.full((*SIZE, 3), 90, np.uint8)
        image = save(tmp_path / f"{number}.png", pixels)
        mask = save(tmp_path / f"mask{number}.png", pixels[..., 0] * 0 + np.uint8(value))
        samples.append(Sample(image, 1, "stain", (mask,)))
    assert not read_images(Category("bolt", [], [], samples, config), None, 1)[2]
    (warning,) = recwarn
    assert f"{tmp_path / 'mask0.png'} and 2 more: " in str(warning.message)
    assert text in str(warning.message)

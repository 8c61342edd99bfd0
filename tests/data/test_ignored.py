"""A region to ignore: what is white in it reaches no pixel that is looked at."""

from itertools import product

import numpy as np
import pytest
import tifffile
from PIL import Image

from data.ignored import read_region, scaled, text_of
from data.images import resize
from data.samples import InputError

SIZES = [(64, 64), (128, 160), (61, 100)]  # height, width of what a detector sees
REGIONS = [(96, 96), (64, 64), (20, 7), (300, 411), (1, 2)]
PICTURES = [(96, 96), (128, 160), (131, 205), (400, 300)]


def two_spots(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Return a region, bool (H, W), with two rectangles."""
    rng, white = np.random.default_rng(seed), np.zeros(shape, bool)
    for _ in range(2):
        top, left = (int(rng.integers(side)) for side in shape)
        white[top : top + 1 + shape[0] // 5, left : left + 1 + shape[1] // 5] = True
    return white


def in_frame(white: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return which pixels of a picture of another size have their centre in the region."""
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(int)
        for n, m in zip(shape, white.shape, strict=True)
    )
    return white[np.ix_(rows, columns)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_noise_in_the_region_of_a_picture_of_any_size_reaches_no_pixel_that_is_looked_at(size):
    rng = np.random.default_rng(0)
    larger = [p for p in PICTURES if p[0] >= size[0] and p[1] >= size[1]]
    pairs = [*product(REGIONS, larger), ((40, 50), (40, 50)), ((9, 9), (9, 9))]
    for number, (of_region, of_picture) in enumerate(pairs):
        white = two_spots(of_region, number)
        ignored = scaled(white, size)
        before = rng.integers(0, 256, (*of_picture, 3), dtype=np.uint8)
        noise = rng.integers(0, 256, before.shape, dtype=np.uint8)
        after = np.where(in_frame(white, of_picture)[..., None], noise, before)
        seen = [resize(Image.fromarray(pixels), size)[:, ~ignored] for pixels in (before, after)]
        assert np.array_equal(*seen), (of_region, of_picture)


@pytest.mark.parametrize(("size", "shape"), [*product(SIZES, REGIONS)], ids=str)
def test_hardly_more_is_ignored_than_what_is_white(size, shape):
    white = two_spots(shape, 0)
    unit = np.maximum(np.array(size) / shape, 1)  # of what is seen: one of the larger pixels
    for row, column in np.argwhere(scaled(white, size).numpy()):
        box = [
            slice(max(int((at - 1.5 - u) * m / n), 0), int((at + 2.5 + u) * m / n) + 1)
            for at, u, m, n in zip((row, column), unit, shape, size, strict=True)
        ]
        assert white[tuple(box)].any()


def test_a_single_white_pixel_of_a_large_region_is_not_lost():
    white = np.zeros((2000, 3000), bool)
    white[1000, 1500] = True
    assert 4 <= scaled(white, (64, 64)).sum() <= 16


def test_white_is_what_is_at_least_half_as_bright_in_any_format_and_turned_upright(tmp_path):
    levels = np.array([[0, 127, 128, 255], [200, 0, 0, 0]], np.uint8)
    expected = [[False, False, True, True], [True, False, False, False]]
    grey, exif = Image.fromarray(levels), Image.Exif()
    exif[274] = 3  # upside down
    grey.save(tmp_path / "a.png")
    grey.convert("RGBA").save(tmp_path / "a.tif")
    grey.convert("P").save(tmp_path / "a.gif")
    grey.rotate(180).save(tmp_path / "turned.png", exif=exif)
    tifffile.imwrite(tmp_path / "deep.tif", levels.astype(np.uint16) * 257)
    Image.fromarray(levels >= 128).save(tmp_path / "bits.png")
    for name in ("a.png", "a.tif", "a.gif", "turned.png", "deep.tif", "bits.png"):
        assert read_region(tmp_path / name).tolist() == expected, name


def test_what_cannot_be_a_region_is_refused_in_one_line_that_names_it(tmp_path):
    (tmp_path / "text.png").write_text("white")
    (tmp_path / "folder.png").mkdir()
    Image.new("L", (8, 8), 255).save(tmp_path / "white.png")
    Image.new("F", (8, 8)).save(tmp_path / "float.tif")
    for name in ("none.png", "text.png", "folder.png", "white.png", "float.tif"):
        with pytest.raises(InputError, match=name) as caught:
            read_region(tmp_path / name)
        assert len(caught.value.args) == 1


def test_a_region_without_white_is_told(tmp_path):
    Image.new("L", (8, 8), 127).save(tmp_path / "black.png")
    with pytest.warns(UserWarning, match=r"black\.png: no pixel is white: nothing is ignored"):
        assert not read_region(tmp_path / "black.png").any()


def test_regions_are_told_apart_by_what_is_ignored():
    white = np.zeros((64, 64), bool)
    white[:32] = True
    one, other = scaled(white, (64, 64)), scaled(white[::-1], (64, 64))
    assert text_of(one).startswith("51.6 % of the image (")  # 33 rows of 64
    assert text_of(one) != text_of(other)
    assert text_of(one) == text_of(scaled(white, (64, 64)))

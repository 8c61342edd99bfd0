"""A mask means what it shows, however it was saved; labels stay whole, soft edges are cut."""

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from data.mask_values import read_defect, warn_of_odd
from data.masks import channels, components, regions
from data.samples import InputError
from tests.data.drawn_masks import entry

SIZE = (64, 96)


def blobs() -> np.ndarray:
    """Draw two round defects and a thin one, bool (H, W)."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    drawn = ((y - 20) ** 2 + (x - 25) ** 2 < 64) | ((y - 45) ** 2 + (x - 70) ** 2 < 150)
    drawn[55:58, 5:40] = True
    return drawn


def grey(defect: np.ndarray) -> np.ndarray:
    return defect.astype(np.uint8) * 255


def put(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def assert_within_a_rim(path: Path, defect: np.ndarray) -> None:
    """Check that a mask's defect is `defect`, give or take one pixel at its rim."""
    near = np.ones((3, 3), bool)
    found = read_defect(path, defect.shape)
    assert not (found & ~ndimage.binary_dilation(defect, near)).any()
    assert not (ndimage.binary_erosion(defect, near) & ~found).any()
    assert len(components((path,), defect.shape)) == ndimage.label(defect, near)[1]


# Soft edges


@pytest.mark.parametrize("quality", [50, 75, 95, 100])
@pytest.mark.parametrize("colour", [False, True])
def test_a_mask_saved_as_jpeg_has_the_regions_of_the_png(tmp_path, quality, colour):
    pixels = np.stack([grey(blobs())] * 3, -1) if colour else grey(blobs())
    path = put(tmp_path / "mask.jpg", pixels, quality=quality)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    assert_within_a_rim(path, blobs())


@pytest.mark.parametrize("factor", [2, 3, 1.7])
@pytest.mark.parametrize("highest", [255, 60])
def test_a_mask_that_was_enlarged_smoothly_is_cut_at_half(tmp_path, factor, highest):
    size = (round(SIZE[1] * factor), round(SIZE[0] * factor))
    small = Image.fromarray(blobs() * np.uint8(highest))
    small.resize(size, Image.Resampling.BILINEAR).save(tmp_path / "mask.png")
    hard = Image.fromarray(grey(blobs())).resize(size, Image.Resampling.NEAREST)
    assert_within_a_rim(tmp_path / "mask.png", np.asarray(hard) > 0)


def test_bars_with_three_steps_at_their_edges_are_cut_at_half(tmp_path):
    """What bilinear enlarging by 3 makes of an edge."""
    row = np.repeat([0, 85, 170, 255, 170, 85, 0], [20, 1, 1, 20, 1, 1, 20]).astype(np.uint8)
    path = put(tmp_path / "mask.png", np.tile(row, (30, 1)))
    np.testing.assert_array_equal(read_defect(path, (30, 64)), np.tile(row >= 170, (30, 1)))


@pytest.mark.parametrize("highest, least", [(255, 128), (254, 127), (65535, 32768)])
def test_half_is_half_and_not_a_value_less(tmp_path, highest, least):
    row = np.repeat([0, least - 1, least, highest], [20, 1, 1, 20])
    path = put(tmp_path / "mask.png", np.tile(row, (30, 1)).astype(np.uint16))
    np.testing.assert_array_equal(read_defect(path, (30, 42)), np.tile(row >= least, (30, 1)))


@pytest.mark.parametrize("quality", [50, 75, 95, 100])
def test_a_jpeg_that_was_saved_as_png_is_cut_at_half(tmp_path, quality):
    altered = BytesIO()
    Image.fromarray(grey(blobs())).save(altered, "JPEG", quality=quality)
    Image.open(altered).save(tmp_path / "mask.png")
    assert_within_a_rim(tmp_path / "mask.png", blobs())


@pytest.mark.parametrize("highest", [200, 255, 65535])
def test_half_is_of_the_highest_value(tmp_path, highest):
    soft = cv2.GaussianBlur(blobs().astype(np.float32), (5, 5), 1) * highest
    values = soft.round().astype(np.uint16 if highest > 255 else np.uint8)
    assert_within_a_rim(put(tmp_path / "mask.png", values), blobs())


def test_masks_of_soft_edges_are_told_in_one_warning(tmp_path, recwarn):
    odd: list = []
    for number in range(5):
        path = put(tmp_path / f"{number}.jpg", grey(blobs()))
        regions((path,), SIZE, None, odd)
    regions((put(tmp_path / "0.png", grey(blobs())),), SIZE, None, odd)
    warn_of_odd(odd)
    (warning,) = recwarn
    assert f"{tmp_path / '0.jpg'} and 4 more" in str(warning.message)


def test_a_jpeg_of_values_that_it_loses_is_told(tmp_path, recwarn):
    odd: list = []
    read_defect(put(tmp_path / "mask.jpg", blobs() * np.uint8(3), quality=95), SIZE, odd)
    warn_of_odd(odd)
    (warning,) = recwarn
    assert "mask.jpg: a JPEG of values below 16" in str(warning.message)


# Labels


def test_each_of_many_small_instances_is_a_defect(tmp_path):
    values = np.zeros((160, 160), np.uint8)
    for number in range(156):  # 1 to 7 pixels high, 1 to 9 wide
        y, x = number // 13 * 12, number % 13 * 12
        values[y + 1 : y + 2 + number % 7, x + 1 : x + 2 + number % 9] = number + 1
    path = put(tmp_path / "mask.png", values)
    np.testing.assert_array_equal(read_defect(path, values.shape), values > 0)


@pytest.mark.parametrize("width", [2, 10])
def test_classes_within_one_another_are_all_defects(tmp_path, width):
    values = np.zeros((100, 100), np.uint8)
    for number, label in enumerate((7, 150, 233)):
        edge = 10 + width * number
        values[edge:-edge, edge:-edge] = label
    path = put(tmp_path / "mask.png", values)
    np.testing.assert_array_equal(read_defect(path, values.shape), values > 0)


@pytest.mark.parametrize(
    "labels",
    [(1, 2, 3), (1, 2), (2, 3, 7), (1, 20), (85, 170, 255), (127, 255), (50, 100, 150), (1, 255)],
    ids=str,
)
@pytest.mark.parametrize("gap", [0, 12])
def test_every_label_above_0_is_a_defect(tmp_path, labels, gap, recwarn):
    values = np.zeros(SIZE, np.uint8)
    for number, label in enumerate(labels):  # bars of 5 pixels, apart or side by side
        values[10:50, 10 + number * (5 + gap) :][:, :5] = label
    odd: list = []
    path = put(tmp_path / "labels.png", values)
    np.testing.assert_array_equal(read_defect(path, SIZE, odd), values > 0)


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (0, 3), (7, 255), (100, 200), (0, 300)])
def test_of_two_values_the_higher_is_the_defect(tmp_path, values):
    low, high = values
    pixels = np.where(blobs(), high, low).astype(np.uint16 if high > 255 else np.uint8)
    path, odd = put(tmp_path / "mask.png", pixels), []
    np.testing.assert_array_equal(read_defect(path, SIZE, odd), blobs())
    assert not odd


@pytest.mark.parametrize("value", [0, 1, 255])
def test_a_mask_of_one_value_is_all_defect_unless_it_is_0(tmp_path, value):
    path = put(tmp_path / "mask.png", np.full(SIZE, value, np.uint8))
    assert read_defect(path, SIZE).all() == (value > 0)
    assert read_defect(path, SIZE).any() == (value > 0)


# Palettes and inverted greys


def indexed(path: Path, indices: np.ndarray, *palette: tuple[int, int, int]) -> Path:
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette(np.array(palette, np.uint8).tobytes())
    image.save(path)
    with Image.open(path) as written:
        assert written.mode == "P"
    return path


@pytest.mark.parametrize("defect", [(255, 255, 255), (200, 0, 0), (0, 0, 255)])
def test_a_palettes_order_does_not_matter(tmp_path, defect):
    black = (0, 0, 0)
    first = indexed(tmp_path / "first.png", blobs(), black, defect)
    last = indexed(tmp_path / "last.png", ~blobs(), defect, black)
    for path in (first, last):
        np.testing.assert_array_equal(read_defect(path, SIZE), blobs())


def test_all_colours_of_a_palette_of_labels_are_defects(tmp_path):
    """The colours with which Pascal VOC shows its first labels."""
    indices = np.zeros(SIZE, np.uint8)
    for label in (1, 2, 3, 8):
        indices[4 * label : 4 * label + 3, 10:30] = label
    palette = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), *[(1, 1, 1)] * 4, (64, 0, 0)]
    path = indexed(tmp_path / "mask.png", indices, *palette)
    np.testing.assert_array_equal(read_defect(path, SIZE), indices > 0)


def test_a_table_of_defects_still_goes_by_indices(tmp_path):
    path = indexed(tmp_path / "mask.png", blobs(), (255, 255, 255), (0, 0, 0))
    ((pixels, _),) = channels((path,), SIZE, [entry(1, 1.0, True)])
    np.testing.assert_array_equal(pixels, np.flatnonzero(blobs()))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_mask_whose_0_is_white_shows_its_defect_white(tmp_path, dtype):
    values = np.where(blobs(), 0, np.iinfo(dtype).max).astype(dtype)
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, values, photometric="miniswhite")
    np.testing.assert_array_equal(read_defect(path, SIZE), blobs())


def test_a_mask_of_negative_values_is_refused(tmp_path):
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, np.full(SIZE, -3, np.int32))
    with pytest.raises(InputError, match="below 0"):
        read_defect(path, SIZE)

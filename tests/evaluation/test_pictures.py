"""Pictures: the colours of a map, and which test cases stand where, from files on disk."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw

from data.samples import ANOMALOUS, Category, Sample
from evaluation.pictures import column, draw_cases, heat, pick
from evaluation.results import TEST, ImageResult, write_results

# Inferno's published colours at 0, 1/2 and 1.
BLACK, RED, YELLOW = (0, 0, 4), (188, 55, 84), (252, 255, 164)
GREY = (90, 150, 210)  # of the test images
THRESHOLD = 0.25
CAPTION, HEIGHT, GAP = 18, 160, 2  # pixels


def put_case(root: Path, name: str, defect: str, size: tuple[int, int], level: float) -> Sample:
    """Write a test image, its mask (the left half) and its map (`level` all over)."""
    image = root / "test" / defect / f"{name}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, GREY).save(image)
    anomaly_map = np.full(size[::-1], level, np.float32)
    place = root / "maps" / "test" / defect / f"{name}.tiff"
    place.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(place, anomaly_map)
    if defect == "good":
        return Sample(image, 0, defect)
    mask = np.zeros(size[::-1], np.uint8)
    mask[:, : size[0] // 2] = 240
    truth = root / "ground_truth" / defect / name / "000.png"
    truth.parent.mkdir(parents=True)
    Image.fromarray(mask).save(truth)
    return Sample(image, 1, defect, (truth,))


def make_category(root: Path, sizes: dict[str, list[tuple[int, int]]]) -> Category:
    """Make a category with a test image of each size (width, height) of each defect."""
    samples = [
        put_case(root, f"{index:03}", defect, size, THRESHOLD)
        for defect, of in sizes.items()
        for index, size in enumerate(of)
    ]
    return Category("product", [], [], samples)


def put_results(category: Category, root: Path) -> Path:
    """Write the verdicts on a category's test images, as an evaluation does."""
    results = [
        ImageResult(s.place.as_posix(), TEST, s.defect, 1.0, 0.1, ANOMALOUS, 0.1, {})
        for s in category.test
    ]
    write_results(root / "results.csv", results)
    return root / "results.csv"


def assert_colour(found, expected: tuple[int, int, int]) -> None:
    """Check a colour; OpenCV's table differs from the published one by a level or two."""
    assert np.abs(np.asarray(found, int) - expected).max() <= 2


# Heat


def test_a_map_is_black_at_0_red_at_the_threshold_and_yellow_from_twice_of_it():
    levels = np.array([[0, 1, 2], [-3, 1, 50]], np.float32) * THRESHOLD
    colours = heat(levels, THRESHOLD)
    assert colours.shape == (2, 3, 3)
    assert colours.dtype == np.uint8
    for found, expected in zip(
        colours.reshape(-1, 3), (BLACK, RED, YELLOW, BLACK, RED, YELLOW), strict=True
    ):
        assert_colour(found, expected)


@pytest.mark.parametrize("threshold", [1e-4, 0.25, 700.0])
def test_colours_depend_on_the_map_over_the_threshold_alone(threshold):
    levels = np.random.default_rng(0).uniform(0, 2, (9, 7)).astype(np.float32)
    levels = np.round(levels * 100) / 100 + 0.003  # away from where a colour ends
    assert np.array_equal(heat(levels * threshold, threshold), heat(levels, 1.0))


def test_the_stranger_the_brighter():
    colours = heat(np.linspace(0, 2, 256, dtype=np.float32)[None], 1.0)[0]
    luminance = colours @ np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709
    assert (np.diff(luminance) > -1).all()
    assert (np.diff(luminance[::16]) > 5).all()


def test_a_threshold_of_0_still_has_colours():
    with np.errstate(all="raise"):
        colours = heat(np.array([[0.0, 1.0]], np.float32), 0.0)
    assert_colour(colours[0, 0], BLACK)
    assert_colour(colours[0, 1], YELLOW)


# Which cases


def plain(good: int, logical: int, structural: int, others: int = 0) -> Category:
    counts = {
        "good": good,
        "logical_anomalies": logical,
        "structural_anomalies": structural,
        "scratch": others,
    }
    samples = [
        Sample(Path(defect) / f"{index:03}.png", int(defect != "good"), defect)
        for defect, count in counts.items()
        for index in range(count)
    ]
    return Category("product", [], [], samples)


def test_one_good_six_logical_and_three_structural_cases_are_picked():
    picked = pick(plain(24, 40, 31, others=9))
    expected = ["good"] + ["logical_anomalies"] * 6 + ["structural_anomalies"] * 3
    assert [sample.defect for sample in picked] == expected


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 11, 12, 50])
def test_cases_are_spread_evenly_over_their_group_without_repetition(count):
    picked = [int(s.image.stem) for s in pick(plain(0, count, 0))]
    assert len(set(picked)) == min(count, 6)
    steps = np.diff([*picked, count])
    assert picked[0] == 0
    assert steps.sum() == count
    assert steps.max() - steps.min() <= 1


def test_a_group_that_is_absent_is_left_out():
    assert [sample.defect for sample in pick(plain(2, 0, 1))] == ["good", "structural_anomalies"]


# The picture


@pytest.mark.parametrize(("size", "width"), [((96, 80), 192), ((80, 160), 80), ((170, 100), 272)])
def test_a_column_is_caption_image_mask_and_map_at_one_height(tmp_path, size, width):
    sample = put_case(tmp_path, "000", "logical_anomalies", size, 2 * THRESHOLD)
    drawn = column(sample, tmp_path / "maps", "good", THRESHOLD)
    assert drawn.mode == "RGB"
    assert drawn.size == (width + GAP, CAPTION + 3 * (HEIGHT + GAP))
    pixels = np.asarray(drawn)
    tops = [CAPTION + row * (HEIGHT + GAP) for row in range(3)]
    image, mask, anomaly_map = (pixels[top : top + HEIGHT, :width] for top in tops)
    assert (image == GREY).all()
    middle = width // 2
    assert (mask[:, : middle - 3] == 255).all()
    assert (mask[:, middle + 3 :] == 0).all()
    for corner in (anomaly_map[0, 0], anomaly_map[-1, -1]):
        assert_colour(corner, YELLOW)
    for top in tops:
        assert (pixels[top + HEIGHT : top + HEIGHT + GAP] == 255).all()
    assert (pixels[CAPTION:, width:] == 255).all()


@pytest.mark.parametrize(
    ("defect", "verdict", "caption"),
    [
        ("logical_anomalies", "good", "logical: called good"),
        ("structural_anomalies", "anomalous", "structural: called anomalous"),
        ("good", "good", "good: called good"),
    ],
)
def test_the_caption_names_the_kind_and_the_verdict(tmp_path, defect, verdict, caption):
    sample = put_case(tmp_path, "000", defect, (200, 100), 0.3)
    drawn = np.asarray(column(sample, tmp_path / "maps", verdict, THRESHOLD))[:CAPTION]
    expected = Image.new("RGB", (drawn.shape[1], CAPTION), "white")
    ImageDraw.Draw(expected).text((3, 3), caption, fill="black")
    assert (drawn == np.asarray(expected)).all()
    assert (drawn < 100).any()


def test_several_masks_are_drawn_as_one_and_a_good_image_has_a_black_one(tmp_path):
    sample = put_case(tmp_path, "000", "logical_anomalies", (160, 160), THRESHOLD)
    second = np.zeros((160, 160), np.uint8)
    second[:40, 80:] = 1
    Image.fromarray(second).save(tmp_path / "001.png")
    sample = Sample(sample.image, 1, sample.defect, (*sample.masks, tmp_path / "001.png"))
    good = put_case(tmp_path, "000", "good", (160, 160), THRESHOLD)
    top = CAPTION + HEIGHT + GAP
    both, none = (
        np.asarray(column(s, tmp_path / "maps", "good", THRESHOLD))[top : top + HEIGHT, :160]
        for s in (sample, good)
    )
    expected = np.zeros((160, 160), bool)
    expected[:, :80] = expected[:40] = True
    assert (both == 255 * expected[..., None]).all()
    assert (none == 0).all()


def test_the_picture_is_a_png_with_a_column_for_each_case(tmp_path):
    sizes = {
        "good": [(80, 160)] * 3,
        "logical_anomalies": [(96, 80)] * 8,
        "structural_anomalies": [(160, 160)] * 3,
    }
    category = make_category(tmp_path, sizes)
    path = tmp_path / "output" / "demo.png"
    draw_cases(category, tmp_path / "maps", put_results(category, tmp_path), THRESHOLD, path)
    widths = [80 + GAP] + 6 * [192 + GAP] + 3 * [160 + GAP]
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size == (sum(widths), CAPTION + 3 * (HEIGHT + GAP))
        pixels = np.asarray(picture)
    lefts = np.cumsum([0, *widths[:-1]])
    for left, width in zip(lefts, widths, strict=True):
        assert (pixels[CAPTION : CAPTION + HEIGHT, left : left + width - GAP] == GREY).all()
        assert (pixels[CAPTION:, left + width - GAP : left + width] == 255).all()
        assert_colour(pixels[-GAP - 1, left], RED)
    assert list(path.parent.iterdir()) == [path]


def test_the_maps_are_those_on_disk_and_a_picture_is_drawn_over_an_older_one(tmp_path):
    sizes = {"good": [(160, 160)], "logical_anomalies": [(160, 160)]}
    category, path = make_category(tmp_path, sizes), tmp_path / "demo.png"
    draw_cases(category, tmp_path / "maps", put_results(category, tmp_path), THRESHOLD, path)
    tifffile.imwrite(
        tmp_path / "maps" / "test" / "logical_anomalies" / "000.tiff",
        np.zeros((160, 160), np.float32),
    )
    draw_cases(category, tmp_path / "maps", put_results(category, tmp_path), THRESHOLD, path)
    with Image.open(path) as picture:
        good, logical = (picture.getpixel((left, picture.height - 9)) for left in (9, 171))
    assert_colour(good, RED)
    assert_colour(logical, BLACK)

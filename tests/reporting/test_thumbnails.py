"""Thumbnails show what images, masks and maps hold."""

import base64
import io
import re

import numpy as np
from PIL import Image, ImageDraw

from data.samples import Sample
from reporting.thumbnails import SIDE, outline_path, thumbnail
from tests.conftest import SIZE, deep, picture, stain_mask

HEAT = {0.0: (0, 0, 4), 0.5: (188, 55, 84), 1.0: (252, 255, 164)}  # of inferno, as published


def pixels(webp: str) -> np.ndarray:
    """Return the RGB pixels of a WebP in base64, (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(webp))).convert("RGB")).astype(int)


def filled(path: str, size: tuple[int, int]) -> np.ndarray:
    """Return what an SVG path encloses, bool (H, W), as Pillow fills it, by odd and even."""
    inside = np.zeros(size[::-1], bool)
    for line in re.findall("M([^Z]*)Z", path):
        points = [tuple(map(float, point.split())) for point in line.split("L")]
        one = Image.new("1", size)
        ImageDraw.Draw(one).polygon(points, fill=1)
        inside ^= np.asarray(one)
    return inside


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the part of two regions that they share."""
    return (one & other).sum() / (one | other).sum()


def saved(image: Image.Image, path) -> Sample:
    image.save(path)
    return Sample(path, 0, "good")


def test_an_image_is_shrunk_and_keeps_its_sides_and_colours(tmp_path):
    large = picture(np.random.default_rng(0), stain=True).resize((960, 800))
    shown = thumbnail(saved(large, tmp_path / "a.png"), {}, 1.0, None, [])
    assert shown.size == (SIDE, round(SIDE * 800 / 960))
    small = np.asarray(large.resize(shown.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(pixels(shown.image) - small).mean() < 4  # grey levels


def test_a_small_image_and_a_thin_one_are_shown_too(tmp_path):
    assert thumbnail(
        saved(Image.new("RGB", (5, 3)), tmp_path / "a.png"), {}, 1.0, None, []
    ).size == (5, 3)
    thin = thumbnail(saved(Image.new("RGB", (4000, 2)), tmp_path / "b.png"), {}, 1.0, None, [])
    assert thin.size == (SIDE, 1)


def test_an_image_is_the_one_that_the_detector_sees(tmp_path):
    """Turned as its EXIF says; of deep ones the values are of as many bits as the training's."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    picture(np.random.default_rng(0), stain=True).save(tmp_path / "a.jpg", exif=exif)
    turned = thumbnail(Sample(tmp_path / "a.jpg", 0, "good"), {}, 1.0, None, [])
    assert turned.size == SIZE[::-1]
    dark = Sample(deep(tmp_path / "b.tiff", bits=10), 0, "good")
    bright, scaled = (pixels(thumbnail(dark, {}, 1.0, bits, []).image).mean() for bits in (10, 12))
    assert abs(bright / 4 - scaled) < 2


def test_maps_are_coloured_by_one_threshold(tmp_path):
    sample = saved(Image.new("RGB", (64, 64)), tmp_path / "a.png")
    for share, colour in HEAT.items():
        maps = {
            name: np.full((16, 16), share * 0.6, np.float32) for name in ("combined", "position")
        }
        shown = thumbnail(sample, maps, 0.3, None, [])
        assert [*shown.maps] == ["combined", "position"]
        for webp in shown.maps.values():
            assert np.abs(pixels(webp).mean((0, 1)) - colour).max() < 8


def test_the_truth_and_what_is_above_the_threshold_are_outlined(tmp_path):
    masks = [tmp_path / "left.png", tmp_path / "right.png"]
    for path, box in zip(masks, ((0, 0, 40, 80), (40, 0, 96, 80)), strict=True):
        half = Image.new("L", SIZE)
        half.paste(stain_mask().crop(box), box[:2])
        half.save(path)
    image = picture(np.random.default_rng(0), stain=True)
    image.save(tmp_path / "a.png")
    sample = Sample(tmp_path / "a.png", 1, "stain", tuple(masks))
    rows, columns = np.mgrid[:80, :96]
    peak = np.exp(-((rows - 20) ** 2 + (columns - 60) ** 2) / 200).astype(np.float32)
    shown = thumbnail(sample, {"combined": peak}, 0.5, None, [])
    assert overlap(filled(shown.truth, SIZE), np.asarray(stain_mask()) > 0) > 0.95
    assert overlap(filled(shown.contour, SIZE), peak > 0.5) > 0.9


def test_an_outline_has_holes_and_the_smallest_spot():
    ring = np.zeros((100, 200), bool)
    ring[20:80, 50:150] = True
    ring[40:60, 80:120] = False
    assert overlap(filled(outline_path(ring, (100, 50)), (100, 50)), ring[::2, ::2]) > 0.9
    spot = np.zeros((1000, 1000), bool)
    spot[500, 250] = True
    assert outline_path(spot, (200, 200)) == "M50.1 100.1Z"  # round ends of a line show it
    assert outline_path(np.zeros((10, 10), bool), (10, 10)) == ""


def test_a_mask_that_cannot_be_read_is_a_fault_and_the_rest_is_shown(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"no mask")
    saved(Image.new("RGB", SIZE, "red"), tmp_path / "a.png")
    sample, faults = Sample(tmp_path / "a.png", 1, "stain", (tmp_path / "mask.png",)), []
    shown = thumbnail(sample, {}, 1.0, None, faults)
    assert shown.truth == ""
    assert len(faults) == 1
    assert "mask.png" in faults[0]

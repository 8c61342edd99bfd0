"""Pictures of predictions: colours and contours of maps that are made by hand."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from prediction.pictures import (
    CONTOUR,
    LEAST,
    MOST,
    RIM,
    TRUTH,
    blended,
    draw,
    words,
    write_picture,
)
from prediction.verdicts import Prediction, strongest_region

GREY = (90, 150, 210)
INFERNO_TOP = (252, 255, 164)  # its published last colour
THRESHOLD = 0.25


def prediction(anomaly_map: np.ndarray, p_value: float | None = 0.01, anomalous=True) -> Prediction:
    region = strongest_region(anomaly_map, THRESHOLD)
    numbers = (3.25, p_value, 1.5, region, anomaly_map, THRESHOLD, {}, 0.1)
    return Prediction(Path("a.png"), anomalous, *numbers)


def spot(side: int = 500) -> np.ndarray:
    """Return a map that is above its threshold in a square in the middle alone."""
    found = np.zeros((side, side), np.float32)
    found[200:300, 200:300] = 2 * THRESHOLD
    return found


def test_the_image_shows_as_it_is_where_the_map_is_0_and_mixed_where_it_is_full():
    image = np.full((500, 500, 3), GREY, np.uint8)
    drawn = blended(image, spot(), THRESHOLD)
    assert (drawn[:190, :190] == GREY).all()
    expected = 0.4 * np.array(GREY) + 0.6 * np.array(INFERNO_TOP)
    assert np.abs(drawn[250, 250] - expected).max() <= 2


def test_contours_are_where_the_map_crosses_its_threshold():
    drawn = np.asarray(draw(Image.new("RGB", (500, 500), GREY), prediction(spot())))[-500:]
    rows, columns = np.nonzero((drawn == CONTOUR).all(2))
    assert abs(rows.min() - 200) <= 1
    assert abs(rows.max() - 299) <= 1
    assert abs(columns.min() - 200) <= 1
    assert abs(columns.max() - 299) <= 1
    calm = draw(Image.new("RGB", (500, 500), GREY), prediction(spot() / 4))
    assert not (np.asarray(calm)[-500:] == CONTOUR).all(2).any()


@pytest.mark.parametrize("scale", [1, 4])  # of a truth that is drawn as it is, or reduced
def test_the_ground_truth_is_outlined_in_dashes_holes_too(scale):
    truth = np.zeros((600, 600), bool)
    truth[150:450, 75:525] = True
    truth[250:350, 200:400] = False
    truth = truth.repeat(scale, 0).repeat(scale, 1)
    truth[30 * scale, 30 * scale] = True  # a speck, which reducing must not lose
    image = Image.new("RGB", truth.shape[::-1], GREY)
    shown = min(len(truth), MOST)
    plain = prediction(np.zeros(truth.shape, np.float32))
    drawn = np.asarray(draw(image, plain, truth))[-shown:, :shown]
    on, factor = (drawn == TRUTH).all(2), shown / 600
    edge = np.zeros(on.shape, np.uint8)
    for box in ((75, 150, 525, 450), (200, 250, 400, 350), (30, 30, 31, 31)):
        left, top, right, bottom = (round(factor * side) for side in box)
        cv2.rectangle(edge, (left, top), (right - 1, bottom - 1), 1)
    near = cv2.dilate(edge, np.ones((11, 11), np.uint8)) > 0
    assert not on[~near].any()
    for around in ((0, 40, 0, 40), (240, 360, 190, 410)):  # the speck, the hole
        top, bottom, left, right = (round(factor * side) for side in around)
        assert on[top:bottom, left:right].any()
    beside = cv2.dilate(on.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert 0.4 < beside[edge > 0].mean() < 0.75  # dashes, gaps as long, and what is beside them
    without = np.asarray(draw(image, plain))[-shown:, :shown]
    assert (without == GREY).all()


def test_the_legend_names_the_lines_that_there_are():
    image, found = Image.new("RGB", (500, 500)), prediction(np.zeros((500, 500), np.float32))
    heads = [
        np.asarray(draw(image, found, truth))[:-500] for truth in (None, np.zeros((500, 500), bool))
    ]
    has = [[(head == colour).all(2).any() for colour in (CONTOUR, TRUTH)] for head in heads]
    assert has == [[True, False], [True, True]]


@pytest.mark.parametrize("line", [CONTOUR, TRUTH])
def test_a_line_or_its_rim_has_a_contrast_of_3_to_any_image(line):
    def luminance(colour):  # WCAG 2.2
        part = np.asarray(colour) / 255
        linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        return linear @ np.array([0.2126, 0.7152, 0.0722])

    behind = np.linspace(0, 1, 1001)  # luminance
    contrasts = []
    for own in (luminance(line), luminance(RIM)):
        contrasts.append((np.maximum(own, behind) + 0.05) / (np.minimum(own, behind) + 0.05))
    assert np.max(contrasts, 0).min() >= 3


@pytest.mark.parametrize(
    ("size", "shown"), [((96, 80), LEAST), ((600, 700), 700), ((4000, 1000), MOST), ((1, 1), LEAST)]
)
def test_small_images_are_enlarged_and_large_ones_reduced(size, shown):
    drawn = draw(Image.new("RGB", size), prediction(np.zeros(size[::-1], np.float32)))
    assert max(drawn.size) >= shown
    assert max(drawn.size) < shown + 500


def test_the_verdict_is_in_words():
    calm = prediction(spot(), None, anomalous=False)
    assert words(prediction(spot())) == "anomalous: score 3.25 > 1.5, p = 0.010"
    assert words(calm) == "good: score 3.25 <= 1.5"


def test_what_nobody_looked_at_is_hatched_at_any_size_of_the_picture():
    ignored = np.zeros((32, 64), bool)
    ignored[8:16, 16:48] = True
    calm, shown = prediction(np.zeros((500, 1000), np.float32)), Image.new("RGB", (1000, 500), GREY)
    plain = np.asarray(draw(shown, calm))
    hatched = np.asarray(draw(shown, replace(calm, ignored=ignored)))
    top, inside = plain.shape[0] - 500, np.zeros(plain.shape[:2], bool)
    inside[top + 125 : top + 250, 250:750] = True
    assert (hatched[~inside] == plain[~inside]).all()
    assert {tuple(pixel) for pixel in hatched[inside]} == {(45, 75, 105), (109, 139, 169)}


def test_a_map_of_any_numbers_can_be_drawn():
    for threshold in (0.0, -1.0, 1e-30):
        with np.errstate(all="raise", under="ignore"):
            blended(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.float32), threshold)


def test_the_file_has_the_picture_pixel_for_pixel(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8))
    write_picture(tmp_path / "a.png", image, prediction(spot()))
    with Image.open(tmp_path / "a.png") as written:
        assert written.format == "PNG"
        assert np.array_equal(written, draw(image, prediction(spot())))

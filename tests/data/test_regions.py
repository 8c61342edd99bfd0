"""Masks → regions: components against scipy, saturation areas by hand."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from data.masks import channels, components, saturation_area
from data.samples import InputError
from tests.data.drawn_masks import SIZE, SQUARE, entry, pixels_of, random_mask, save, square


def labelled(mask: np.ndarray) -> set[frozenset[int]]:
    """Return the pixels of each 8-connected component, by scipy."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in range(1, count + 1)}


# PRO's regions


@pytest.mark.parametrize("density", [0.05, 0.3, 0.45, 0.8, 1.0])
@pytest.mark.parametrize("size", [(12, 17), (1, 40), (40, 1), (31, 30)])
def test_components_are_scipys_with_8_neighbours(tmp_path, density, size):
    for seed in range(5):
        mask = random_mask(seed, density, size)
        path = save(tmp_path / f"{seed}.png", 255 * mask.astype(np.uint8))
        regions = components((path,), size)
        found = pixels_of(regions)
        assert set(map(frozenset, found)) == labelled(mask)
        assert len(found) == len(labelled(mask))
        assert [area for _, area in regions] == [len(pixels) for pixels in found]


def test_pixels_that_touch_at_a_corner_are_one_component(tmp_path):
    mask = np.zeros(SIZE, np.uint8)
    mask[[2, 3, 4], [5, 6, 5]] = 255
    mask[4, 8] = 255  # two columns away from the others
    regions = components((save(tmp_path / "0.png", mask),), SIZE)
    assert sorted(area for _, area in regions) == [1, 3]


def test_several_masks_of_an_image_are_united(tmp_path):
    for seed in range(10):
        parts = [random_mask(3 * seed + part, 0.2) for part in range(3)]
        paths = [
            save(tmp_path / f"{i}.png", np.uint8(200 + i) * part) for i, part in enumerate(parts)
        ]
        united = labelled(np.logical_or.reduce(parts))
        assert united != set.union(*map(labelled, parts))
        assert set(map(frozenset, pixels_of(components(tuple(paths), SIZE)))) == united


@pytest.mark.parametrize("value", [1, 100, 127, 128, 236, 254, 255])
def test_any_value_above_0_is_a_defect(tmp_path, value):
    path = save(tmp_path / "0.png", square(value))
    assert pixels_of(components((path,), SIZE)) == [SQUARE]
    assert pixels_of(channels((path,), SIZE, [entry(value, 1.0, True)])) == [SQUARE]


def test_components_of_different_values_are_joined(tmp_path):
    mask = square(255)
    mask[2:5, 5:7] = 1
    assert pixels_of(components((save(tmp_path / "0.png", mask),), SIZE)) == [SQUARE]


def test_without_masks_or_with_empty_ones_there_are_no_regions(tmp_path):
    empty = save(tmp_path / "0.png", square(0))
    assert components((), SIZE) == []
    assert components((empty, empty), SIZE) == []
    assert channels((), SIZE, [entry(255, 1.0, True)]) == []
    assert channels((empty,), SIZE, [entry(255, 1.0, True)]) == []


# sPRO's regions


@pytest.mark.parametrize(
    ("threshold", "relative", "area", "expected"),
    [
        (1.0, True, 12, 12),
        (0.5, True, 12, 6),
        (0.5, True, 13, 6),
        (0.7, True, 9, 6),
        (0.01, True, 12, 1),
        (5, False, 12, 5),
        (12, False, 12, 12),
        (1200, False, 12, 12),
        (6.9, False, 12, 6),
        (0, False, 12, 1),
    ],
)
def test_a_saturation_area_is_a_share_or_a_number_but_no_more_than_all(
    threshold, relative, area, expected
):
    assert saturation_area(area, entry(255, threshold, relative)) == expected


def test_locos_values_from_236_to_255_each_find_their_own_saturation(tmp_path):
    """Of value 236 + i there are 10 + i pixels; even ones are a half, odd ones 7 pixels."""
    config, paths, expected = [], [], []
    for i, value in enumerate(range(236, 256)):
        relative = value % 2 == 0
        config.append(entry(value, 0.5 if relative else 7, relative))
        mask = np.zeros(SIZE, np.uint8)
        mask.ravel()[i : 10 + 2 * i] = value
        paths.append(save(tmp_path / f"{value}.png", mask))
        saturation = (10 + i) // 2 if relative else 7
        expected.append((set(range(i, 10 + 2 * i)), saturation))
    regions = channels(tuple(paths), SIZE, config[::-1])
    found = pixels_of(regions)
    assert [(p, k) for p, (_, k) in zip(found, regions, strict=True)] == expected


def test_a_channel_is_one_region_though_its_parts_do_not_touch(tmp_path):
    mask = random_mask(1, 0.1)
    assert len(labelled(mask)) > 3
    path = save(tmp_path / "0.png", np.uint8(250) * mask)
    regions = channels((path,), SIZE, [entry(250, 0.25, True)])
    assert pixels_of(regions) == [set(np.flatnonzero(mask).tolist())]
    assert regions[0][1] == int(mask.sum()) // 4


def test_channels_that_overlap_stay_apart(tmp_path):
    mask = np.zeros(SIZE, np.uint8)
    mask[4:8, 5:9] = 254
    paths = (save(tmp_path / "0.png", square(255)), save(tmp_path / "1.png", mask))
    regions = channels(paths, SIZE, [entry(255, 1.0, True), entry(254, 1.0, True)])
    assert pixels_of(regions) == [SQUARE, set(np.flatnonzero(mask).tolist())]


@pytest.mark.parametrize("unlisted", [1, 235, 253])
def test_a_value_that_the_config_does_not_list_is_an_error_that_names_the_mask(tmp_path, unlisted):
    config = [entry(value, 1.0, True) for value in (252, 254, 255)]
    alone, beside = square(unlisted), square(254)
    beside[3, 4] = unlisted
    for index, mask in enumerate((alone, beside)):
        path = save(tmp_path / f"{index}.png", mask)
        with pytest.raises(InputError, match=rf"\b{unlisted}\b") as caught:
            channels((path,), SIZE, config)
        assert str(path) in str(caught.value)


# Real masks


def test_the_real_juice_bottles_masks_are_channels_with_their_saturation(shared):
    folder = shared / "data" / "mvtec_loco_anomaly_detection" / "juice_bottle"
    truths = sorted((folder / "ground_truth" / "logical_anomalies").glob("*"))[::30]
    if not truths:
        pytest.skip("the real masks of mvtec_loco_anomaly_detection are not part of the project")
    config = json.loads((folder / "defects_config.json").read_text())
    for truth in truths:
        paths = sorted(truth.glob("*.png"))
        masks = [np.asarray(Image.open(path)) for path in paths]
        expected = []
        for mask in masks:
            (which,) = [e for e in config if e["pixel_value"] == mask.max()]
            threshold, area = which["saturation_threshold"], int((mask > 0).sum())
            shared_out = which["relative_saturation"]
            expected.append((area, int(threshold * area) if shared_out else min(threshold, area)))
        regions = channels(tuple(paths), masks[0].shape, config)
        assert [(len(pixels), saturation) for pixels, saturation in regions] == expected

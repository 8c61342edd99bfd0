"""Masks → regions: components against scipy, saturation areas by hand, every kind of mask file."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from data.masks import Region, channels, components, read_mask, saturation_area
from data.samples import InputError

SIZE = (12, 17)  # height, width


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def random_mask(seed: int, density: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).random(size) < density


def square(value: int, dtype: type = np.uint8) -> np.ndarray:
    """Draw a square of 3 x 4 pixels with `value` in it, 0 around it."""
    pixels = np.zeros(SIZE, dtype)
    pixels[2:5, 3:7] = value
    return pixels


SQUARE = set(np.flatnonzero(square(1)).tolist())


def labelled(mask: np.ndarray) -> set[frozenset[int]]:
    """Return the pixels of each 8-connected component, by scipy."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in range(1, count + 1)}


def pixels_of(regions: list[Region]) -> list[set[int]]:
    found = [set(pixels.tolist()) for pixels, _ in regions]
    assert [len(pixels) for pixels, _ in regions] == [len(pixels) for pixels in found]
    return found


def entry(value: int, threshold: float, relative: bool) -> dict:
    return {
        "defect_name": f"defect {value}",
        "pixel_value": value,
        "saturation_threshold": threshold,
        "relative_saturation": relative,
    }


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
    mask[4, 3:7] = 1
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


# Mask files


def as_rgb(value: int) -> Image.Image:
    return Image.fromarray(np.stack([square(value)] * 3, 2))


def as_one_colour(value: int) -> Image.Image:
    return Image.fromarray(np.stack([square(0), square(0), square(value)], 2))


def as_rgba(value: int, alpha: int = 255) -> Image.Image:
    return Image.fromarray(np.stack([*[square(value)] * 3, np.full(SIZE, alpha, np.uint8)], 2))


def as_grey_alpha(value: int) -> Image.Image:
    return Image.fromarray(square(value)).convert("LA")


def as_palette(value: int) -> Image.Image:
    """Make a picture whose indices are the values, and whose colours say nothing."""
    image = Image.fromarray(square(value))
    image.putpalette(np.random.default_rng(0).integers(1, 255, 768).tolist())
    return image


KINDS = {
    "RGB": as_rgb,
    "RGB in one colour": as_one_colour,
    "RGBA": as_rgba,
    "RGBA, all transparent": lambda value: as_rgba(value, alpha=0),
    "LA": as_grey_alpha,
    "P": as_palette,
    "16 bits": lambda value: Image.fromarray(square(value, np.uint16)),
}


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mask_gives_its_defect_and_its_value(tmp_path, kind, suffix):
    path = tmp_path / f"0{suffix}"
    KINDS[kind](250).save(path)
    with Image.open(path) as written:  # Pillow reads 16 bits as "I" or "I;16"
        assert written.mode.split(";")[0] == {"16": "I"}.get(kind[:2], kind.split()[0].strip(","))
    assert pixels_of(components((path,), SIZE)) == [SQUARE]
    regions = channels((path,), SIZE, [entry(249, 1, False), entry(250, 5, False)])
    assert pixels_of(regions) == [SQUARE]
    assert regions[0][1] == 5


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_1_bit_is_0_or_255(tmp_path, suffix):
    path = tmp_path / f"0{suffix}"
    Image.fromarray(square(1).astype(bool)).save(path)
    with Image.open(path) as written:
        assert written.mode == "1"
    assert pixels_of(components((path,), SIZE)) == [SQUARE]
    assert channels((path,), SIZE, [entry(255, 5, False)])[0][1] == 5


@pytest.mark.parametrize("value", [1, 255, 256, 512, 65535])
def test_no_bit_of_16_is_lost(tmp_path, value):
    path = save(tmp_path / "0.png", square(value, np.uint16))
    np.testing.assert_array_equal(read_mask(path, SIZE), square(value, np.uint16))
    assert pixels_of(components((path,), SIZE)) == [SQUARE]


@pytest.mark.parametrize("size", [SIZE[::-1], (12, 18), (11, 17), (24, 34)])
def test_a_mask_of_another_size_than_its_image_is_named_with_both_sizes(tmp_path, size):
    path = save(tmp_path / "0.png", np.full(size, 255, np.uint8))
    for read in (components, lambda masks, of: channels(masks, of, [entry(255, 1.0, True)])):
        with pytest.raises(InputError) as caught:
            read((path,), SIZE)
        message = str(caught.value)
        assert str(path) in message
        assert f"{size[1]} x {size[0]}" in message
        assert "17 x 12" in message


def png_without_its_end(path: Path) -> None:
    content = save(path, 255 * random_mask(0, 0.5, SIZE).astype(np.uint8)).read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def png_with_a_wrong_byte(path: Path) -> None:
    content = bytearray(save(path, square(255)).read_bytes())
    content[content.index(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(content)


def png_with_a_broken_second_part(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300), dtype=np.uint8)
    first, second, *rest = save(path, noise).read_bytes().split(b"IDAT")
    path.write_bytes(b"IDAT".join([first, second + b"\0\1\2\3" + b"".join(rest)]))


@pytest.mark.parametrize(
    "spoil",
    [
        png_without_its_end,
        png_with_a_broken_second_part,
        png_with_a_wrong_byte,
        lambda path: path.write_text("not an image"),
        lambda path: path.write_bytes(b""),
        lambda path: path.mkdir(),
        lambda path: None,
    ],
    ids=["cut short", "a broken part", "a wrong byte", "a text", "empty", "a folder", "absent"],
)
def test_a_mask_that_cannot_be_read_is_named(tmp_path, spoil):
    path = tmp_path / "0.png"
    spoil(path)
    for read in (components, lambda masks, of: channels(masks, of, [entry(255, 1.0, True)])):
        with pytest.raises(InputError) as caught:
            read((path,), SIZE)
        assert str(path) in str(caught.value)


def test_a_bad_mask_among_good_ones_is_the_one_that_is_named(tmp_path):
    paths = [save(tmp_path / f"{i}.png", square(255)) for i in range(3)]
    paths[1].write_text("not an image")
    with pytest.raises(InputError) as caught:
        components(tuple(paths), SIZE)
    assert str(paths[1]) in str(caught.value)


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


def test_a_floating_point_mask_is_refused(tmp_path):
    path = tmp_path / "0.tif"
    Image.fromarray(np.eye(4, dtype=np.float32)).save(path)
    for read in (lambda: components((path,), (4, 4)), lambda: channels((path,), (4, 4), [])):
        with pytest.raises(InputError, match="floating-point") as caught:
            read()
        assert str(path) in str(caught.value)


def test_a_palettes_alpha_is_no_defect(tmp_path):
    path = tmp_path / "0.tif"
    Image.fromarray(np.eye(4, dtype=np.uint8) * 255).convert("PA").save(path)
    assert [len(pixels) for pixels, _ in components((path,), (4, 4))] == [4]

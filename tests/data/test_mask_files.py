"""Every kind of mask file gives the same regions, and one that cannot be read is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.mask_values import read_mask
from data.masks import channels, components
from data.samples import InputError
from tests.data.drawn_masks import SIZE, SQUARE, entry, pixels_of, random_mask, save, square


def as_rgb(value: int) -> Image.Image:
    return Image.fromarray(np.stack([square(value)] * 3, 2))


def as_one_colour(value: int) -> Image.Image:
    return Image.fromarray(np.stack([square(0), square(0), square(value)], 2))


def as_rgba(value: int, alpha: int = 255) -> Image.Image:
    return Image.fromarray(np.stack([*[square(value)] * 3, np.full(SIZE, alpha, np.uint8)], 2))


def as_grey_alpha(value: int) -> Image.Image:
    return Image.fromarray(square(value)).convert("LA")


def as_palette(value: int) -> Image.Image:
    """Make a picture whose indices are the values; of its colours only the first is black."""
    image = Image.fromarray(square(value))
    palette = np.random.default_rng(0).integers(1, 255, 768)
    palette[:3] = 0
    image.putpalette(palette.tolist())
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

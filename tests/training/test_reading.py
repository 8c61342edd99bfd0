"""Before training: one depth for all images of a category, and what is told of odd files."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data.samples import Category, Sample, good_samples
from tests.conftest import SIZE, deep, fill, stain_mask
from training.reading import read_images

TRAINED = (24, 32)  # height, width that images are trained at


def category(train: list[Path], test: list[Path] = (), validation: list[Path] = ()) -> Category:
    return Category("bolt", good_samples(train), good_samples(validation), good_samples(test))


def by_hand(path: Path, bits: int) -> np.ndarray:
    """Return an image's grey levels from values of `bits`, resized, (H, W)."""
    values = tifffile.imread(path)
    grey = Image.fromarray(np.round(values / (2**bits - 1) * 255).astype(np.uint8))
    return np.asarray(grey.resize(TRAINED[::-1], Image.Resampling.BILINEAR)).astype(int)


@pytest.mark.parametrize("depths", [(12, 12), (10, 12, 8), (8, 8), (14, 10), (16, 12)], ids=str)
def test_training_images_share_the_depth_that_holds_them_all(tmp_path, depths):
    paths = [deep(tmp_path / f"{n}.tif", bits, n) for n, bits in enumerate(depths)]
    for path, bits in zip(paths, depths, strict=True):  # its brightest value needs them all
        values = tifffile.imread(path)
        values[0, 0] = 2**bits - 1
        tifffile.imwrite(path, values)
    images, bits, faults = read_images(category(paths), TRAINED, 2)
    assert (bits, faults) == (max(depths), [])
    for image, path in zip(images, paths, strict=True):
        assert np.abs(image[0].numpy() - by_hand(path, bits)).max() <= 1


def test_images_of_8_bits_are_decoded_once(tmp_path, monkeypatch):
    fill(tmp_path, 4)
    opened, original = [], Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a) or original(*a, **k))
    _, bits, _ = read_images(category(sorted(tmp_path.iterdir())), TRAINED, 1)
    assert (bits, len(opened)) == (None, 4)


def test_test_images_above_the_depth_are_told_once(tmp_path, recwarn):
    train = [deep(tmp_path / f"train{n}.tif", 10) for n in range(2)]
    test = [deep(tmp_path / f"test{n}.tif", 12) for n in range(3)]
    for _ in range(2):
        _, bits, faults = read_images(category(train, test), TRAINED, 1)
        assert (bits, faults) == (10, [])
    (warning,) = recwarn
    assert f"{test[0]} and 2 more" in str(warning.message)
    assert "10 bits" in str(warning.message)


def test_deep_images_beside_training_images_of_8_bits_are_of_16_and_told_once(tmp_path, recwarn):
    fill(tmp_path / "train", 2)
    test = [deep(tmp_path / f"test{n}.tif", 12) for n in range(3)]
    split = category(sorted((tmp_path / "train").iterdir()), test)
    assert read_images(split, TRAINED, 1)[1:] == (None, [])
    (warning,) = recwarn
    assert f"{test[0]} and 2 more: " in str(warning.message)
    assert "16 bits" in str(warning.message)


def test_masks_of_soft_edges_are_told_once(tmp_path, recwarn):
    fill(tmp_path / "images", 2, stain=True)
    samples = []
    for image in sorted((tmp_path / "images").iterdir()):
        pixels = np.zeros(SIZE[::-1], np.uint8)
        pixels[31:50, 29:50] = 255
        mask = tmp_path / f"{image.stem}.jpg"
        Image.fromarray(pixels).save(mask)
        samples.append(Sample(image, 1, "stain", (mask,)))
    _, _, faults = read_images(Category("bolt", samples[:1], [], samples), None, 1)
    assert not faults
    (warning,) = recwarn
    assert f"{tmp_path / '000.jpg'} and 1 more" in str(warning.message)


def test_a_value_that_the_table_of_defects_lacks_is_told_once_for_all_masks(tmp_path):
    fill(tmp_path / "images", 5, stain=True)
    samples = []
    for index, image in enumerate(sorted((tmp_path / "images").iterdir())):
        mask = tmp_path / f"{image.stem}_mask.png"
        stain_mask(77 if index < 3 else 78 + index).save(mask)
        samples.append(Sample(image, 1, "stain", (mask,)))
    entry = {"defect_name": "stain", "pixel_value": 81}
    entry |= {"saturation_threshold": 1, "relative_saturation": True}
    _, _, faults = read_images(Category("bolt", samples[:1], [], samples[1:], [entry]), None, 2)
    end = "the value {}, not in defects_config.json"
    assert faults == [
        f"{tmp_path / '000_mask.png'} and 2 more hold {end.format(77)}",
        f"{tmp_path / '004_mask.png'} holds {end.format(82)}",
    ]

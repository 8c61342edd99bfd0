"""The real images have their published splits."""

from collections import Counter
from pathlib import Path

import pytest

from data.catalog import read_category
from data.samples import Category
from tests.data.reading import SHARED


def real(*place: str) -> Path:
    root = SHARED.joinpath(*place)
    if not root.is_dir():
        pytest.skip(f"the real images of {place[0]} are not part of the project")
    return root


@pytest.fixture
def bottle() -> Path:
    return real("mvtec_anomaly_detection", "bottle").parent


@pytest.fixture
def juice_bottle() -> Path:
    return real("mvtec_loco_anomaly_detection", "juice_bottle").parent


@pytest.fixture
def cookie() -> Path:
    return real("cookie")


def assert_masks_are_there(category: Category) -> None:
    for sample in category.test:
        assert bool(sample.masks) == bool(sample.label)
        assert all(mask.is_file() for mask in sample.masks)


def test_the_real_bottle_has_its_published_split(bottle):
    category = read_category("mvtec_ad", bottle, "bottle", seed=0)
    assert (len(category.train), len(category.validation)) == (188, 21)
    assert Counter(sample.label for sample in category.test) == {0: 20, 1: 63}
    assert_masks_are_there(category)


def test_the_real_juice_bottle_has_its_split(juice_bottle):
    category = read_category("mvtec_loco", juice_bottle, "juice_bottle", seed=0)
    assert (len(category.train), len(category.validation)) == (294, 54)
    counts = Counter(sample.defect for sample in category.test)
    assert counts == {"good": 41, "logical_anomalies": 142}
    assert_masks_are_there(category)
    assert 255 in {entry["pixel_value"] for entry in category.defects_config}


def test_the_real_cookie_has_its_split(cookie):
    category = read_category("folder", cookie, None, seed=0)
    assert (len(category.train), len(category.validation)) == (28, 3)
    assert Counter(sample.defect for sample in category.test) == {"good": 14, "anomaly": 32}
    assert_masks_are_there(category)

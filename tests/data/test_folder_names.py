"""Names of a product's folders: what stands for good, what is a product, which names are ours."""

from collections import Counter
from pathlib import Path

import pytest

from data import catalog
from data.catalog import read_category, summary
from data.samples import InputError
from tests.data.reading import images, put, several


@pytest.mark.parametrize("name", ["Good", "GOOD", "OK", "ok", "Normal"])
def test_other_names_stand_for_good_and_that_is_told(tmp_path, name):
    training = several(tmp_path / "train" / name, 4)
    validation = several(tmp_path / "validation" / name, 2)
    tests = several(tmp_path / "test" / name, 2)
    several(tmp_path / "test" / "spot", 1)
    put(tmp_path / "ground_truth" / "spot" / "000.png")
    with pytest.warns(UserWarning, match=f"train/{name} for train/good.*test/{name}") as warned:
        category = read_category("folder", tmp_path, "bolt", seed=0)
    assert len(warned) == 1
    assert images(category.train) == training
    assert images(category.validation) == validation
    found = [(sample.label, sample.defect, sample.image) for sample in category.test]
    assert [image for label, defect, image in found if (label, defect) == (0, "good")] == tests
    assert Counter(label for label, _, _ in found) == {0: 2, 1: 1}


def test_splits_may_be_written_in_any_case(tmp_path):
    several(tmp_path / "Train" / "Good", 4)
    several(tmp_path / "Test" / "spot", 1)
    put(tmp_path / "Ground_Truth" / "spot" / "000.png")
    with pytest.warns(UserWarning, match="Train/Good for train/good"):
        category = read_category("folder", tmp_path, "bolt", seed=0)
    assert len(category.train) + len(category.validation) == 4
    (sample,) = category.test
    assert sample.masks == (tmp_path / "Ground_Truth" / "spot" / "000.png",)


def test_two_folders_that_stand_for_good_are_both_taken(tmp_path):
    good, ok = several(tmp_path / "train" / "good", 3), several(tmp_path / "train" / "ok", 3)
    several(tmp_path / "test" / "good", 1)
    several(tmp_path / "test" / "OK", 1)
    with pytest.warns(UserWarning, match="train/ok for train/good, test/OK for test/good"):
        category = read_category("folder", tmp_path, "bolt", seed=0)
    assert sorted(images(category.train) + images(category.validation)) == sorted(good + ok)
    assert [sample.place.as_posix() for sample in category.test] == ["OK/000.png", "good/000.png"]


def test_the_usual_names_need_no_telling(tmp_path, recwarn):
    several(tmp_path / "train" / "good", 4)
    several(tmp_path / "test" / "good", 1)
    read_category("folder", tmp_path, "bolt", seed=0)
    assert not recwarn.list


# What is a product


def make_nested(root: Path, inner: str) -> Path:
    """Make a product that holds what looks like another."""
    product = root / "plate"
    several(product / "train" / "good", 8)
    several(product / inner / "train" / "good", 4)
    return product


@pytest.mark.parametrize("inner", ["old", "__MACOSX", ".backup", "plate"])
def test_a_product_inside_a_product_is_not_taken_for_it(tmp_path, inner):
    product = make_nested(tmp_path, inner)
    category = read_category("folder", product, None, seed=0)
    assert category.name == "plate"
    assert len(category.train) + len(category.validation) == 8
    assert read_category("folder", product, "plate", seed=0) == category
    assert catalog.find_all("folder", str(product)) == ["plate"]  # as sweep.py asks


def test_asking_for_a_product_inside_a_product_is_refused_with_the_mend(tmp_path):
    product = make_nested(tmp_path, "old")
    with pytest.raises(InputError, match=r"--subdataset old.*itself a product") as caught:
        read_category("folder", product, "old", seed=0)
    assert f"--folder_path {product / 'old'}" in str(caught.value)


def test_what_systems_leave_behind_is_no_product(tmp_path):
    for name in ("bolt", "__MACOSX", ".Trash", "lost+found"):
        several(tmp_path / name / "train" / "good", 4)
    assert catalog.find_all("folder", str(tmp_path)) == ["bolt"]


def test_a_summary_counts_each_test_folder(tmp_path):
    several(tmp_path / "train" / "good", 20)
    several(tmp_path / "test" / "good", 8)
    several(tmp_path / "test" / "spot", 5)
    several(tmp_path / "test" / "unlabelled", 3)
    assert summary(read_category("folder", tmp_path, "plate", seed=0)) == (
        "plate, 18 training, 2 validation (held out of the training images), "
        "13 test images (good 8, spot 5), 3 without a label (unlabelled 3)"
    )
    several(tmp_path / "validation" / "good", 4)
    assert "20 training, 4 validation, " in summary(
        read_category("folder", tmp_path, "plate", seed=0)
    )

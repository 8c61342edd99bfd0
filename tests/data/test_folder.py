"""A product of one's own, and what is held out of its good images."""

from collections import Counter
from pathlib import Path

import pytest

from data.catalog import read_category
from data.samples import InputError, Sample, hold_out
from tests.data.reading import assert_held_out, images, masks, put, several


def test_a_folder_with_good_images_alone_is_read(tmp_path):
    training = several(tmp_path / "train" / "good", 20)
    category = read_category("folder", tmp_path, None, seed=0)
    assert category.name == tmp_path.name
    assert_held_out(category, training, 2)
    assert category.test == []


def test_a_folder_may_bring_its_validation_images(tmp_path):
    training = several(tmp_path / "train" / "good", 20)
    validation = several(tmp_path / "validation" / "good", 3)
    category = read_category("folder", tmp_path, None, seed=0)
    assert images(category.train) == training
    assert images(category.validation) == validation


def test_a_folder_may_bring_tests_without_masks(tmp_path):
    several(tmp_path / "train" / "good", 20)
    several(tmp_path / "test" / "good", 2)
    several(tmp_path / "test" / "dent", 3)
    category = read_category("folder", tmp_path, None, seed=0)
    assert [sample.label for sample in category.test] == [1, 1, 1, 0, 0]
    assert not any(sample.masks for sample in category.test)


def make_tested(root: Path) -> Path:
    """Make a product with three dents whose masks are still to be put in the returned folder."""
    several(root / "train" / "good", 10)
    several(root / "test" / "dent", 3, ".JPG")
    return root / "ground_truth" / "dent"


def test_masks_may_be_named_in_three_ways(tmp_path):
    truth = make_tested(tmp_path)
    put(truth / "000.png", truth / "001_mask.png", truth / "002" / "a.png", truth / "002" / "b.png")
    category = read_category("folder", tmp_path, None, seed=0)
    assert masks(category) == {
        "dent/000": ["000.png"],
        "dent/001": ["001_mask.png"],
        "dent/002": ["a.png", "b.png"],
    }


def test_masks_may_have_upper_case_suffixes(tmp_path):
    truth = make_tested(tmp_path)
    put(truth / "000.PNG", truth / "001_mask.PNG", truth / "002" / "a.PNG")
    category = read_category("folder", tmp_path, None, seed=0)
    assert masks(category) == {
        "dent/000": ["000.PNG"],
        "dent/001": ["001_mask.PNG"],
        "dent/002": ["a.PNG"],
    }


def test_a_product_among_several_is_chosen_by_name(tmp_path):
    for name in ("bolt", "nut"):
        several(tmp_path / name / "train" / "good", 10)
    category = read_category("folder", tmp_path, "nut", seed=0)
    assert_held_out(category, several(tmp_path / "nut" / "train" / "good", 10), 1)
    with pytest.raises(InputError, match=r"--subdataset screw .*bolt, nut"):
        read_category("folder", tmp_path, "screw", seed=0)


def test_a_product_may_be_called_as_the_user_likes(tmp_path):
    several(tmp_path / "train" / "good", 10)
    assert read_category("folder", tmp_path, "valve", seed=0).name == "valve"


def test_an_empty_product_folder_says_where_images_belong(tmp_path):
    with pytest.raises(InputError) as caught:
        read_category("folder", tmp_path, None, seed=0)
    assert str(tmp_path / "train" / "good") in str(caught.value)


def test_some_but_not_all_masks_is_an_error_that_names_the_image(tmp_path):
    truth = make_tested(tmp_path)
    put(truth / "000.png", truth / "002.png")
    with pytest.raises(InputError) as caught:
        read_category("folder", tmp_path, None, seed=0)
    assert str(tmp_path / "test" / "dent" / "001.JPG") in str(caught.value)


# Hold-out


def some_samples(count: int) -> list[Sample]:
    return [Sample(Path(f"{index}.png"), 0, "good") for index in range(count)]


@pytest.mark.parametrize(
    ("count", "held"), [(2, 1), (5, 1), (10, 1), (40, 4), (209, 21), (904, 90)]
)
def test_a_tenth_but_at_least_one_is_held_out(count, held):
    samples = some_samples(count)
    train, validation = hold_out(samples, seed=3)
    assert len(validation) == held
    assert len(train) == count - held
    assert sorted(train + validation, key=samples.index) == samples
    assert train == sorted(train, key=samples.index)
    assert validation == sorted(validation, key=samples.index)


def test_the_seed_alone_chooses_what_is_held_out():
    samples = some_samples(100)
    assert hold_out(samples, 0) == hold_out(samples, 0)
    chosen = {tuple(images(hold_out(samples, seed)[1])) for seed in range(10)}
    assert len(chosen) == 10
    often = Counter(path for seed in range(300) for path in images(hold_out(samples, seed)[1]))
    assert len(often) == 100  # every image has its chance
    assert max(often.values()) < 60


def test_one_image_cannot_be_divided(tmp_path):
    several(tmp_path / "train" / "good", 1)
    with pytest.raises(InputError, match="at least two") as caught:
        read_category("folder", tmp_path, None, seed=0)
    assert str(tmp_path / "train" / "good") in str(caught.value)

"""Pictures without a label: which folders of `test` they are, and what is told of them."""

from pathlib import Path

import pytest

from data.catalog import read_category, survey_category
from data.samples import Category, InputError
from data.unlabelled import Labelling
from tests.data.reading import images, put, several


@pytest.fixture
def plate(tmp_path) -> Path:
    """Make a product with masks of its labelled defect, and new pictures."""
    several(tmp_path / "train" / "good", 4)
    several(tmp_path / "test" / "good", 2)
    several(tmp_path / "test" / "spot", 2)
    several(tmp_path / "ground_truth" / "spot", 2)
    several(tmp_path / "test" / "new", 3)
    return tmp_path


def read(root: Path, *unlabelled: str, labelled=(), known=None) -> Category:
    labelling = Labelling(unlabelled, labelled, known)
    return read_category("folder", root, "plate", seed=0, labelling=labelling)


def test_a_folder_that_is_named_is_scored_but_not_tested(plate):
    category = read(plate, "new")
    new = [plate / "test" / "new" / f"{i:03}.png" for i in range(3)]
    assert images(category.unlabelled) == new
    assert [sample.folder for sample in category.test] == ["good", "good", "spot", "spot"]
    assert category.scored == category.test + category.unlabelled
    assert set(new) < set(images(category.samples))
    assert category.test_folders == ["good", "new", "spot"]


def test_the_folder_unlabelled_needs_no_naming(plate):
    (plate / "test" / "new").rename(plate / "test" / "unlabelled")
    category = read(plate)
    assert [sample.folder for sample in category.unlabelled] == ["unlabelled"] * 3
    assert len(category.test) == 4
    (plate / "ground_truth" / "spot").rename(plate / "elsewhere")
    assert len(read(plate, labelled=["unlabelled"]).test) == 7


@pytest.mark.parametrize("name", ["Unlabelled", "unlabeled", "UNLABELED"])
def test_the_folder_unlabelled_may_be_spelt_otherwise(plate, name):
    (plate / "test" / "new").rename(plate / "test" / name)
    assert [sample.folder for sample in read(plate).unlabelled] == [name] * 3


def test_masks_of_what_has_no_label_are_told(plate):
    (plate / "test" / "new").rename(plate / "test" / "unlabelled")
    several(plate / "ground_truth" / "unlabelled", 3)
    with pytest.warns(UserWarning, match=r"not used \(3\): --labelled unlabelled") as warned:
        category = read(plate)
    assert len(warned) == 1
    assert [sample.masks for sample in category.unlabelled] == [()] * 3


def test_even_a_folder_that_stands_for_good_can_be_unlabelled(plate):
    several(plate / "test" / "OK", 5)
    with pytest.warns(UserWarning, match="test/OK for test/good"):
        category = read(plate, "OK", "new")
    assert len(category.unlabelled) == 8
    assert [sample.folder for sample in category.test] == ["good", "good", "spot", "spot"]


def test_images_without_masks_beside_others_are_refused_with_the_way_out(plate):
    with pytest.raises(InputError, match="there is no mask for") as caught:
        read(plate)
    assert len(caught.value.args) == 1  # and not a line for each image
    for named in (str(plate / "test" / "new" / "000.png"), "2 more", "--unlabelled new"):
        assert named in str(caught.value)


def test_one_image_without_a_mask_in_a_masked_folder_does_not_give_the_folder_up(plate):
    put(plate / "test" / "spot" / "007.png")
    with pytest.raises(InputError, match=r"007\.png.*test/unlabelled") as caught:
        read(plate, "new")
    assert "--unlabelled" not in str(caught.value)


def test_a_folder_that_came_after_the_training_is_unlabelled_and_that_is_told(plate):
    with pytest.warns(UserWarning, match=r"test/new .*--labelled new") as warned:
        category = read(plate, known={"good", "spot"})
    assert len(warned) == 1
    assert len(category.unlabelled) == 3
    assert len(category.test) == 4


def test_without_any_mask_only_what_was_known_counts_as_a_defect(plate):
    (plate / "ground_truth" / "spot").rename(plate / "elsewhere")
    with pytest.warns(UserWarning, match="--labelled new"):
        category = read(plate, known={"good", "spot"})
    assert [sample.folder for sample in category.test] == ["good", "good", "spot", "spot"]
    assert len(read(plate, known={"good", "spot", "new"}).test) == 7
    assert len(read(plate, labelled=["new"], known={"good", "spot"}).test) == 7
    assert len(read(plate).test) == 7  # known None: all are


def test_a_later_folder_with_masks_is_a_defect_as_ever(plate, recwarn):
    several(plate / "ground_truth" / "new", 3)
    category = read(plate, known={"good", "spot"})
    assert len(category.test) == 7
    assert not recwarn.list


def test_a_later_folder_of_good_images_is_good(plate, recwarn):
    category = read(plate, "new", known={"spot"})
    assert [sample.label for sample in category.test] == [0, 0, 1, 1]
    assert not recwarn.list


def test_a_name_that_is_no_folder_is_told(plate):
    with pytest.warns(UserWarning, match="--unlabelled nwe: there are no images in test/nwe"):
        survey_category("folder", plate, "plate", 0, Labelling(["nwe"]))


def test_a_folder_cannot_be_both(plate):
    with pytest.raises(InputError, match="both name new"):
        read(plate, "new", labelled=["new"])


def test_unlabelled_images_that_would_share_a_map_are_told(plate):
    put(plate / "test" / "new" / "000.jpg")
    with pytest.raises(InputError, match="share a map"):
        read(plate, "new")

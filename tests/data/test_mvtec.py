"""MVTec AD and MVTec LOCO: splits, masks, saturations, and errors that name the fault."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from data.catalog import find_root, read_category, survey_category
from data.samples import InputError
from tests.conftest import make_mvtec_ad, make_mvtec_loco
from tests.data.reading import assert_held_out, images, masks, put, several
from training.preparation import read_images

# MVTec AD


@pytest.fixture
def mvtec_ad(tmp_path) -> Path:
    """Make MVTec AD with a bottle and a cable."""
    for name in ("bottle", "cable"):
        several(tmp_path / name / "train" / "good", 40)
        several(tmp_path / name / "test" / "good", 3)
        for defect in ("broken", "dirty"):
            several(tmp_path / name / "test" / defect, 2)
            put(*(tmp_path / name / "ground_truth" / defect / f"00{i}_mask.png" for i in range(2)))
    (tmp_path / "license.txt").write_text("CC")
    return tmp_path


def test_mvtec_ad_is_read(mvtec_ad):
    category = read_category("mvtec_ad", mvtec_ad, "bottle", seed=0)
    assert category.name == "bottle"
    assert_held_out(category, several(mvtec_ad / "bottle" / "train" / "good", 40), 4)
    assert Counter((s.label, s.defect) for s in category.test) == {
        (0, "good"): 3,
        (1, "broken"): 2,
        (1, "dirty"): 2,
    }
    truth = mvtec_ad / "bottle" / "ground_truth"
    for sample in category.test:
        expected = (truth / sample.defect / f"{sample.image.stem}_mask.png",)
        assert sample.masks == (expected if sample.label else ())
    assert category.defects_config is None


def test_hidden_files_and_texts_are_no_images(mvtec_ad):
    folder = mvtec_ad / "bottle"
    for place in ("train/good", "test/good", "test/dirty"):
        (folder / place / "._000.png").write_bytes(b"\0\5\x16\7")
        (folder / place / "Thumbs.db").write_bytes(b"")
    put(folder / "test" / ".ipynb_checkpoints" / "000.png")
    before = len(several(folder / "train" / "good", 40))
    category = read_category("mvtec_ad", mvtec_ad, "bottle", seed=0)
    assert len(category.train) + len(category.validation) == before
    assert len(category.test) == 7


@pytest.mark.parametrize("suffix", [".PNG", ".JPG", ".jpeg", ".bmp", ".tif", ".TIFF", ".webp"])
def test_image_files_of_any_usual_suffix_are_read(tmp_path, suffix):
    paths = several(tmp_path / "bottle" / "train" / "good", 5, suffix)
    tests = several(tmp_path / "bottle" / "test" / "good", 2, suffix)
    category = read_category("mvtec_ad", tmp_path, "bottle", seed=0)
    assert_held_out(category, paths, 1)
    assert images(category.test) == tests


def test_a_missing_mask_is_named(mvtec_ad):
    (mvtec_ad / "bottle" / "ground_truth" / "dirty" / "001_mask.png").unlink()
    with pytest.raises(InputError) as caught:
        read_category("mvtec_ad", mvtec_ad, "bottle", seed=0)
    assert str(mvtec_ad / "bottle" / "test" / "dirty" / "001.png") in str(caught.value)


def test_an_unknown_category_lists_those_there_are(mvtec_ad):
    with pytest.raises(InputError, match=r"--subdataset botle .*bottle, cable"):
        read_category("mvtec_ad", mvtec_ad, "botle", seed=0)


def test_a_missing_category_name_lists_those_there_are(mvtec_ad):
    with pytest.raises(InputError, match=r"--subdataset is missing.*bottle, cable"):
        read_category("mvtec_ad", mvtec_ad, None, seed=0)


@pytest.mark.parametrize("dataset", ["mvtec_ad", "mvtec_loco", "visa"])
def test_a_folder_without_categories_is_named(tmp_path, dataset):
    with pytest.raises(InputError, match="--subdataset") as caught:
        read_category(dataset, tmp_path, "bottle", seed=0)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("dataset", ["mvtec_ad", "mvtec_loco", "visa", "folder"])
def test_a_missing_root_names_its_option(tmp_path, dataset):
    with pytest.raises(InputError, match=f"--{dataset}_path") as caught:
        find_root(dataset, tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)
    assert find_root(dataset, tmp_path) == tmp_path


@pytest.mark.parametrize("dataset", ["mvtec_ad", "mvtec_loco", "visa", "folder"])
def test_a_root_that_is_not_given_is_asked_for(tmp_path, monkeypatch, dataset):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"--{dataset}_path"):
        find_root(dataset, None)


@pytest.mark.parametrize("dataset", ["mvtec_ad", "mvtec_loco", "folder"])
def test_a_training_folder_without_images_is_named(tmp_path, dataset):
    empty = tmp_path / "bottle" / "train" / "good"
    empty.mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        read_category(dataset, tmp_path, "bottle", seed=0)
    assert str(empty) in str(caught.value)


# MVTec LOCO


SATURATIONS = [
    {
        "defect_name": "missing",
        "pixel_value": 255,
        "saturation_threshold": 1200,
        "relative_saturation": False,
    },
    {
        "defect_name": "scratch",
        "pixel_value": 254,
        "saturation_threshold": 1.0,
        "relative_saturation": True,
    },
]


@pytest.fixture
def mvtec_loco(tmp_path) -> Path:
    """Make MVTec LOCO with one category; an image's masks lie in a folder of its own."""
    folder = tmp_path / "box"
    several(folder / "train" / "good", 12)
    several(folder / "validation" / "good", 5)
    several(folder / "test" / "good", 4)
    for defect in ("logical_anomalies", "structural_anomalies"):
        several(folder / "test" / defect, 3)
        for index in range(3):
            truth = folder / "ground_truth" / defect / f"{index:03}"
            several(truth, 1 + index)
            (truth / "._000.png").write_bytes(b"hidden")
    (folder / "defects_config.json").write_text(json.dumps(SATURATIONS))
    return tmp_path


def test_mvtec_loco_is_read(mvtec_loco):
    category = read_category("mvtec_loco", mvtec_loco, "box", seed=0)
    folder = mvtec_loco / "box"
    assert images(category.train) == several(folder / "train" / "good", 12)
    assert images(category.validation) == several(folder / "validation" / "good", 5)
    assert Counter((s.label, s.defect) for s in category.test) == {
        (0, "good"): 4,
        (1, "logical_anomalies"): 3,
        (1, "structural_anomalies"): 3,
    }
    for name, found in masks(category).items():
        assert found == [f"{i:03}.png" for i in range(1 + int(name[-1]))]
    for sample in category.test:
        for mask in sample.masks:
            assert mask.parent == folder / "ground_truth" / sample.defect / sample.image.stem
    assert category.defects_config == SATURATIONS


def test_the_only_category_needs_no_name(mvtec_loco):
    assert read_category("mvtec_loco", mvtec_loco, None, seed=0).name == "box"


def test_locos_own_validation_split_does_not_depend_on_the_seed(mvtec_loco):
    first, second = (read_category("mvtec_loco", mvtec_loco, "box", seed) for seed in (0, 1))
    assert first == second


def test_a_missing_defects_config_is_named(mvtec_loco):
    config = mvtec_loco / "box" / "defects_config.json"
    config.unlink()
    with pytest.raises(InputError) as caught:
        read_category("mvtec_loco", mvtec_loco, "box", seed=0)
    assert str(config) in str(caught.value)


def test_a_missing_defects_config_is_the_only_fault_told(mvtec_loco):
    (mvtec_loco / "box" / "defects_config.json").unlink()
    category = survey_category("mvtec_loco", mvtec_loco, "box", seed=0)
    *_, unfit = read_images(category, None, workers=1)
    assert len(category.faults) == 1
    assert unfit == []


@pytest.mark.parametrize(
    "content",
    [
        "{not json",
        "",
        '{"defect_name": "missing"}',
        '[{"defect_name": "missing", "pixel_value": 255}]',
        '["missing"]',
        "[255]",
        "[null]",
        "255",
    ],
)
def test_a_bad_defects_config_is_named(mvtec_loco, content):
    config = mvtec_loco / "box" / "defects_config.json"
    config.write_text(content)
    with pytest.raises(InputError) as caught:
        read_category("mvtec_loco", mvtec_loco, "box", seed=0)
    assert str(config) in str(caught.value)


def test_a_missing_validation_split_is_named(mvtec_loco):
    validation = mvtec_loco / "box" / "validation"
    validation.rename(mvtec_loco / "box" / "elsewhere")
    with pytest.raises(InputError) as caught:
        read_category("mvtec_loco", mvtec_loco, "box", seed=0)
    assert str(validation / "good") in str(caught.value)


@pytest.mark.parametrize("emptied", [True, False])
def test_an_image_without_nested_masks_is_named(mvtec_loco, emptied):
    truth = mvtec_loco / "box" / "ground_truth" / "logical_anomalies" / "001"
    for mask in truth.iterdir():
        mask.unlink()
    if not emptied:
        truth.rmdir()
    with pytest.raises(InputError, match="there is no mask") as caught:
        read_category("mvtec_loco", mvtec_loco, "box", seed=0)
    assert str(mvtec_loco / "box" / "test" / "logical_anomalies" / "001.png") in str(caught.value)


# Files that do not belong together


@pytest.mark.parametrize("stray", ["ground_truth/stain/007_mask.png", "ground_truth/stain/9/0.png"])
def test_a_mask_without_its_image_is_named(tmp_path, stray):
    make_mvtec_ad(tmp_path, "bottle")
    path = tmp_path / "bottle" / stray
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((tmp_path / "bottle/ground_truth/stain/000_mask.png").read_bytes())
    with pytest.raises(InputError, match="no image") as caught:
        read_category("mvtec_ad", tmp_path, "bottle", seed=0)
    assert str(path) in str(caught.value)


def test_masks_of_a_folder_without_images_are_told_in_one_line(tmp_path):
    make_mvtec_ad(tmp_path, "bottle")
    shutil.rmtree(tmp_path / "bottle" / "test" / "stain")
    with pytest.raises(InputError, match=r"000_mask\.png and 2 more: there is no image") as caught:
        read_category("mvtec_ad", tmp_path, "bottle", seed=0)
    assert len(caught.value.args) == 1
    assert str(tmp_path / "bottle" / "test" / "stain") in str(caught.value)


def test_masks_of_good_images_are_nobodys_business(tmp_path):
    make_mvtec_ad(tmp_path, "bottle")
    put(tmp_path / "bottle" / "ground_truth" / "good" / "000.png")
    assert len(read_category("mvtec_ad", tmp_path, "bottle", seed=0).test) == 6


def test_two_images_that_would_share_a_map_are_named(tmp_path):
    make_mvtec_ad(tmp_path, "bottle")
    put(tmp_path / "bottle" / "test" / "good" / "001.jpg")
    with pytest.raises(InputError, match=r"001\.jpg.*001\.png"):
        read_category("mvtec_ad", tmp_path, "bottle", seed=0)


@pytest.mark.parametrize(
    "change",
    [
        {"pixel_value": "255"},
        {"pixel_value": [255]},
        {"saturation_threshold": "half"},
        {"saturation_threshold": 0},
        {"saturation_threshold": -1, "relative_saturation": False},
        {"saturation_threshold": 1.5, "relative_saturation": True},
    ],
)
def test_a_saturation_that_makes_no_sense_is_named(tmp_path, change):
    make_mvtec_loco(tmp_path, "juice")
    path = tmp_path / "juice" / "defects_config.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([entries[0] | change]))
    with pytest.raises(InputError, match="saturation_threshold") as caught:
        read_category("mvtec_loco", tmp_path, "juice", seed=0)
    assert str(path) in str(caught.value)


def test_a_path_that_is_itself_a_category_is_told_so(tmp_path):
    make_mvtec_ad(tmp_path, "bottle")
    with pytest.raises(InputError, match="itself a category"):
        read_category("mvtec_ad", tmp_path / "bottle", "bottle", seed=0)

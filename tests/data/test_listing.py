"""Which files of a product are images: suffixes, sub-folders, and what is passed over."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.catalog import read_category
from data.images import decode
from data.listing import IMAGE_SUFFIXES
from data.samples import InputError
from evaluation.maps import check_maps, map_path
from tests.conftest import make_mvtec_loco
from tests.data.reading import images, put, several

KINDS = {".jfif": "JPEG", ".jpe": "JPEG", ".gif": "GIF", ".jp2": "JPEG2000", ".pbm": "PPM"}
KINDS |= {".pnm": "PPM", ".dib": "DIB", ".avif": "AVIF", ".j2k": "JPEG2000", ".mpo": "JPEG"}


@pytest.mark.parametrize(("suffix", "kind"), KINDS.items(), ids=str)
def test_an_image_of_a_rarer_suffix_is_read(tmp_path, suffix, kind):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip("this Pillow has no such codec")
    path = tmp_path / "train" / "good" / f"000{suffix}"
    several(tmp_path / "train" / "good", 3)
    black_and_white = np.zeros((16, 16), bool)
    black_and_white[:, 8:] = True
    image = Image.fromarray(black_and_white)
    image = image if suffix == ".pbm" else image.convert("RGB")
    image.save(path, kind)
    category = read_category("folder", tmp_path, "bolt", seed=0)
    assert path in images(category.samples)
    pixels = np.asarray(decode(path))
    assert pixels.shape == (16, 16, 3)
    assert pixels[:, :6].mean() < 10
    assert pixels[:, 10:].mean() > 245


def test_sub_folders_of_good_images_are_taken(tmp_path):
    for split in ("train", "validation", "test"):
        put(tmp_path / split / "good" / "000.png")
        put(tmp_path / split / "good" / "lot1" / "000.png")
        put(tmp_path / split / "good" / "lot1" / "cam2" / "000.png")
    category = read_category("folder", tmp_path, "bolt", seed=0)
    for split, samples in (
        ("train", category.train),
        ("validation", category.validation),
        ("test", category.test),
    ):
        good = tmp_path / split / "good"
        expected = [good / "000.png", good / "lot1" / "000.png", good / "lot1" / "cam2" / "000.png"]
        assert images(samples) == expected


def make_cameras(root: Path) -> None:
    """Make a product with images of one name in two folders of a defect, and their masks."""
    several(root / "train" / "good", 4)
    for place in ("000", "cam2/000", "cam3/000", "cam3/001"):
        put(root / "test" / "spot" / f"{place}.png")
    truth = root / "ground_truth" / "spot"
    put(truth / "000.png", truth / "cam2" / "000_mask.png")
    put(truth / "cam3" / "000" / "a.png", truth / "cam3" / "000" / "b.png", truth / "cam3/001.png")


def test_a_nested_image_without_a_mask_is_scored_without_a_label(tmp_path):
    make_cameras(tmp_path)
    (tmp_path / "ground_truth" / "spot" / "cam2" / "000_mask.png").unlink()
    with pytest.warns(UserWarning, match=r"1 test images in sub-folders .*cam2/000.png"):
        category = read_category("folder", tmp_path, "bolt", seed=0)
    assert [sample.place.as_posix() for sample in category.unlabelled] == ["spot/cam2/000.png"]
    assert len(category.test) == 3


def test_masks_of_nested_images_lie_at_the_same_place(tmp_path):
    make_cameras(tmp_path)
    truth = tmp_path / "ground_truth" / "spot"
    category = read_category("folder", tmp_path, "bolt", seed=0)
    found = {sample.place.as_posix(): sample.masks for sample in category.test}
    assert found == {
        "spot/000.png": (truth / "000.png",),
        "spot/cam2/000.png": (truth / "cam2" / "000_mask.png",),
        "spot/cam3/000.png": (truth / "cam3" / "000" / "a.png", truth / "cam3" / "000" / "b.png"),
        "spot/cam3/001.png": (truth / "cam3" / "001.png",),
    }


def test_an_image_called_as_a_folder_beside_it_does_not_take_its_masks(tmp_path):
    make_cameras(tmp_path)
    put(tmp_path / "test" / "spot" / "cam2.png", tmp_path / "ground_truth" / "spot" / "cam2.png")
    category = read_category("folder", tmp_path, "bolt", seed=0)
    sample = next(sample for sample in category.test if sample.place.name == "cam2.png")
    assert sample.masks == (tmp_path / "ground_truth" / "spot" / "cam2.png",)


def test_maps_of_nested_images_never_share_a_place(tmp_path):
    make_cameras(tmp_path)
    category = read_category("folder", tmp_path, "bolt", seed=0)
    maps = tmp_path / "maps"
    places = [map_path(maps, sample).relative_to(maps).as_posix() for sample in category.test]
    assert places == [
        "test/spot/000.tiff",
        "test/spot/cam2/000.tiff",
        "test/spot/cam3/000.tiff",
        "test/spot/cam3/001.tiff",
    ]
    for sample in category.test:
        put(map_path(maps, sample))
    check_maps(category, maps)
    stray = maps / "test" / "spot" / "cam4" / "000.tiff"
    put(stray)
    with pytest.raises(InputError, match="is the map of no test image") as caught:
        check_maps(category, maps)
    assert str(stray) in str(caught.value)


def test_a_folder_named_like_a_map_is_told(tmp_path):
    several(tmp_path / "train" / "good", 4)
    put(tmp_path / "test/spot/000.png", tmp_path / "test/spot/000.tiff/000.png")
    with pytest.raises(InputError, match=r"000\.png has the map spot/000\.tiff.*rename one"):
        read_category("folder", tmp_path, "bolt", seed=0)


def test_locos_folders_of_masks_are_still_masks(tmp_path):
    make_mvtec_loco(tmp_path, "kit")
    category = read_category("mvtec_loco", tmp_path, "kit", seed=0)
    truth = tmp_path / "kit" / "ground_truth" / "logical_anomalies"
    found = [s.masks for s in category.test if s.defect == "logical_anomalies"]
    assert found == [(truth / "000" / "000.png",), (truth / "001" / "000.png",)]


@pytest.mark.parametrize(
    "place",
    ["test/000.png", "validation/000.png", "train/000.png", "train/bad/000.png"],
)
def test_an_image_in_a_place_that_is_not_read_is_told(tmp_path, place):
    several(tmp_path / "train" / "good", 4)
    put(tmp_path / place)
    with pytest.warns(UserWarning, match="1 file is passed over") as warned:
        read_category("folder", tmp_path, "bolt", seed=0)
    assert len(warned) == 1
    assert place in str(warned[0].message)
    assert "train/good" in str(warned[0].message)


@pytest.mark.parametrize(
    ("place", "mend"),
    [
        ("train/gut/000.png", "put them into train/good"),
        ("train/000.png", "put them into train/good"),
        ("test/000.png", "test/good or test/<defect>: put them there"),
        ("validation/good/000.png", "belong in train/good, test/good or test/<defect>"),
    ],
)
def test_the_places_are_those_that_the_data_sets_reader_knows(tmp_path, place, mend):
    several(tmp_path / "bottle" / "train" / "good", 4)
    put(tmp_path / "bottle" / place)
    with pytest.warns(UserWarning, match="1 file is passed over") as warned:
        read_category("mvtec_ad", tmp_path, "bottle", seed=0)
    assert place in str(warned[0].message)
    assert mend in str(warned[0].message)
    assert "validation/good," not in str(warned[0].message)


def test_files_of_a_suffix_that_is_not_read_are_told_in_one_line(tmp_path):
    good = tmp_path / "train" / "good"
    several(good, 4)
    for name in ("a.heic", "b.heic", "c"):
        (good / name).write_bytes(b"?")
    with pytest.warns(UserWarning, match=r"3 files are passed over, .*a\.heic.*\.heic") as warned:
        read_category("folder", tmp_path, "bolt", seed=0)
    assert len(warned) == 1


def test_what_is_meant_to_be_no_image_is_passed_over_in_silence(tmp_path, recwarn):
    good = tmp_path / "train" / "good"
    several(good, 4)
    (tmp_path / "test").mkdir()
    for name in ("._000.png", "Thumbs.db", ".DS_Store", "notes.txt", "labels.csv", "a.json"):
        (good / name).write_bytes(b"?")
        (tmp_path / "test" / name).write_text(json.dumps(1))
    put(good / ".ipynb_checkpoints" / "000.png", good / "__MACOSX" / "000.png")
    category = read_category("folder", tmp_path, "bolt", seed=0)
    assert len(category.samples) == 4
    assert not recwarn.list


def test_every_suffix_that_is_read_is_one_of_a_format_that_is_known():
    from data.image_files import FORMATS

    Image.init()
    kinds = {Image.registered_extensions()[suffix] for suffix in IMAGE_SUFFIXES} - {"MPO"}
    assert kinds <= {*FORMATS}

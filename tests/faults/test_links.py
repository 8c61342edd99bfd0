"""Links in a dataset: images are read from anywhere, texts from inside, nothing is written out.

What a link leads to is only ever decoded as an image, and outputs get their names from the link, or
behind a link to a folder from the names in it.
"""

import os
import shutil
from pathlib import Path

import pytest

import main
from data import listing
from data.catalog import read_category
from data.samples import InputError
from tests.conftest import fill, make_mvtec_ad, make_mvtec_loco, make_product, make_visa
from tests.faults.running import command, run_of

SPLIT = "split_csv/1cls.csv"


def outside(root: Path) -> Path:
    """Put an image outside of a dataset."""
    fill(root.parent / "outside", 1)
    return root.parent / "outside" / "000.png"


@pytest.mark.parametrize("place", ["train/good", "test/good", "test/stain", "ground_truth/stain"])
@pytest.mark.parametrize("whole_folder", [False, True])
def test_a_link_to_images_anywhere_is_followed(tmp_path, place, whole_folder):
    root = tmp_path / "ad"
    make_mvtec_ad(root, "bottle")
    before = read_category("mvtec_ad", root, "bottle", seed=0)
    inside = root / "bottle" / place
    if whole_folder:
        shutil.move(inside, tmp_path / "outside")
        inside.symlink_to(tmp_path / "outside")
    else:
        image = next(iter(sorted(inside.iterdir())))
        image.unlink()
        image.symlink_to(outside(root))
    assert read_category("mvtec_ad", root, "bottle", seed=0) == before  # by the links' own names


def test_a_whole_category_may_be_a_link(tmp_path):
    make_mvtec_loco(tmp_path / "elsewhere", "kit")
    before = read_category("mvtec_loco", tmp_path / "elsewhere", "kit", seed=0)
    (tmp_path / "loco").mkdir()
    (tmp_path / "loco" / "kit").symlink_to(tmp_path / "elsewhere" / "kit")
    category = read_category("mvtec_loco", tmp_path / "loco", "kit", seed=0)
    assert len(category.samples) == len(before.samples)
    assert category.defects_config == before.defects_config


def test_a_link_within_a_dataset_and_to_a_dataset_is_followed(tmp_path):
    make_mvtec_ad(tmp_path / "ad", "bottle")
    (tmp_path / "link").symlink_to(tmp_path / "ad")
    good = tmp_path / "ad" / "bottle" / "train" / "good"
    (good / "999.png").symlink_to(good / "000.png")
    category = read_category("mvtec_ad", tmp_path / "link", "bottle", seed=0)
    assert len(category.train) + len(category.validation) == 7


def test_maps_are_written_under_the_links_names_inside_the_output(world, tmp_path, outcome):
    shutil.copytree(world, tmp_path / "world")
    good = tmp_path / "world" / "bolt" / "test" / "good"
    (good / "linked.png").symlink_to(outside(tmp_path / "world"))
    (good / "lot").symlink_to(tmp_path / "outside")
    before = sorted((tmp_path / "outside").iterdir())
    code, _, errors = outcome(main, command(tmp_path / "world", tmp_path / "out"))
    assert (code, errors) == (0, [])
    maps = run_of(tmp_path / "out").maps_folder / "test" / "good"
    found = sorted(path.relative_to(maps).as_posix() for path in maps.rglob("*.tiff"))
    assert found == ["000.tiff", "001.tiff", "linked.tiff", "lot/000.tiff"]
    assert sorted((tmp_path / "outside").iterdir()) == before


def test_a_link_to_what_is_no_image_is_refused_without_showing_it(world, tmp_path, outcome):
    shutil.copytree(world, tmp_path / "world")
    (tmp_path / "secret").write_text("password: 12345")
    image = tmp_path / "world" / "bolt" / "train" / "good" / "secret.png"
    image.symlink_to(tmp_path / "secret")
    code, out, errors = outcome(main, command(tmp_path / "world", tmp_path / "out", "--check"))
    assert (code, out, len(errors)) == (2, "", 1)
    assert f"{image}: no known format" in errors[0]
    assert "12345" not in errors[0]


def test_links_in_a_circle_end(tmp_path):
    make_product(tmp_path)
    good = tmp_path / "train" / "good"
    (good / "up").symlink_to(tmp_path)  # would take defects for good images
    (good / "lot").mkdir()
    (good / "lot" / "again").symlink_to(good)
    shutil.copy(good / "000.png", good / "lot" / "000.png")
    category = read_category("folder", tmp_path, "bolt", seed=0)
    assert len(category.train) + len(category.validation) == 7


@pytest.mark.parametrize("beside", [True, False])
def test_no_file_behind_a_link_to_a_folder_is_an_example_of_what_is_passed_over(tmp_path, beside):
    make_product(tmp_path / "bolt")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a_secret").write_text("?")
    good = tmp_path / "bolt" / "train" / "good"
    (good / "lot").symlink_to(tmp_path / "outside")
    if beside:
        (good / "x.heic").write_text("?")
    with pytest.warns(UserWarning, match="passed over") as warned:
        read_category("folder", tmp_path / "bolt", "bolt", seed=0)
    (message,) = (str(warning.message) for warning in warned)
    assert "secret" not in message
    told = "2 files are passed over, such as train/good/x.heic" if beside else "1 file is passed"
    assert told in message


def test_a_link_to_more_files_than_a_product_has_ends(tmp_path, monkeypatch):
    make_product(tmp_path / "bolt")
    fill(tmp_path / "outside", 20)
    good = tmp_path / "bolt" / "train" / "good"
    (good / "lot").symlink_to(tmp_path / "outside")
    assert len(read_category("folder", tmp_path / "bolt", "bolt", seed=0).samples) == 30
    monkeypatch.setattr(listing, "MOST_FILES", 15)
    with pytest.raises(InputError, match=r"holds more than 15 files.*link") as caught:
        read_category("folder", tmp_path / "bolt", "bolt", seed=0)
    assert f"{good.parent} holds" in str(caught.value)


@pytest.mark.parametrize("place", ["train/good/lot", "train/good/000.png", "test/stain", "test"])
def test_a_broken_link_is_named_in_one_line(world, tmp_path, outcome, place):
    shutil.copytree(world, tmp_path / "world")
    shutil.rmtree(tmp_path / "world" / "bolt" / "ground_truth")
    link = tmp_path / "world" / "bolt" / place
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "gone")
    code, _, errors = outcome(main, command(tmp_path / "world", tmp_path / "out", "--check"))
    assert (code, len(errors)) == (2, 1)
    assert str(link) in errors[0]
    assert "is a link to what is not there" in errors[0]


def test_a_table_that_is_a_link_out_of_its_dataset_is_refused(tmp_path):
    make_mvtec_loco(tmp_path / "loco", "kit")
    make_visa(tmp_path / "visa", "pcb1")
    config = tmp_path / "loco" / "kit" / "defects_config.json"
    for path in (config, tmp_path / "visa" / SPLIT):
        shutil.move(path, tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    with pytest.raises(InputError, match=r"defects_config\.json leads outside"):
        read_category("mvtec_loco", tmp_path / "loco", "kit", seed=0)
    with pytest.raises(InputError, match=r"1cls\.csv leads outside"):
        read_category("visa", tmp_path / "visa", "pcb1", seed=0)


@pytest.mark.parametrize("name", ["../outside/000.png", "/{}/outside/000.png"])
@pytest.mark.parametrize("column", ["image", "mask"])
def test_a_path_out_of_a_csv_is_refused(tmp_path, name, column):
    root = tmp_path / "visa"
    make_visa(root, "pcb1")
    outside(root)
    name = name.format(str(tmp_path).lstrip(os.sep))
    former = {
        "image": "pcb1/Data/Images/Anomaly/000.JPG",
        "mask": "pcb1/Data/Masks/Anomaly/000.png",
    }
    split = root / SPLIT
    split.write_text(split.read_text().replace(former[column], name))
    with pytest.raises(InputError, match="leads outside of"):
        read_category("visa", root, "pcb1", seed=0)

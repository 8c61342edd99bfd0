"""Readers of every dataset layout: splits, masks, hold-out, and errors that name the fault."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from data.catalog import find_root, read_category
from data.samples import Category, InputError, Sample, hold_out
from tests.conftest import make_mvtec_ad, make_mvtec_loco

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def put(*paths: Path) -> None:
    """Put a tiny grey picture at each path."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 128).save(path)


def several(folder: Path, count: int, suffix: str = ".png") -> list[Path]:
    paths = [folder / f"{index:03}{suffix}" for index in range(count)]
    put(*paths)
    return paths


def images(samples: list[Sample]) -> list[Path]:
    return [sample.image for sample in samples]


def masks(category: Category) -> dict[str, list[str]]:
    """Return the names of each anomalous image's masks, by `<defect>/<stem>`."""
    return {
        f"{sample.defect}/{sample.image.stem}": [mask.name for mask in sample.masks]
        for sample in category.test
        if sample.label
    }


def assert_held_out(category: Category, training: list[Path], count: int) -> None:
    """Check that train and validation divide `training`, `count` images for validation."""
    train, validation = images(category.train), images(category.validation)
    assert len(validation) == count
    assert sorted(train + validation) == sorted(training)
    assert not set(train) & set(validation)
    good = [(sample.label, sample.defect, sample.masks) for sample in category.train]
    assert set(good) == {(0, "good", ())}


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
    with pytest.raises(InputError) as caught:
        read_category("mvtec_loco", mvtec_loco, "box", seed=0)
    assert str(truth) in str(caught.value)


# VisA


def raw_visa(root: Path, rows: list[dict[str, str]]) -> None:
    """Make VisA's raw tree: the split, and an empty file for every path in it."""
    (root / "split_csv").mkdir(parents=True)
    with (root / "split_csv" / "1cls.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["object", "split", "label", "image", "mask"])
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        for name in filter(None, (row["image"], row["mask"])):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()


def split_rows(name: str, train: int, good: int, bad: int) -> list[dict[str, str]]:
    normal, anomaly = f"{name}/Data/Images/Normal", f"{name}/Data/Images/Anomaly"
    rows = [
        {
            "object": name,
            "split": "train" if index < train else "test",
            "label": "normal",
            "image": f"{normal}/{index:04}.JPG",
            "mask": "",
        }
        for index in range(train + good)
    ]
    return rows + [
        {
            "object": name,
            "split": "test",
            "label": "anomaly",
            "image": f"{anomaly}/{index:03}.JPG",
            "mask": f"{name}/Data/Masks/Anomaly/{index:03}.png",
        }
        for index in range(bad)
    ]


@pytest.fixture
def visa(tmp_path) -> Path:
    """Make a small raw tree of two objects."""
    raw_visa(tmp_path, split_rows("pcb1", 20, 4, 3) + split_rows("candle", 10, 2, 1))
    return tmp_path


def test_raw_visa_is_read(visa):
    category = read_category("visa", visa, "pcb1", seed=0)
    normal = visa / "pcb1" / "Data" / "Images" / "Normal"
    assert_held_out(category, [normal / f"{i:04}.JPG" for i in range(20)], 2)
    assert images(category.test)[:4] == [normal / f"{i:04}.JPG" for i in range(20, 24)]
    assert [sample.label for sample in category.test] == [0] * 4 + [1] * 3
    for index, sample in enumerate(category.test[4:]):
        assert sample.image == visa / "pcb1" / "Data" / "Images" / "Anomaly" / f"{index:03}.JPG"
        assert sample.masks == (visa / "pcb1/Data/Masks/Anomaly" / f"{index:03}.png",)


def test_an_unknown_object_of_visa_lists_those_there_are(visa):
    with pytest.raises(InputError, match=r"--subdataset pcb9 .*candle, pcb1"):
        read_category("visa", visa, "pcb9", seed=0)


def test_an_object_in_the_split_but_not_on_disk_is_not_offered(visa):
    (visa / "candle").rename(visa / "elsewhere")
    assert read_category("visa", visa, None, seed=0).name == "pcb1"


@pytest.mark.parametrize(
    "lost", ["pcb1/Data/Images/Normal/0003.JPG", "pcb1/Data/Masks/Anomaly/001.png"]
)
def test_a_file_that_the_split_lists_must_be_there(visa, lost):
    (visa / lost).unlink()
    with pytest.raises(InputError) as caught:
        read_category("visa", visa, "pcb1", seed=0)
    assert str(visa / lost) in str(caught.value)


def test_an_anomaly_without_a_mask_in_the_split_is_named(tmp_path):
    rows = split_rows("pcb1", 20, 4, 3)
    rows[-1]["mask"] = ""
    raw_visa(tmp_path, rows)
    with pytest.raises(InputError, match=r"no mask for pcb1/Data/Images/Anomaly/002\.JPG"):
        read_category("visa", tmp_path, "pcb1", seed=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("object,split,image\npcb1,train,a.JPG\n", "columns"),
        ("", "columns"),
        ("object,split,label,image,mask\npcb1,train\npcb1,train\n", "pcb1"),
    ],
    ids=["a column less", "empty", "short rows"],
)
def test_a_bad_split_is_named(visa, content, said):
    split = visa / "split_csv" / "1cls.csv"
    split.write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        read_category("visa", visa, "pcb1", seed=0)
    assert str(split) in str(caught.value)


@pytest.mark.parametrize("inside", ["1cls", "."])
def test_converted_visa_is_read(tmp_path, inside):
    folder = tmp_path / inside / "pcb1"
    training = several(folder / "train" / "good", 30, ".JPG")
    several(folder / "test" / "good", 3, ".JPG")
    several(folder / "test" / "bad", 2, ".JPG")
    several(folder / "ground_truth" / "bad", 2, ".png")
    category = read_category("visa", tmp_path, "pcb1", seed=0)
    assert_held_out(category, training, 3)
    assert Counter(s.label for s in category.test) == {0: 3, 1: 2}
    assert masks(category) == {"bad/000": ["000.png"], "bad/001": ["001.png"]}


def test_both_trees_of_visa_agree_on_their_samples(tmp_path, visa):
    converted = tmp_path / "converted"
    for row in split_rows("pcb1", 20, 4, 3):
        defect = "good" if row["label"] == "normal" else "bad"
        place = converted / "1cls" / "pcb1"
        put(place / row["split"] / defect / Path(row["image"]).name)
        if row["mask"]:
            put(place / "ground_truth" / defect / Path(row["mask"]).name)
    summaries = [
        [
            [(s.image.name, s.label, s.defect, [m.name for m in s.masks]) for s in samples]
            for samples in (category.train, category.validation, sorted(category.test, key=str))
        ]
        for category in (
            read_category("visa", visa, "pcb1", seed=5),
            read_category("visa", converted, "pcb1", seed=5),
        )
    ]
    assert summaries[0][:2] == summaries[1][:2]
    assert sorted(summaries[0][2]) == sorted(summaries[1][2])


@pytest.fixture(scope="module")
def official_rows() -> list[dict[str, str]]:
    """Read VisA's official one-class split, independently of the reader."""
    path = SHARED / "visa" / "split_csv" / "1cls.csv"
    if not path.is_file():
        pytest.skip("VisA's official split is not part of the project")
    lines = [line.split(",") for line in path.read_text().splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


@pytest.fixture(scope="module")
def official_visa(official_rows, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("visa")
    raw_visa(root, official_rows)
    return root


def test_the_official_visa_split_gives_its_counts(official_rows, official_visa):
    counts = Counter((row["object"], row["split"], row["label"]) for row in official_rows)
    names = sorted({row["object"] for row in official_rows})
    assert len(names) == 12
    assert len(official_rows) == 10_821
    for name in names:
        category = read_category("visa", official_visa, name, seed=0)
        training = counts[name, "train", "normal"]
        assert len(category.train) + len(category.validation) == training
        assert len(category.validation) == round(training / 10)
        labels = Counter(sample.label for sample in category.test)
        assert labels[0] == counts[name, "test", "normal"]
        assert labels[1] == counts[name, "test", "anomaly"] == 100
        assert all(len(sample.masks) == sample.label for sample in category.test)


def test_pcb1_has_the_published_numbers(official_visa):
    category = read_category("visa", official_visa, "pcb1", seed=0)
    assert len(category.train) + len(category.validation) == 904
    assert len(category.test) == 200


# A folder of one's own


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


@pytest.mark.parametrize("stray", ["ground_truth/stain/007_mask.png", "ground_truth/stain/9/0.png"])
def test_a_mask_without_its_image_is_named(tmp_path, stray):
    make_mvtec_ad(tmp_path, "bottle")
    path = tmp_path / "bottle" / stray
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((tmp_path / "bottle/ground_truth/stain/000_mask.png").read_bytes())
    with pytest.raises(InputError, match="no image") as caught:
        read_category("mvtec_ad", tmp_path, "bottle", seed=0)
    assert str(path) in str(caught.value)


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


# Real datasets


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

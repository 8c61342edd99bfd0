"""VisA, raw and converted: the official split, masks, and errors that name the fault."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from data.catalog import read_category
from data.samples import InputError
from tests.data.reading import SHARED, assert_held_out, images, masks, put, several


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

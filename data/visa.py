"""VisA: the raw tree with `split_csv/1cls.csv`, and the converted one in MVTec AD's layout."""

import csv
from pathlib import Path

from data import mvtec
from data.samples import GOOD, Category, InputError, Sample, good_samples, hold_out

SPLIT = Path("split_csv") / "1cls.csv"
COLUMNS = ("object", "split", "label", "image", "mask")
ANOMALY = "bad"  # the converted tree's name for the one kind of defect


def find_categories(root: Path) -> list[str]:
    """Return the categories of a raw or converted tree that are on disk."""
    if (root / SPLIT).is_file():
        names = {row["object"] for row in read_split(root)}
        return sorted(name for name in names if (root / name).is_dir())
    return mvtec.find_categories(converted(root))


def converted(root: Path) -> Path:
    """Return the folder of categories of a converted tree: `1cls` inside `root`, or `root`."""
    return root / "1cls" if (root / "1cls").is_dir() else root


def read_visa(root: Path, name: str, seed: int) -> Category:
    """Read a category. A tenth of its training images, drawn by `seed`, is for validation.

    Raises InputError naming the file that is missing or the row of the split that is wrong.
    """
    if not (root / SPLIT).is_file():
        return mvtec.read_mvtec_ad(converted(root), name, seed)
    rows = [row for row in read_split(root) if row["object"] == name]
    train = good_samples([root / row["image"] for row in rows if row["split"] == "train"])
    if not train:
        raise InputError(f"{root / SPLIT} has no training row for {name}")
    train, validation = hold_out(train, seed)
    test = [read_row(root, row) for row in rows if row["split"] == "test"]
    for sample in (*train, *validation, *test):
        for path in (sample.image, *sample.masks):
            if not path.is_file():
                raise InputError(f"{path} is listed in {root / SPLIT} but does not exist")
    return Category(name, train, validation, test)


def read_row(root: Path, row: dict[str, str]) -> Sample:
    """Turn one test row of the split into a sample."""
    if row["label"] == "normal":
        return Sample(root / row["image"], 0, GOOD)
    if not row["mask"]:
        raise InputError(f"{root / SPLIT}: no mask for {row['image']}")
    return Sample(root / row["image"], 1, ANOMALY, (root / row["mask"],))


def read_split(root: Path) -> list[dict[str, str]]:
    """Read the one-class split. Raises InputError when its columns are not those of VisA's."""
    with (root / SPLIT).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not set(COLUMNS) <= set(reader.fieldnames or ()):
            raise InputError(f"{root / SPLIT} must have the columns {', '.join(COLUMNS)}")
        rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if None in (row[column] for column in COLUMNS):
            raise InputError(f"{root / SPLIT}: line {number}, of {row['object']}, is cut short")
    return rows

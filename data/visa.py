"""VisA: the raw tree with `split_csv/1cls.csv`, and the converted one in MVTec AD's layout."""

import csv
import os
from pathlib import Path

from data import mvtec
from data.samples import (
    GOOD,
    Category,
    InputError,
    Sample,
    check_inside,
    hold_out,
    is_plain,
    noted,
    report_faults,
)

SPLIT = Path("split_csv") / "1cls.csv"
MOST_SPLIT = 2**26  # bytes; the official one has 2**20
COLUMNS = ("object", "split", "label", "image", "mask")
ANOMALY = "bad"  # the converted tree's name for the one kind of defect


def find_categories(root: Path) -> list[str]:
    """Return the categories of a raw or converted tree that are on disk."""
    if (root / SPLIT).is_file():
        names = {row["object"] for row in read_split(root)}
        return sorted(name for name in names if is_plain(name) and (root / name).is_dir())
    return mvtec.find_categories(converted(root))


def converted(root: Path) -> Path:
    """Return the folder of categories of a converted tree: `1cls` inside `root`, or `root`."""
    return root / "1cls" if (root / "1cls").is_dir() else root


def read_visa(root: Path, name: str, seed: int) -> Category:
    """Read a category. A tenth of its training images, drawn by `seed`, is for validation.

    Its faults name each file that is missing and each row of the split that is wrong.
    """
    if not (root / SPLIT).is_file():
        return mvtec.read_mvtec_ad(converted(root), name, seed)
    train, validation, test, faults = [], [], [], []
    for row in read_split(root):
        if row["object"] == name:
            with noted(faults):
                sample = read_row(root, row)
                (train if row["split"] == "train" else test).append(sample)
    with noted(faults):
        if not train:
            raise InputError(f"{root / SPLIT} has no training row for {name}")
        train, validation = hold_out(train, seed)
    return Category(name, train, validation, test, faults=faults, held_out=True)


def read_row(root: Path, row: dict[str, str]) -> Sample:
    """Turn a row of the split into a sample. Raises InputError for one that cannot be."""
    image, split, label = root / row["image"], row["split"], row["label"]
    if (split, label) not in (("train", "normal"), ("test", "normal"), ("test", "anomaly")):
        raise InputError(f"{root / SPLIT}: {image} is {split} and {label}, which is not known")
    if label == "anomaly" and not row["mask"]:
        raise InputError(f"{root / SPLIT}: no mask for {row['image']}")
    written = [row["image"], row["mask"]] if label == "anomaly" else [row["image"]]
    for path in map(Path, written):  # links are followed, but what a csv says stays inside
        if path.is_absolute() or ".." in path.parts:
            raise InputError(
                f"{path} in {root / SPLIT} leads outside of {root}: copy the file there"
            )
    masks = tuple(root / mask for mask in written[1:])
    for path in (image, *masks):
        if not os.path.isfile(path):  # unlike Path's, false for any name that cannot be a file's
            raise InputError(f"{path} is listed in {root / SPLIT} but does not exist")
    return Sample(image, 1, ANOMALY, masks) if masks else Sample(image, 0, GOOD)


def read_split(root: Path) -> list[dict[str, str]]:
    """Read the one-class split. Raises InputError when its columns are not those of VisA's."""
    check_inside(root / SPLIT, root)
    try:
        if (root / SPLIT).stat().st_size > MOST_SPLIT:
            raise ValueError(f"it has more than {MOST_SPLIT} bytes")
        with (root / SPLIT).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise InputError(f"{root / SPLIT} must have the columns {', '.join(COLUMNS)}")
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{root / SPLIT} cannot be read: {error}") from error
    report_faults(
        [
            f"{root / SPLIT}: line {number}, of {row['object']}, is cut short"
            for number, row in enumerate(rows, start=2)
            if None in (row[column] for column in COLUMNS)
        ]
    )
    return rows

"""What papers have reported, to be read beside our own results: published.yaml, checked."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from data.catalog import DATASETS
from data.samples import InputError, report_faults
from evaluation.columns import columns
from evaluation.tables import MEAN
from utils.files import read_yaml

FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Published:
    """What one method reached on one category, or, as it was published, on MEAN of all.

    `values` are percent, by the names of our columns, as many as were reported. `note` says in what
    the protocol differs, or that a number is second-hand; "" where nothing is known to differ.
    """

    method: str
    category: str
    values: dict[str, float]
    source: str
    note: str = ""


def published(dataset: str) -> list[Published]:
    """Return what is known of a data set, in the file's order; nothing of a product of one's own.

    Raises InputError for a damaged file.
    """
    return read_published(FILE).get(dataset, [])


@cache
def read_published(path: Path) -> dict[str, list[Published]]:
    """Read a file of published results: data set -> its rows.

    Raises InputError that names the file and what is wrong with it: one line for each data set,
    category or column that there is not, and for each number that is no percentage.
    """
    text = read_yaml(path)
    try:
        found = {
            name: rows_of(methods, text["sources"]) for name, methods in text["results"].items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    report_faults(
        [f"{path}: {fault}" for name, rows in found.items() for fault in faults(name, rows)]
    )
    return found


def rows_of(methods: list[dict], sources: dict[str, str]) -> list[Published]:
    """Return a row for each category that each of a data set's methods was measured on."""
    rows: dict[tuple[str, str], Published] = {}
    for entry in methods:
        method, source, note = entry["method"], sources[entry["source"]], entry.get("note", "")
        for column, values in entry["values"].items():
            for category, value in values.items():
                new = Published(method, category, {}, source, note)
                rows.setdefault((method, category), new).values[column] = value
    return list(rows.values())


def faults(dataset: str, rows: list[Published]) -> list[str]:
    """Return one line for each thing in a data set's rows that cannot be."""
    if dataset not in DATASETS:
        return [f"there is no data set {dataset}"]
    found = []
    for row in rows:
        where = f"{dataset}, {row.method}, {row.category}"
        if row.category not in (*DATASETS[dataset].categories, MEAN):
            found.append(f"{where}: {dataset} has no such category")
        for column, value in row.values.items():
            if column not in columns(dataset):
                found.append(f"{where}: {dataset} has no column {column}")
            if not isinstance(value, int | float) or not 0 <= value <= 100:
                found.append(f"{where}, {column}: {value} is no percentage")
    return found

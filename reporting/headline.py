"""The headline table: what was measured, model beside model, and what was published."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from data.catalog import DATASETS
from evaluation.columns import columns, shown_columns
from evaluation.gaps import gaps
from evaluation.published import published
from evaluation.tables import MEAN, as_records, row_name, rows
from reporting.collected import Models

GAP = "–"


class Cell(NamedTuple):
    text: str
    value: float | None  # in percent and in full, to sort by


class Line(NamedTuple):
    category: str
    method: str  # what tells a model from the others, or a published method
    cells: list[Cell]
    runs: int = 1  # over which it is the mean
    source: int = 0  # the place among the table's sources, from 1, of what was published
    note: str = ""  # in what a published protocol differs


class Column(NamedTuple):
    name: str
    headline: bool  # the others are shown when asked for


@dataclass(frozen=True)
class Table:
    columns: list[Column]
    lines: list[Line]
    means: list[Line]  # over the categories
    notes: list[str]  # why there are gaps
    sources: list[str]  # of what was published

    @property
    def seeds(self) -> bool:
        """Whether something is a mean over seeds."""
        return any(line.runs > 1 for line in self.lines)


def percent(value: float | None, std: float | None = None) -> str:
    """Return a part of 1 in percent, with its standard deviation; a dash for None."""
    if value is None:
        return GAP
    return f"{100 * value:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


def headline(dataset: str, models: Models) -> Table:
    """Return the table of a dataset's models: the mean ± standard deviation over their seeds."""
    tables = {
        name: [rows(dataset, {c: one.metrics for c, one in run.items()}) for run in runs]
        for name, runs in models.items()
    }
    names, shown = list(columns(dataset)), shown_columns(dataset, "headline")
    records = as_records({dataset: tables})
    own = [line(record, names) for record in records]
    categories = [line.category for line in own if line.category != MEAN]
    found, sources = literature(dataset, names, {*categories})
    lines = [line for line in (*own, *found) if line.category in categories]
    means = [line for line in own if line.category == MEAN and len({*categories}) > 1]
    means += [line for line in found if line.category not in categories]
    order = {category: place for place, category in enumerate(categories)}
    return Table(
        [Column(name, name in shown) for name in names],
        sorted(lines, key=lambda line: order[line.category]),
        means,
        notes(dataset, models),
        sources,
    )


def literature(
    dataset: str, names: list[str], categories: set[str]
) -> tuple[list[Line], list[str]]:
    """Return what was published of these categories and of the dataset's mean, and its sources."""
    known = published(dataset)
    sources = [*dict.fromkeys(one.source for one in known)]
    count = len(DATASETS[dataset].categories)
    mean = MEAN if len(categories) == count else f"{MEAN} of all {count}"
    lines = [
        Line(
            mean if one.category == MEAN else one.category,
            one.method,
            [published_cell(one.values.get(name)) for name in names],
            source=1 + sources.index(one.source),
            note=one.note,
        )
        for one in known
        if one.category in categories | {MEAN}
    ]
    return lines, sources


def published_cell(value: float | None) -> Cell:
    """Return a number in percent, as it was published."""
    return Cell(GAP if value is None else f"{value:.1f}", value)


def line(record: dict, names: list[str]) -> Line:
    """Return a record of `evaluation.tables` as a line of the table."""
    return Line(
        record["category"],
        record.get("model", ""),
        [cell(record[name], record.get(f"{name} std")) for name in names],
        record.get("runs", 1),
    )


def cell(value: float | None, std: float | None) -> Cell:
    return Cell(percent(value, std), None if value is None else 100 * value)


def notes(dataset: str, models: Models) -> list[str]:
    """Return what is missing in the table and why, a line for each category."""
    found: Counter[str] = Counter()  # which keeps the order, and each but once
    for runs in models.values():
        for name, one in ((name, one) for run in runs for name, one in run.items()):
            why = gaps(one.metrics, DATASETS[dataset].saturated)
            if unreadable := one.metrics["glae"].get("unreadable"):
                why = [*why, f"unreadable test images, left out: {len(unreadable)}"]
            if why:
                found[f"{row_name(dataset, name)}: {', '.join(why)}"] += 1
        if len({frozenset(run) for run in runs}) > 1:
            found[f"{MEAN}: the runs are of different categories"] += 1
    return [*found]

"""The headline table: what was measured, model beside model, and what was published."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data.catalog import DATASETS
from evaluation import cells
from evaluation.columns import columns, shown_columns
from evaluation.compared import Models
from evaluation.published import published
from evaluation.tables import MEAN, Seeds, notes_of, tabulated, values_of


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


def headline(dataset: str, models: Models) -> Table:
    """Return the table of a dataset's models: the mean ± standard deviation over their seeds."""
    tables = tabulated({dataset: models})[dataset]
    categories = sorted({name for runs in tables.values() for run in runs for name in run} - {MEAN})
    own = [
        line(category, model, runs)
        for category in (*categories, MEAN)
        for model, runs in tables.items()
        if any(category in run for run in runs)
    ]
    names, shown = list(columns(dataset)), shown_columns(dataset, ("headline",))
    found, sources = literature(dataset, names, categories)
    lines = [line for line in (*own, *found) if line.category in categories]
    means = [line for line in own if line.category == MEAN and len(categories) > 1]
    means += [line for line in found if line.category not in categories]
    return Table(
        [Column(name, name in shown) for name in names],
        sorted(lines, key=lambda line: line.category),
        means,
        notes_of(dataset, models, ("headline",)),
        sources,
    )


def literature(
    dataset: str, names: list[str], categories: list[str]
) -> tuple[list[Line], list[str]]:
    """Return what was published of these categories and of the dataset's mean, and its sources."""
    shown = {*categories, MEAN} if len(categories) > 1 else {*categories}  # else ours has no mean
    known = [one for one in published(dataset) if one.category in shown]
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
    ]
    return lines, sources


def published_cell(value: float | None) -> Cell:
    """Return a number in percent, as it was published."""
    return Cell(cells.GAP if value is None else f"{value:.1f}", value)


def line(category: str, model: str, runs: Seeds) -> Line:
    """Return a model's line of a category, or of MEAN."""
    values = values_of(runs, category).values()
    return Line(category, model, [*map(cell, values)], sum(category in run for run in runs))


def cell(values: list[float | None]) -> Cell:
    """Return a model's mean over its seeds, and their standard deviation."""
    mean = None if None in values else 100 * float(np.mean(values))
    return Cell(cells.cell(values, "html"), mean)

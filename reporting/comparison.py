"""Models side by side, a table for each metric: their values, and what the first is exceeded by."""

from dataclasses import dataclass
from typing import NamedTuple

from evaluation.comparison import KINDS, Resampled, difference, resampled
from evaluation.tables import MEAN, row_name
from reporting.collected import Categories, Models
from reporting.headline import GAP, Cell, Line, Table


class Change(NamedTuple):
    """By how much another model is better than the first, in percent points."""

    text: str
    value: float | None
    sure: bool = False  # its interval is on one side of 0


class Row(NamedTuple):
    category: str
    values: list[Cell]  # of each model
    changes: list[Change]  # of each but the first


@dataclass(frozen=True)
class SideBySide:
    """One metric of all models."""

    column: str
    models: list[str]
    rows: list[Row]
    has_intervals: bool
    left_out: int  # images that not all runs have, so that they do not count in the intervals


def side_by_side(dataset: str, models: Models, table: Table) -> list[SideBySide]:
    """Return the models of a dataset beside each other by each headline metric; none of one."""
    if len(models) < 2:
        return []
    own = [line for line in (*table.lines, *table.means) if not line.source]
    lines = {(line.category, line.method): line for line in own}
    return [
        by_metric(dataset, models, lines, column.name, place)
        for place, column in enumerate(table.columns)
        if column.headline
    ]


def by_metric(
    dataset: str, models: Models, lines: dict[tuple[str, str], Line], column: str, place: int
) -> SideBySide:
    """Return one metric of all models; `place` is its column's among the `lines`' cells."""
    first, *others = models
    drawn = {other: draws(dataset, models[first], models[other], column) for other in others}
    rows = []
    for category in dict.fromkeys(category for category, _ in lines):
        having = {model: lines.get((category, model)) for model in models}
        cells = [line.cells[place] if line else Cell(GAP, None) for line in having.values()]
        changes = [
            change(cells[0], cell, drawn[other].get(category, []))
            for other, cell in zip(others, cells[1:], strict=True)
        ]
        rows.append(Row(category, cells, changes))
    counted = [
        one for of in drawn.values() for name, ones in of.items() if name != MEAN for one in ones
    ]
    return SideBySide(column, [*models], rows, bool(counted), sum(one.left_out for one in counted))


def draws(
    dataset: str, first: list[Categories], other: list[Categories], column: str
) -> dict[str, list[Resampled]]:
    """Return what the bootstrap says of each category that both models have, by its row's name.

    The mean's row has those of all, unless one lacks. There is nothing of a metric of pixels, of
    which no image's part is kept.
    """
    names = sorted(set().union(*first) & set().union(*other)) if column in KINDS else []
    found = {}
    for name in names:
        seeds = [[run[name].results for run in runs if name in run] for runs in (first, other)]
        if all(map(all, seeds)) and (one := resampled(*seeds, column, name)):
            found[row_name(dataset, name)] = [one]
    return found | ({MEAN: [one for (one,) in found.values()]} if len(found) == len(names) else {})


def change(first: Cell, other: Cell, drawn: list[Resampled]) -> Change:
    """Return the difference of two cells, with its interval where there is one."""
    if first.value is None or other.value is None:
        return Change(GAP, None)
    value = other.value - first.value
    if not drawn:
        return Change(f"{value:+.1f}", value)
    _, low, high = difference(drawn)
    text = f"{value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return Change(text, value, low > 0 or high < 0)

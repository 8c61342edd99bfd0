"""Models side by side, a table for each metric: values, and how far each is from the first."""

from dataclasses import dataclass
from typing import NamedTuple

from evaluation.cells import difference_text
from evaluation.columns import shown_columns
from evaluation.compared import Comparison, Models, compared
from evaluation.comparison import Difference
from evaluation.tables import MEAN
from reporting.headline import Cell, cell


class Change(NamedTuple):
    """How far another model is from the first, in percent points."""

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
    wins: dict[str, int]  # model -> in how many categories it alone is the best
    bodies: list[list[Row]]  # the categories; the mean over several
    has_intervals: bool
    left_out: int  # images that not all runs have, so that their categories have no interval


def by_each_metric(dataset: str, models: Models) -> list[SideBySide]:
    """Return the models of a dataset beside each other by each headline metric; none of one."""
    if len(models) < 2:
        return []
    return [by_metric(compared(dataset, c, models)) for c in shown_columns(dataset, ("headline",))]


def by_metric(comparison: Comparison) -> SideBySide:
    """Return one metric of all models."""
    first, *others = comparison.seeds
    rows = []
    for category, values in comparison.values.items():
        differences = comparison.differences[category]
        cells = [cell(values.get(model, [None])) for model in (first, *others)]
        rows.append(Row(category, cells, [change(differences.get(other)) for other in others]))
    bodies = [[row for row in rows if (row.category == MEAN) == mean] for mean in (False, True)]
    known = [one for of in comparison.differences.values() for one in of.values()]
    return SideBySide(
        comparison.column,
        comparison.wins(),
        bodies if len(bodies[0]) > 1 else bodies[:1],
        any(difference.low is not None for difference in known),
        sum(comparison.left_out.values()),
    )


def change(found: Difference | None) -> Change:
    """Return a difference with its interval, where there is one."""
    text = difference_text(found, "html")
    if found is None:
        return Change(text, None)
    value, low, high = found
    return Change(text, 100 * value, low is not None and (low > 0 or high < 0))

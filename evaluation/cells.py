"""How tables write a number: one of a run, or the mean of several with its deviation."""

import csv
import io

import numpy as np

from evaluation.comparison import Difference

GAP = "–"


def std(values: list[float | None]) -> float | None:
    """Return the sample standard deviation of several runs' values; None of one."""
    return None if None in values or len(values) < 2 else float(np.std(values, ddof=1))


def percent(value: float | None) -> str:
    """Return a part of 1 in percent to one decimal; a dash for None."""
    return GAP if value is None else f"{100 * value:.1f}"


def cell(values: list[float | None], style: str) -> str:
    """Return percent to one decimal, ± the sample standard deviation over several runs.

    `style` is one of the tables' FORMATS, or html.
    """
    if None in values:
        return GAP
    text, between = percent(np.mean(values)), "±" if style == "simple" else " ± "
    return text if len(values) < 2 else f"{text}{between}{percent(std(values))}"


def difference_text(found: Difference | None, style: str) -> str:
    """Return a difference in points to one decimal, with its interval if it has one."""
    if found is None:
        return GAP
    value, *ends = (f"{round(100 * end, 1) + 0.0:+.1f}" for end in found if end is not None)
    text = f"{value} [{', '.join(ends)}]" if ends else value
    return text.replace("-", "$-$") if style == "latex" else text


def two_lines(column: str) -> str:
    """Break a column's name so that the table stays narrow."""
    return "\n".join(column.rsplit(" ", 1)) if len(column) > 6 else column


def csv_of(records: list[dict]) -> str:
    """Return a row for each record, a column for every key that one has."""
    names = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()

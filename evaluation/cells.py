"""How tables write a number: one of a run, or the mean of several with its deviation."""

import csv
import io

import numpy as np


def std(values: list[float | None]) -> float | None:
    """Return the sample standard deviation of several runs' values; None of one."""
    return None if None in values or len(values) < 2 else float(np.std(values, ddof=1))


def cell(values: list[float | None], style: str) -> str:
    """Return percent to one decimal, ± the sample standard deviation over several runs."""
    if None in values:
        return "–"
    text, between = f"{100 * np.mean(values):.1f}", "±" if style == "simple" else " ± "
    return text if len(values) < 2 else f"{text}{between}{100 * std(values):.1f}"


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

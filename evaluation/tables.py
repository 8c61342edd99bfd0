"""Results → tables: one a dataset, a row a category, then the mean; over seeds mean ± std.

`python3 -m evaluation.tables OUTPUT ...` prints the tables of what has been evaluated already.
"""

import csv
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tabulate

from data.catalog import DATASETS
from data.samples import InputError
from evaluation.evaluation import LOCO_SUBSETS
from evaluation.gaps import gaps
from evaluation.image_metrics import mean
from evaluation.localization import SPRO_LIMITS
from utils.files import written_aside

tabulate.MIN_PADDING = 0  # beside a head, where LOCO's need every column of a terminal
FORMATS = ("simple", "github", "latex", "csv", "json")
SUBSETS = (*LOCO_SUBSETS, "mean")
MEAN = "mean"

Getter = Callable[[dict], float | None]
Row = dict[str, float | None]  # column -> value
Results = dict[str, dict[str, dict]]  # dataset -> category -> metrics


def _short(subset: str) -> str:
    return subset.removesuffix("_anomalies")


def _auroc(subset: str) -> Getter:
    return lambda m: m["classification"]["auc_roc"][subset]


def _spro(subset: str, limit: str) -> Getter:
    return lambda m: m["localization"]["auc_spro"][subset][limit]


def _ours(key: str) -> Getter:
    return lambda m: m["glae"][key]


POOLED = {
    "AP": _ours("average_precision"),
    "F1max": _ours("f1_max"),
    "pixel AUROC": _ours("pixel_auroc"),
}
PRO_COLUMNS: dict[str, Getter] = {
    "AUROC": lambda m: m["classification_au_roc"],
    **POOLED,
    "AU-PRO 0.3": lambda m: m["au_pro"],
}
SPRO_COLUMNS: dict[str, Getter] = {
    **{f"AUROC {_short(subset)}": _auroc(subset) for subset in SUBSETS},
    "AUROC pooled": _ours("auroc_pooled"),
    **POOLED,
    **{
        f"sPRO {limit} {_short(subset)}": _spro(subset, str(limit))
        for limit in SPRO_LIMITS
        for subset in SUBSETS
    },
}
COLUMN_CHOICES = ("headline", "all")
HEADLINE_LIMIT = 0.05  # of sPRO, what papers report
# What a terminal of 100 columns has room for; csv and json have every column.
HEADLINE = {
    "AUROC pooled",
    *(f"AUROC {_short(subset)}" for subset in SUBSETS),
    *(f"sPRO {HEADLINE_LIMIT} {_short(subset)}" for subset in SUBSETS),
}


def columns(dataset: str) -> dict[str, Getter]:
    """Return what is reported of a dataset: column name -> how to get it from the metrics."""
    return SPRO_COLUMNS if DATASETS[dataset].saturated else PRO_COLUMNS


def shown_columns(dataset: str, which: str) -> list[str]:
    """Return the columns of one of COLUMN_CHOICES; where there are no subsets all have room."""
    names = list(columns(dataset))
    if which == "all" or not DATASETS[dataset].saturated:
        return names
    return [name for name in names if name in HEADLINE]


def read_results(output: Path) -> Results:
    """Read every metrics file below an output folder. Raises InputError for a damaged one."""
    results: Results = {}
    for path in sorted((output / "metrics").glob("*/*.json")):
        dataset = path.parent.name
        if dataset not in DATASETS:
            continue
        try:
            measured = json.loads(path.read_text())
            for get in columns(dataset).values():
                get(measured)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            kind = f"{type(error).__name__}: {error}"
            raise InputError(f"{path} is damaged: evaluate it again ({kind})") from error
        results.setdefault(dataset, {})[path.stem] = measured
    return results


def rows(dataset: str, categories: dict[str, dict]) -> dict[str, Row]:
    """Return category -> row, then the mean over the categories.

    The mean of a column is None when one category lacks it: a mean over fewer would not compare.
    """
    getters = columns(dataset)
    table = {name: {c: get(m) for c, get in getters.items()} for name, m in categories.items()}
    table[MEAN] = {c: mean([row[c] for row in table.values()]) for c in getters}
    return table


def write_csv(output: Path) -> None:
    """Write results.csv: one row a category, then the mean, of every dataset evaluated so far.

    A damaged metrics file, of whichever category, only gives a warning: nothing else is lost by it.
    """
    try:
        results = read_results(output)
    except InputError as error:
        warnings.warn(f"{output / 'results.csv'} is not written: {error}", stacklevel=2)
        return
    tables = {dataset: [rows(dataset, r)] for dataset, r in results.items()}
    with written_aside(output / "results.csv") as aside:
        aside.write_text(as_csv(tables), newline="")


def as_csv(tables: dict[str, list[dict[str, Row]]]) -> str:
    """Return all columns of all tables as CSV, numbers in full."""
    records = as_records(tables)
    names = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def as_records(tables: dict[str, list[dict[str, Row]]]) -> list[dict]:
    """Return one flat dict a row; with several runs the mean, the std and their number."""
    records = []
    for dataset, runs in tables.items():
        for category in _categories(runs):
            values = _values(runs, category)
            record = {"dataset": dataset, "category": category}
            record |= {c: None if None in v else float(np.mean(v)) for c, v in values.items()}
            if len(runs) > 1:
                record |= {f"{c} std": _std(v) for c, v in values.items()}
                record["runs"] = sum(category in run for run in runs)
            records.append(record)
    return records


def _categories(runs: list[dict[str, Row]]) -> list[str]:
    names = sorted({name for run in runs for name in run if name != MEAN})
    return [*names, MEAN]


def _values(runs: list[dict[str, Row]], category: str) -> dict[str, list[float | None]]:
    """Return column -> one value for each run that has the category.

    Means over different categories do not compare: then that row has no value.
    """
    having = [run[category] for run in runs if category in run]
    if category == MEAN and len({frozenset(run) for run in runs}) > 1:
        return {column: [None] for column in having[0]}
    return {column: [row[column] for row in having] for column in having[0]}


def _std(values: list[float | None]) -> float | None:
    return None if None in values or len(values) < 2 else float(np.std(values, ddof=1))


def _cell(values: list[float | None], style: str) -> str:
    """Return percent to one decimal, ± the sample standard deviation over several runs."""
    if None in values:
        return "–"
    text, between = f"{100 * np.mean(values):.1f}", "±" if style == "simple" else " ± "
    return text if len(values) < 2 else f"{text}{between}{100 * _std(values):.1f}"


def formatted(tables: dict[str, list[dict[str, Row]]], style: str, which: str = "headline") -> str:
    """Return all tables in one of FORMATS; a dataset maps to one dict of rows for each run.

    csv and json have all columns and the mean; the others the columns of `which`, one of
    COLUMN_CHOICES, and no mean of one category.
    """
    if style == "csv":
        return as_csv(tables).rstrip()
    if style == "json":
        return json.dumps(as_records(tables), indent=2)
    texts = []
    for dataset, runs in tables.items():
        shown, categories = shown_columns(dataset, which), _categories(runs)
        body = [
            [name, *(_cell(_values(runs, name)[column], style) for column in shown)]
            for name in (categories if len(categories) > 2 else categories[:1])
        ]
        header = [dataset, *(map(_two_lines, shown) if style == "simple" else shown)]
        align = ("left", *("right" for _ in shown))
        texts.append(tabulate.tabulate(body, header, style, colalign=align, disable_numparse=True))
    return "\n\n".join(texts)


def _two_lines(column: str) -> str:
    """Break a column's name so that the table stays narrow."""
    return "\n".join(column.rsplit(" ", 1)) if len(column) > 6 else column


def print_tables(runs: Iterable[Results], style: str, which: str = "headline") -> None:
    """Print the tables of one or several output folders' results, and why they have gaps."""
    found: dict[str, list[dict[str, dict]]] = {}  # dataset -> each run's categories
    for results in runs:
        for dataset, categories in results.items():
            found.setdefault(dataset, []).append(categories)
    tables = {name: [rows(name, of) for of in several] for name, several in found.items()}
    print(formatted(tables, style, which))
    if style in ("csv", "json"):
        return
    notes = [note for name, several in found.items() for note in _notes(name, several, which)]
    if notes:
        print("\n" + "\n".join(("% – " if style == "latex" else "– ") + note for note in notes))


def _notes(dataset: str, runs: list[dict[str, dict]], which: str) -> list[str]:
    """Return why a dataset's table has dashes, a line for each category that has some."""
    getters = [columns(dataset)[name] for name in shown_columns(dataset, which)]
    notes = {}
    for category, measured in ((c, m) for categories in runs for c, m in categories.items()):
        if any(get(measured) is None for get in getters):
            why = gaps(measured, DATASETS[dataset].saturated) or ["not measured"]
            notes[category] = f"{category}: {', '.join(why)}"
    if len({frozenset(categories) for categories in runs}) > 1:
        notes[MEAN] = f"{MEAN}: the runs are of different categories"
    return list(notes.values())


def main(outputs: list[str]) -> int:
    """Print the tables of what has been evaluated already; for sweep.sh."""
    try:
        runs = [read_results(Path(output)) for output in outputs]
        if not any(runs):
            raise InputError(f"{' '.join(outputs)} holds no metrics: evaluate it with inference.py")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_tables(runs, "simple")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

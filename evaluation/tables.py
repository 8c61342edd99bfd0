"""Results → tables: one a dataset, a row a category, then the mean; over seeds mean ± std."""

import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tabulate

from data.catalog import DATASETS
from data.samples import InputError, require_file
from evaluation.cells import cell, csv_of, std, two_lines
from evaluation.columns import Chosen, columns, shown_columns
from evaluation.gaps import gaps
from evaluation.groups import Categories, grouped
from evaluation.image_metrics import mean
from utils.commands import printable
from utils.files import written_aside

tabulate.MIN_PADDING = 0  # beside a head, where LOCO's need every column of a terminal
FORMATS = ("simple", "github", "latex", "csv", "json")
MEAN = "mean"

Row = dict[str, float | None]  # column -> value
Results = dict[str, dict[str, dict]]  # dataset -> category -> metrics
Seeds = list[dict[str, Row]]  # each run's category -> row
Tables = dict[str, dict[str, Seeds]]  # dataset -> what tells models apart, or "" -> its runs


def read_metrics(path: Path) -> dict:
    """Read a category's metrics file. Raises InputError for a damaged one."""
    try:
        require_file(path)
        measured = json.loads(path.read_text(encoding="utf-8"))
        for get in columns(path.parent.name).values():
            get(measured)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        kind = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} is damaged: evaluate it again ({kind})") from error
    return measured


def read_results(output: Path) -> Results:
    """Read every metrics file below an output folder. Raises InputError for a damaged one."""
    results: Results = {}
    for path in sorted((output / "metrics").glob("*/*.json")):
        if path.parent.name in DATASETS:
            results.setdefault(path.parent.name, {})[path.stem] = read_metrics(path)
    return results


def row_name(dataset: str, category: str) -> str:
    """Return what a category's row is called: a product called `mean` is not the row of means."""
    return f"{dataset}/{category}" if category == MEAN else category


def rows(dataset: str, categories: dict[str, dict]) -> dict[str, Row]:
    """Return category -> row, then the mean over the categories.

    The mean of a column is None when one category lacks it: a mean over fewer would not compare.
    """
    getters = columns(dataset)
    table = {
        row_name(dataset, name): {column: get(metrics) for column, get in getters.items()}
        for name, metrics in categories.items()
    }
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
    tables = {dataset: {"": [rows(dataset, r)]} for dataset, r in results.items()}
    with written_aside(output / "results.csv") as aside:
        aside.write_text(as_csv(tables), encoding="utf-8", newline="")


def as_csv(tables: Tables, single: str | None = None) -> str:
    """Return all columns of all tables as CSV, numbers in full; `single` as in `formatted`."""
    return csv_of(as_records(tables, single))


def as_records(tables: Tables, single: str | None = None) -> list[dict]:
    """Return one flat dict a row; with several runs the mean, the std and their number."""
    records = []
    for dataset, models in tables.items():
        for category, model in _order(models):
            runs = models[model]
            values = values_of(runs, category)
            record = {"dataset": dataset, "category": category}
            record |= {"model": model} if model else {}
            record |= {"map": single} if single else {}
            record |= {c: None if None in v else float(np.mean(v)) for c, v in values.items()}
            if len(runs) > 1:
                record |= {f"{c} std": std(v) for c, v in values.items()}
                record["runs"] = sum(category in run for run in runs)
            records.append(record)
    return records


def _order(models: dict[str, Seeds]) -> list[tuple[str, str]]:
    """Return the table's rows, (category, model): models side by side, the mean last."""
    having = {model: {name for run in runs for name in run} for model, runs in models.items()}
    names = sorted(set().union(*having.values()) - {MEAN})
    return [(name, model) for name in (*names, MEAN) for model in models if name in having[model]]


def values_of(runs: Seeds, category: str) -> dict[str, list[float | None]]:
    """Return column -> one value for each run that has the category.

    Means over different categories do not compare: then that row has no value.
    """
    having = [run[category] for run in runs if category in run]
    if category == MEAN and len({frozenset(run) for run in runs}) > 1:
        return {column: [None] for column in having[0]}
    return {column: [row[column] for row in having] for column in having[0]}


def formatted(
    tables: Tables, style: str, which: Chosen = ("headline",), single: str | None = None
) -> str:
    """Return all tables in one of FORMATS.

    csv and json have all columns and the mean; the others the columns of `which`, see
    `shown_columns`, and no mean of one category. `single` is the map that was scored alone.
    """
    if style == "csv":
        return as_csv(tables, single).rstrip()
    if style == "json":
        return json.dumps(as_records(tables, single), indent=2)
    texts = []
    for dataset, models in tables.items():
        shown, order = shown_columns(dataset, which), _order(models)
        if not shown:
            continue
        if len({category for category, _ in order}) <= 2:
            order = [(category, model) for category, model in order if category != MEAN]
        body = [
            [
                printable(", ".join(filter(None, (category, model)))),
                *(cell(values_of(models[model], category)[column], style) for column in shown),
            ]
            for category, model in order
        ]
        head = f"{dataset}, {single} map" if single else dataset
        header = [head, *(map(two_lines, shown) if style == "simple" else shown)]
        align = ("left", *("right" for _ in shown))
        texts.append(tabulate.tabulate(body, header, style, colalign=align, disable_numparse=True))
    return "\n\n".join(texts)


def print_tables(
    runs: Iterable[Results], style: str, which: Chosen = ("headline",), single: str | None = None
) -> None:
    """Print the tables of one or several output folders' results, and why they have gaps."""
    print(tables(runs, style, which, single))


def print_by_expert(by_expert: dict[str | None, list[Results]], style: str, which: Chosen) -> None:
    """Print the tables of all experts together, of None, and of each alone.

    csv and json are one table, whose column `map` is empty for all together.
    """
    if style not in ("csv", "json"):
        print("\n\n".join(tables(runs, style, which, name) for name, runs in by_expert.items()))
        return
    records = [
        record
        for name, runs in by_expert.items()
        for record in as_records(tabulated(by_model(runs)), name)
    ]
    print(csv_of(records).rstrip() if style == "csv" else json.dumps(records, indent=2))


def by_model(runs: Iterable[Results]) -> dict[str, dict[str, list[Categories]]]:
    """Return dataset -> what tells models apart -> each run's categories."""
    found: dict[str, list[dict[str, dict]]] = {}  # dataset -> each run's categories
    for results in runs:
        for dataset, categories in results.items():
            found.setdefault(dataset, []).append(categories)
    return {name: grouped(several) for name, several in found.items()}


def tabulated(models: dict[str, dict[str, list[Categories]]]) -> Tables:
    """Return the rows of every model's runs."""
    return {
        name: {model: [rows(name, run) for run in runs] for model, runs in of.items()}
        for name, of in models.items()
    }


def tables(
    runs: Iterable[Results], style: str, which: Chosen = ("headline",), single: str | None = None
) -> str:
    """Return what `print_tables` prints."""
    models = by_model(runs)
    text = formatted(tabulated(models), style, which, single)
    if style in ("csv", "json"):
        return text
    notes = [note for name, of in models.items() for note in notes_of(name, of, which)]
    mark = "% – " if style == "latex" else "– "
    return "\n".join([text, *([""] if notes else []), *(mark + printable(note) for note in notes)])


def notes_of(dataset: str, models: dict[str, list[Categories]], which: Chosen) -> list[str]:
    """Return why a table has dashes, and what is missing in it, a line for each category."""
    getters = [columns(dataset)[name] for name in shown_columns(dataset, which)]
    notes = {}
    runs = [run for of in models.values() for run in of]
    for category, measured in ((c, m) for categories in runs for c, m in categories.items()):
        why = []
        if any(get(measured) is None for get in getters):
            why = gaps(measured, DATASETS[dataset].saturated) or ["not measured"]
        if unreadable := measured["glae"].get("unreadable"):
            why.append(f"unreadable test images, left out: {len(unreadable)}")
        if why:
            name = row_name(dataset, category)
            notes[name] = f"{name}: {', '.join(why)}"
    if any(len({frozenset(run) for run in of}) > 1 for of in models.values()):
        notes[MEAN] = f"{MEAN}: the runs are of different categories"
    return list(notes.values())

"""Models side by side: a table for each metric, with how far each model is from the first.

Models have letters, which a legend explains: what tells them apart may be long.
"""

import json
from collections.abc import Iterable
from string import ascii_uppercase

import tabulate

from evaluation.cells import cell, csv_of, difference_text, two_lines
from evaluation.columns import Chosen, shown_columns
from evaluation.compared import Comparison, Models, as_records, compared
from evaluation.comparison import KINDS, LEVEL
from evaluation.tables import MEAN, Results, by_model, notes_of
from utils.commands import printable

WINS = "wins"
MEANING = "mean ± standard deviation over seeds"
INTERVAL = f"[{LEVEL:.0%} interval by a paired bootstrap over the test images]"
# What LaTeX would take for its own: behind \\, a * or [ belongs to it.
IN_LATEX = tabulate.LATEX_ESCAPE_RULES | {"[": "{[}", "*": "{*}", "±": r"$\pm$", "–": "--"}


def side_by_side(runs: Iterable[Results], style: str, which: Chosen) -> str:
    """Return the tables of output folders' results, which `read_stored` reads, in one of FORMATS.

    One for each metric, or one of all where a dataset has a single model. csv and json have all
    columns, a record for each metric, category and model.
    """
    models, for_programs = by_model(runs), style in ("csv", "json")
    which = ("all",) if for_programs else which
    found = {
        dataset: [compared(dataset, column, of) for column in shown_columns(dataset, which)]
        for dataset, of in models.items()
    }
    if for_programs:
        records = [record for of in found.values() for one in of for record in as_records(one)]
        return csv_of(records).rstrip() if style == "csv" else json.dumps(records, indent=2)
    texts = []
    for dataset, comparisons in found.items():
        if not comparisons:
            continue
        if len(models[dataset]) > 1:
            texts += [table(one, style) for one in comparisons]
        else:
            texts.append(table_of_one(comparisons, style))
        notes = notes_on(dataset, models[dataset], comparisons, which)
        if style != "latex":  # whose captions say so
            notes = [*legend(comparisons[0]), *notes]
        mark = "% " if style == "latex" else "– "
        texts.append("\n".join(mark + printable(note) for note in notes))
    return "\n\n".join(filter(None, texts))


def letters(models: Iterable[str]) -> dict[str, str]:
    """Return a letter for each model, from A on; a number where there are no more."""
    return {m: ascii_uppercase[i : i + 1] or str(i + 1) for i, m in enumerate(models)}


def legend(comparison: Comparison) -> list[str]:
    """Return what each letter stands for, and what the numbers are."""
    seeds = {m: f"{n} seed{'s' * (n > 1)}" for m, n in comparison.seeds.items()}
    if len(seeds) == 1:
        return [f"{MEANING}, {next(iter(seeds.values()))}"]
    lines = [f"{letter}: {m}, {seeds[m]}" for m, letter in letters(seeds).items()]
    meaning = [MEANING] * (max(comparison.seeds.values()) > 1)
    return [*lines, *meaning, f"differences in points {INTERVAL}"]


def shown_rows(comparison: Comparison) -> list[str]:
    """Return the rows that a table has: there is no mean of one category."""
    return [*comparison.values] if len(comparison.values) > 2 else [*comparison.values][:1]


def table(comparison: Comparison, style: str) -> str:
    """Return the table of one metric, a column for each model and each difference to the first."""
    named, body = letters(comparison.seeds), []
    first, *others = named
    for row in shown_rows(comparison):
        of_models, best = comparison.values[row], comparison.best(row)
        cells = []
        for model in named:
            text = cell(of_models.get(model, [None]), style)
            cells.append(written(text, style, bold=model in best))
        found = [comparison.differences[row].get(other) for other in others]
        cells += [difference_text(one, style) for one in found]
        body.append([name_of(comparison, row, style), *cells])
    if MEAN in shown_rows(comparison):
        body.append([WINS, *comparison.wins().values(), *("" for _ in others)])
    title = f"{comparison.dataset}, {comparison.column}"
    minus = "$-$" if style == "latex" else "-"
    header = [*named.values(), *(f"{named[o]} {minus} {named[first]}" for o in others)]
    return framed(title, header, body, style, [*legend(comparison), "the best bold"])


def table_of_one(comparisons: list[Comparison], style: str) -> str:
    """Return the table of a single model, a column for each metric."""
    one = comparisons[0]
    model = next(iter(one.seeds))
    body = [
        [
            name_of(one, row, style),
            *(written(cell(c.values[row][model], style), style) for c in comparisons),
        ]
        for row in shown_rows(one)
    ]
    names = [c.column for c in comparisons]
    header = [*map(two_lines, names)] if style == "simple" else names
    return framed(one.dataset, header, body, style, legend(one))


def notes_on(
    dataset: str, models: Models, comparisons: list[Comparison], which: Chosen
) -> list[str]:
    """Return what a table lacks, and why: dashes, intervals, images."""
    notes = notes_of(dataset, models, which)
    runs = {frozenset(run) for of in models.values() for run in of}
    if len(runs) > 1 and not any(note.startswith(f"{MEAN}: ") for note in notes):
        notes.append(f"{MEAN}: the models are of different categories")
    if len(models) == 1:
        return notes
    if plain := [one.column for one in comparisons if one.column not in KINDS]:
        notes.append(f"{', '.join(plain)}: no interval, which image AUROCs alone have")
    without = {
        row
        for one in comparisons
        for row in shown_rows(one)
        if one.column in KINDS and any(d.low is None for d in one.differences[row].values())
    }
    why = dict.fromkeys(without, "without all images' results")
    why |= {MEAN: "without that of every category"}
    for row, number in ((row, n) for one in comparisons for row, n in one.left_out.items()):
        why[row] = f"with test images that not every run has: {number}"
    return notes + [f"{row}: no interval, {why[row]}" for row in sorted(without)]


def name_of(comparison: Comparison, row: str, style: str) -> str:
    """Return what a row is called: a product called `wins` is not the row of wins."""
    return written(f"{comparison.dataset}/{row}" if row == WINS else row, style)


def written(text: str, style: str, bold: bool = False) -> str:
    """Return a name or a cell on one line, as its format has it; LaTeX alone has bold ones."""
    text = printable(text)
    if style != "latex":
        return text
    text = "".join(IN_LATEX.get(sign, sign) for sign in text)
    return rf"\textbf{{{text}}}" if bold else text


def framed(title: str, header: list[str], body: list[list], style: str, caption: list[str]) -> str:
    """Return a table; in LaTeX one that floats, of booktabs, with its caption."""
    align = ("left", *("right" for _ in header))
    options = {"colalign": align, "disable_numparse": True}
    if style != "latex":
        return tabulate.tabulate(body, [title, *header], style, **options)
    text = tabulate.tabulate(body, ["", *header], "latex_raw", **options)
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        text = text.replace(r"\hline", rule, 1)
    said = written(f"{title} in percent. {'; '.join(caption)}", style)
    return "\n".join(
        (r"\begin{table}", r"\centering", rf"\caption{{{said}.}}", text, r"\end{table}")
    )

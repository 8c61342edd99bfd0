"""What tests of tables share: made-up results, and readers of every format."""

import csv
import io
import json
import random
import statistics
from pathlib import Path

from evaluation.tables import rows

LIMITS = ("0.01", "0.05", "0.1", "0.3", "1.0")
POOLED = {
    "AP": ("glae", "average_precision"),
    "F1max": ("glae", "f1_max"),
    "pixel AUROC": ("glae", "pixel_auroc"),
}
PRO = {
    "AUROC": ("classification_au_roc",),
    **POOLED,
    "AU-PRO 0.3": ("au_pro",),
}
SPRO = {
    "AUROC logical": ("classification", "auc_roc", "logical_anomalies"),
    "AUROC structural": ("classification", "auc_roc", "structural_anomalies"),
    "AUROC mean": ("classification", "auc_roc", "mean"),
    "AUROC pooled": ("glae", "auroc_pooled"),
    **POOLED,
    **{
        f"sPRO {limit} {name}": ("localization", "auc_spro", subset, limit)
        for limit in LIMITS
        for name, subset in (
            ("logical", "logical_anomalies"),
            ("structural", "structural_anomalies"),
            ("mean", "mean"),
        )
    },
}
PLACES = {"mvtec_loco": SPRO, "demo": SPRO, "mvtec_ad": PRO, "visa": PRO, "folder": PRO}
# What a terminal has room for.
SHOWN = {
    "mvtec_ad": list(PRO),
    "mvtec_loco": [c for c in SPRO if c.startswith(("AUROC", "sPRO 0.05"))],
}


def put(metrics: dict, place: tuple[str, ...], value: float | None) -> None:
    """Set one number in a nested dict."""
    for key in place[:-1]:
        metrics = metrics.setdefault(key, {})
    metrics[place[-1]] = value


def get(metrics: dict, place: tuple[str, ...]) -> float | None:
    for key in place:
        metrics = metrics[key]
    return metrics


def made_up(dataset: str, seed: int, missing: str | None = None) -> dict:
    """Make a metrics file's content, no two numbers alike; the column `missing` is null."""
    generator, metrics = random.Random(seed), {"glae": {"seed": 0, "counts": {"train": 3}}}
    for column, place in PLACES[dataset].items():
        put(metrics, place, None if column == missing else generator.random())
    return metrics


def expected(dataset: str, categories: dict[str, dict], category: str, column: str):
    """Return a cell's value: of one category, or for "mean" of all of them."""
    values = [get(metrics, PLACES[dataset][column]) for metrics in categories.values()]
    if category != "mean":
        return get(categories[category], PLACES[dataset][column])
    return None if None in values else statistics.fmean(values)


def percent(values: list[float | None], style: str = "github") -> str:
    """Write what a cell should say of one run's value, or of several."""
    if None in values:
        return "–"
    text, sign = f"{statistics.fmean(values) * 100:.1f}", "±" if style == "simple" else " ± "
    return text if len(values) == 1 else f"{text}{sign}{statistics.stdev(values) * 100:.1f}"


def save(output: Path, dataset: str, category: str, metrics: dict) -> Path:
    path = output / "metrics" / dataset / f"{category}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metrics))
    return path


# Reading tables back

Table = dict[str, dict[str, str]]  # row -> column -> cell


def from_github(text: str) -> tuple[list[str], Table]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    header, rule, *body = lines
    assert all(set(cell) <= set("-:") for cell in rule)
    return header, {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in body}


def from_latex(text: str) -> tuple[list[str], Table]:
    assert text.startswith(r"\begin{tabular}{l")
    assert text.endswith(r"\end{tabular}")
    kept = [line for line in text.splitlines() if line.endswith(r"\\")]
    lines = [[cell.strip() for cell in line.removesuffix(r"\\").split("&")] for line in kept]
    assert not any("_" in cell.replace(r"\_", "") for line in lines for cell in line)
    header, *body = [[cell.replace(r"\_", "_") for cell in line] for line in lines]
    return header, {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in body}


def from_simple(text: str) -> tuple[list[str], Table]:
    """Cut a table at its rule of dashes, above which a header may have two lines."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if set(line) == {"-", " "})
    starts = [i for i, c in enumerate(lines[at]) if c == "-" and (" " + lines[at])[i] == " "]
    spans = [slice(a, b) for a, b in zip(starts, [*starts[1:], None], strict=True)]
    cells = [[line[span].strip() for span in spans] for line in lines]
    header = [" ".join(filter(None, parts)) for parts in zip(*cells[:at], strict=True)]
    body = cells[at + 1 :]
    return header, {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in body}


READERS = {"github": from_github, "latex": from_latex, "simple": from_simple}


def records(text: str, style: str) -> list[dict]:
    """Read csv or json back; numbers are floats, an empty field is None."""
    if style == "json":
        return json.loads(text)
    names = ("dataset", "category")
    return [
        {k: v if k in names else (float(v) if v else None) for k, v in row.items()}
        for row in csv.DictReader(io.StringIO(text))
    ]


def tabulated(*runs: dict[str, dict[str, dict]]) -> dict[str, dict[str, list]]:
    """Return what `formatted` takes of seeds of one model: dataset -> one table for each run."""
    names = dict.fromkeys(dataset for run in runs for dataset in run)
    return {name: {"": [rows(name, run[name]) for run in runs if name in run]} for name in names}


def values_of(runs, category: str, column: str) -> list[float | None]:
    """Return one value for each run that has the category; means must be of the same categories."""
    if category == "mean" and len({tuple(sorted(run["mvtec_ad"])) for run in runs}) > 1:
        return [None]
    having = [run["mvtec_ad"] for run in runs if category in (*run["mvtec_ad"], "mean")]
    return [expected("mvtec_ad", categories, category, column) for categories in having]

"""Models compared by what is stored of their runs: means, differences to the first, wins."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data.samples import noted
from evaluation.cells import std
from evaluation.comparison import KINDS, Difference, Resampled, difference, resampled
from evaluation.groups import Categories
from evaluation.results import read_results_file
from evaluation.tables import MEAN, Results, read_metrics, row_name, rows, values_of
from utils.runs import Run

IMAGES = "image_results"  # beside a category's metrics: each image's result

Models = dict[str, list[Categories]]  # what tells a model apart, or "" → each seed's categories
Values = list[float | None]  # each seed's


@dataclass(frozen=True)
class Comparison:
    """One metric of a dataset's categories by each model; the first is compared with.

    Rows are the categories, sorted, then the mean over them.
    """

    dataset: str
    column: str
    seeds: dict[str, int]  # model → how many it has
    values: dict[str, dict[str, Values]]  # row → model that has it → values
    differences: dict[str, dict[str, Difference]]  # row → other model → how much higher it is
    left_out: dict[str, int]  # row → test images that not every run has, so that it has no interval

    def best(self, row: str) -> list[str]:
        """Return the models that are best in a row as it is shown, to a tenth of a percent."""
        shown = {
            model: round(100 * float(np.mean(values)), 1)
            for model, values in self.values[row].items()
            if None not in values
        }
        return [model for model, value in shown.items() if value == max(shown.values())]

    def wins(self) -> dict[str, int]:
        """Return in how many categories each model alone is the best of several."""
        wins = dict.fromkeys(self.seeds, 0)
        for row, of_models in self.values.items():
            if row != MEAN and len(of_models) > 1 and len(best := self.best(row)) == 1:
                wins[best[0]] += 1
        return wins


def read_stored(runs: Iterable[Run]) -> tuple[Results, list[str]]:
    """Return the stored metrics of runs, with each image's result at IMAGES, and every fault.

    There are no results of images where there is no file of them, or a damaged one.
    """
    stored: Results = {}
    faults: list[str] = []
    for run in runs:
        with noted(faults):
            metrics = read_metrics(run.metrics_file) | {IMAGES: []}
            stored.setdefault(run.dataset, {})[run.subdataset] = metrics
            if run.results_file.exists():
                metrics[IMAGES] = read_results_file(run.results_file)
    return stored, faults


def compared(dataset: str, column: str, models: Models) -> Comparison:
    """Compare models of a dataset by one metric; a mean over other categories is none."""
    tables = {model: [rows(dataset, run) for run in of] for model, of in models.items()}
    runs = [run for of in models.values() for run in of]
    names = {row_name(dataset, category): category for category in sorted(set().union(*runs))}
    values = {
        row: {
            model: values_of(table, row)[column]
            for model, table in tables.items()
            if any(row in run for run in table)
        }
        for row in (*names, MEAN)
    }
    if any(run.keys() != runs[0].keys() for run in runs):
        values[MEAN] = {model: [None] for model in models}
    first, *others = models
    differences: dict[str, dict[str, Difference]] = {row: {} for row in values}
    left_out: dict[str, int] = {}
    for other in others:
        draws = {
            row: _draws(dataset, column, name, models[first], models[other])
            for row, name in names.items()
        }
        for row, drawn in draws.items():
            if drawn and drawn.left_out:  # the values are of more images than the draws
                left_out[row] = max(drawn.left_out, left_out.get(row, 0))
                draws[row] = None
        for row, of_models in values.items():
            of_both = [of_models.get(model, [None]) for model in (first, other)]
            of_row = [*draws.values()] if row == MEAN else [draws[row]]
            if not any(None in of_one for of_one in of_both):
                lower, higher = map(np.mean, of_both)
                plain = Difference(float(higher - lower))
                differences[row][other] = difference(of_row) if all(of_row) else plain
    seeds = {model: len(of) for model, of in models.items()}
    return Comparison(dataset, column, seeds, values, differences, left_out)


def _draws(
    dataset: str, column: str, category: str, first: list[Categories], other: list[Categories]
) -> Resampled | None:
    """Return how a category's difference varies with its images; None where that is not known."""
    sides = [[run[category][IMAGES] for run in of if category in run] for of in (first, other)]
    if column not in KINDS or not all(sides):
        return None
    return resampled(*sides, column, f"{dataset}/{category}")


def as_records(comparison: Comparison) -> list[dict]:
    """Return one flat dict for each row and model; what is not known is None."""
    wins, records = comparison.wins(), []
    for row, of_models in comparison.values.items():
        for model, values in of_models.items():
            found = comparison.differences[row].get(model, Difference(None))
            records.append(
                {
                    "dataset": comparison.dataset,
                    "category": row,
                    "metric": comparison.column,
                    "model": model,
                    "seeds": len(values) if row != MEAN else comparison.seeds[model],
                    "value": None if None in values else float(np.mean(values)),
                    "std": std(values),
                    "difference": found.value,
                    "low": found.low,
                    "high": found.high,
                    "wins": wins[model] if row == MEAN else None,
                }
            )
    return records

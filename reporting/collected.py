"""What a report is of: the metrics and every image's result of each evaluated category."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from data.catalog import DATASETS
from data.samples import InputError, noted
from evaluation import compared
from evaluation.groups import grouped
from evaluation.results import UNLABELLED, ImageResult, read_results_file
from evaluation.tables import read_metrics
from reporting.validation import check_results, whole_metrics
from utils.files import distinct
from utils.runs import Run


@dataclass(frozen=True)
class Evaluated:
    """One category that was evaluated in one output folder."""

    run: Run
    metrics: dict  # as in its metrics file
    results: list[ImageResult] = field(default_factory=list)  # none where they cannot be read

    @property
    def written(self) -> datetime:
        """When it was evaluated, by its metrics file."""
        return datetime.fromtimestamp(self.run.metrics_file.stat().st_mtime, timezone.utc)

    @property
    def labelled(self) -> list[ImageResult]:
        return [result for result in self.results if result.split != UNLABELLED]

    @property
    def unlabelled(self) -> list[ImageResult]:
        return [result for result in self.results if result.split == UNLABELLED]


Folder = dict[str, Evaluated]  # category -> what an output folder has of it
Folders = dict[str, list[Folder]]  # what tells models apart, or "" -> their runs


def collect(outputs: list[Path]) -> tuple[list[Evaluated], list[str]]:
    """Read what was evaluated in output folders, in their order; return it, and every fault.

    What is damaged is left out, and named by a fault. Raises InputError when nothing is there.
    """
    found: list[Evaluated] = []
    faults: list[str] = []
    for output in distinct(outputs, faults):
        paths = sorted((output / "metrics").glob("*/[!.]*.json"))
        paths = [path for path in paths if path.parent.name in DATASETS]
        if not output.is_dir():
            faults.append(f"{output} is no folder: name an output folder of main.py")
        elif not paths:
            faults.append(f"{output} holds no metrics: evaluate it with inference.py")
        for path in paths:
            with noted(faults):
                found.append(evaluated(Run(output, path.parent.name, path.stem), faults))
    if not found:
        raise InputError(*faults)
    return found, faults


def evaluated(run: Run, faults: list[str]) -> Evaluated:
    """Read one category's metrics and results; those may lack, as a fault says.

    Both are as `reporting.validation` wants them. Raises InputError for damaged metrics.
    """
    with damage_named(run.metrics_file):
        metrics = whole_metrics(read_metrics(run.metrics_file), run.dataset)
    results: list[ImageResult] = []
    if not run.results_file.exists():
        faults.append(f"there is no {run.results_file}: evaluate it again with inference.py")
        return Evaluated(run, metrics)
    with noted(faults), damage_named(run.results_file):
        found = read_results_file(run.results_file)
        check_results(found, metrics["glae"])
        results = found
    return Evaluated(run, metrics, results)


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into an InputError that names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged: evaluate it again ({error})") from error


def models_of(found: list[Evaluated]) -> Folders:
    """Return what was evaluated of one dataset by what tells models apart: see `grouped`."""
    outputs: dict[Path, Folder] = {}
    for one in found:
        outputs.setdefault(one.run.output, {})[one.run.subdataset] = one
    runs = [*outputs.values()]
    measured = [{name: one.metrics for name, one in run.items()} for run in runs]
    return {
        name: [run for run, metrics in zip(runs, measured, strict=True) if is_in(metrics, group)]
        for name, group in grouped(measured).items()
    }


def as_stored(models: Folders) -> compared.Models:
    """Return models' metrics and results, as the evaluation's own tables take them."""
    return {
        model: [
            {name: one.metrics | {compared.IMAGES: one.results} for name, one in run.items()}
            for run in runs
        ]
        for model, runs in models.items()
    }


def is_in(metrics: dict, group: list[dict]) -> bool:
    """Tell whether these very metrics are in a group: a copied folder's are equal."""
    return any(metrics is other for other in group)

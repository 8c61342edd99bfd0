"""Exported files evaluated on the test images of their runs, for inference.py's tables."""

import argparse
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from data.catalog import DATASETS
from data.samples import InputError, is_plain, noted
from evaluation.evaluation import measure_scored
from evaluation.tables import Results
from prediction.predictor import load_detector
from utils.commands import tell
from utils.labelling import load_test_set
from utils.runs import Run, run_around


def run_of(file: Path, said: dict, options: argparse.Namespace) -> Run:
    """Return the run that an exported file lies in, else one of the product that is meant.

    That is what the options name, or what is `said` in the file. Raises InputError for none, and
    for another than the options name.
    """
    product = (options.dataset or said["dataset"], options.subdataset or said["category"])
    run = run_around(file) or Run(file.parent, *product)
    if run.dataset not in DATASETS or not is_plain(run.subdataset):
        raise InputError("it lies in no run and names no product: give --dataset and --subdataset")
    for asked, own in ((options.dataset, run.dataset), (options.subdataset, run.subdataset)):
        if asked not in (None, own):
            raise InputError(f"it is of {run.dataset}/{run.subdataset}, and not of {asked}")
    return run


def evaluate_file(file: Path, options: argparse.Namespace) -> tuple[Run, dict] | None:
    """Return the run that an exported file's test images are of, and the metrics.

    None, and a note, where there are none. Nothing is kept: the run's results are its detector's.
    """
    names = ("device", "device_gpu", "precision", "false_alarm_rate", "runtime", "trusted")
    asked = {name: getattr(options, name) for name in names}
    if asked["precision"] == "fp32":  # of the detectors that it is compared with
        asked["precision"] = "auto"
    predictor = load_detector(file, **asked)
    run, unreadable = run_of(file, predictor.about, options), {}
    category, _ = load_test_set(run, options)
    if not category.scored:
        print(f"{run.dataset}/{run.subdataset} has no test images", file=sys.stderr)
        return None
    with TemporaryDirectory() as maps:
        where = (options.workers, Path(maps), unreadable, {})
        metrics, *_ = measure_scored(predictor.score_files, category, *where)
    metrics["glae"]["unreadable"] = sorted(unreadable.values())
    return run, metrics


def evaluate_files(files: list[Path], options: argparse.Namespace) -> tuple[list[Results], bool]:
    """Return the results of exported files, and whether one failed, which stops no other.

    Files of one name are one model's, those of one category never: there they have their path.
    """
    evaluated, failed = [], False
    for file in dict.fromkeys(files):
        faults: list[str] = []
        with noted(faults):
            if found := evaluate_file(file, options):
                evaluated.append((file, *found))
                faults += found[1]["glae"]["unreadable"]
        failed |= tell(str(file), faults)
    of_name = Counter((file.name, run.dataset, run.subdataset) for file, run, _ in evaluated)
    results: dict[str, Results] = {}
    for file, run, metrics in evaluated:
        alone = of_name[file.name, run.dataset, run.subdataset] == 1
        of_file = results.setdefault(file.name if alone else str(file), {})
        of_file.setdefault(run.dataset, {})[run.subdataset] = metrics
    return [one for name, of_file in results.items() for one in named([of_file], name)], failed


def named(several: list[Results], file: str) -> list[Results]:
    """Let results say which file they are of, by which tables tell them apart; return them."""
    for metrics in (m for results in several for of in results.values() for m in of.values()):
        metrics["glae"].setdefault("options", {})["file"] = file
    return several

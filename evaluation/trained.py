"""Trained runs evaluated on their test images, for inference.py's tables."""

import argparse
import sys
from pathlib import Path

from data.catalog import DATASETS, find_root
from data.samples import InputError, noted
from evaluation.evaluation import evaluate, measure, tell_unmeasured
from evaluation.maps import check_maps
from evaluation.tables import Results
from models.detector import THRESHOLDS
from models.experts import COMBINED
from scoring.thresholds import set_thresholds
from utils.commands import tell
from utils.devices import Compute, as_trained
from utils.labelling import load_category, load_test_set
from utils.options import dataset_path
from utils.runs import Run


def runs_with_maps(output: Path, options: argparse.Namespace) -> list[Run]:
    """Return a run for every category with maps in --maps_dir, which need not be trained."""
    root = find_root(options.dataset, dataset_path(options, options.dataset))
    if options.subdataset:
        names = [options.subdataset]
    else:
        names = DATASETS[options.dataset].find(root) or [root.resolve().name]
    runs = [Run(output, options.dataset, name) for name in names]
    runs = [run for run in runs if maps_folder(options.maps_dir, run).is_dir()]
    if not runs:
        raise InputError(
            f"--maps_dir {options.maps_dir} holds no maps of {' or '.join(names)}: they belong in "
            f"{options.maps_dir}/<category>/test/<defect>/<stem>.tiff"
        )
    return runs


def maps_folder(maps_dir: Path, run: Run) -> Path:
    """Return where a category's maps lie: below its dataset's name if that is there."""
    inside = maps_dir / run.dataset / run.subdataset
    return inside if inside.is_dir() else maps_dir / run.subdataset


def evaluate_run(
    run: Run, options: argparse.Namespace, compute: Compute, shown: str
) -> dict | None:
    """Return the metrics of one run, of its detector or of the maps in --maps_dir.

    `shown` is what counts, "combined" or an expert. None, and a note, for a category without test
    images: it can be trained, so it is no error. None for an expert that only others have.
    """
    category, seed = (load_category if options.maps_dir else load_test_set)(run, options)
    if not (category.test if options.maps_dir else category.scored):
        print(f"{run.dataset}/{run.subdataset} has no test images", file=sys.stderr)
        return None
    if options.maps_dir:
        folder = maps_folder(options.maps_dir, run)
        check_maps(category, folder)
        return measure(category, folder, options.workers)
    detector, size, precision = run.load_detector(compute.device)
    compute = as_trained(compute, options.precision, precision)
    if shown not in (COMBINED, *detector.experts):
        if options.by_expert:
            return None
        has = " and ".join(detector.experts)
        raise InputError(f"{run.detector_file} has {has}: train it with --experts {shown}, too")
    if getattr(detector, THRESHOLDS[shown]).isnan():
        if options.by_expert:
            return None
        raise InputError(
            f"{run.detector_file} is of an earlier version, which kept no threshold of the "
            f"{shown} map: train it again with --overwrite, or leave --map out"
        )
    if options.false_alarm_rate:
        set_thresholds(detector, options.false_alarm_rate, str(run.detector_file))
    keep = not options.no_maps
    metrics = evaluate(run, detector, category, size, options.workers, seed, compute, keep, shown)
    if keep and shown == COMBINED:
        tell_unmeasured(category, run)
    return metrics


def evaluate_runs(
    runs: list[Run], options: argparse.Namespace, compute: Compute, shown: str
) -> tuple[Results, bool]:
    """Return the results of one output folder's runs, and whether one of them failed."""
    results, failed = {}, False
    for run in runs:
        faults: list[str] = []
        with noted(faults):
            if metrics := evaluate_run(run, options, compute, shown):
                faults += metrics["glae"].get("unreadable", [])
                results.setdefault(run.dataset, {})[run.subdataset] = metrics
        place = "" if options.maps_dir else f" in {run.output}"
        failed |= tell(f"{run.dataset}/{run.subdataset}{place}", faults)
    return results, failed

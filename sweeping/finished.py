"""Which tasks are finished: known again by their options and their data.

A task that ended leaves a mark in its run's folder. Where there is none, as beside a run of main.py
or of an earlier version, main.py's own check decides.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

from data.catalog import DATASETS, find_root, folder_of, survey_category
from data.fingerprints import Images, differences, fingerprint, hash_of, size_and_hash
from data.samples import InputError
from utils.files import DAMAGED, written_aside
from utils.options import MAY_CHANGE, dataset_path, resolved
from utils.runs import Run

MARK = "sweep.json"
WORKERS = 4  # threads that read images


def mark_of(run: Run) -> Path:
    """Return where the mark of a finished task lies."""
    return run.folder / MARK


def write_mark(run: Run, options: str, tests: str) -> None:
    """Note that the run has ended well; see `hash_of_options` and `hash_of_tests`."""
    with written_aside(mark_of(run)) as aside:
        mark = {"options": options, "metrics": metrics_hash(run), "tests": tests}
        aside.write_text(json.dumps(mark), encoding="utf-8")


def read_mark(run: Run) -> dict:
    """Return the run's mark; without one, or of a damaged one, nothing."""
    try:
        mark = json.loads(mark_of(run).read_text(encoding="utf-8"))
    except DAMAGED:
        return {}
    return mark if isinstance(mark, dict) else {}


def hash_of_tests(dataset: str, root: Path, name: str) -> str:
    """Return what tells a category's test images and ground truth from any others."""
    category = DATASETS[dataset].read(root, name, 0)  # no seed changes them
    folder = folder_of(category, root)
    files = {path for sample in category.test for path in (sample.image, *sample.masks)}
    found = {Path(os.path.relpath(path, folder)).as_posix(): size_and_hash(path) for path in files}
    text = json.dumps([found, category.defects_config], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def metrics_hash(run: Run) -> str | None:
    """Return what tells the run's metrics from any others; None without test images."""
    return hash_of(run.metrics_file) if run.metrics_file.exists() else None


def hash_of_options(options: argparse.Namespace) -> str:
    """Return what tells main.py's options from others that would train something else."""
    from utils.teachers import find_teacher  # here: an attempt, which asks for none, loads no torch

    kept = {key: value for key, value in resolved(options).items() if key not in MAY_CHANGE}
    kept["penalty"] = options.imagenet_train_path is not None
    kept["teacher"] = file_hash(find_teacher(options.weights or options.model_size or "medium"))
    kept["ignore"] = options.ignore and file_hash(options.ignore)
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=16).hexdigest()


@cache
def file_hash(path: Path) -> str:
    """Return the hash of a file that does not change while a sweep runs."""
    try:
        return hash_of(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


@cache
def images_of(dataset: str, root: Path | None, name: str) -> Images:
    """Return the fingerprint of a category's images as they are now, whichever are held out."""
    return fingerprint(survey_category(dataset, find_root(dataset, root), name, seed=0), WORKERS)


@cache
def present_tests(dataset: str, root: Path | None, name: str) -> str:
    """Return the hash of a category's test images as they are now."""
    return hash_of_tests(dataset, find_root(dataset, root), name)


def is_marked(run: Run, options: argparse.Namespace) -> bool:
    """Tell whether the run is that of a finished task of these options on these images."""
    mark = {**read_mark(run)}
    tests = mark.pop("tests", None)
    try:
        known = mark == {"options": hash_of_options(options), "metrics": metrics_hash(run)}
        former = run.read_images() if known and tests else None
    except (*DAMAGED, InputError):
        return False
    where = (options.dataset, dataset_path(options, options.dataset), run.subdataset)
    now = former and images_of(*where)
    return bool(now) and not differences(former, now) and tests == present_tests(*where)


def is_finished(run: Run, options: argparse.Namespace, check: Callable) -> bool:
    """Tell whether nothing is left to be done for main.py's `options`.

    `check` is what main.py prepares a training with. Raises InputError, as it does, for a run of
    other options or images, finished or not.
    """
    begun_anew = replace(run, replacement=True).folder.is_dir()
    if not begun_anew and is_marked(run, options):
        return True
    if not (run.has_begun() or begun_anew):
        return False
    asked = vars(options) | {"check": True, "resume": True}
    if options.precision == "auto" and run.config_file.exists():  # settled, maybe elsewhere
        asked["precision"] = run.read_config().get("precision", "auto")
    with ExitStack() as locks:
        check(argparse.Namespace(**asked), locks)
    if begun_anew or not (run.detector_file.exists() and run.is_evaluated()):
        return False
    tests = read_mark(run).get("tests")  # others than before: main.py evaluates it again
    where = (options.dataset, dataset_path(options, options.dataset), run.subdataset)
    return tests is None or tests == present_tests(*where)

"""A run's images; which folders of `test` count: by the options, by what is stored with it."""

import argparse
from pathlib import Path

from data.catalog import find_root, read_category
from data.fingerprints import as_held_out, check_product
from data.samples import Category, InputError
from data.unlabelled import Labelling
from utils.options import dataset_path
from utils.runs import Run


def add_labelling_options(parser: argparse.ArgumentParser) -> None:
    """Add --unlabelled and --labelled."""
    text = "a folder of test whose images have no label: scored, but in no metric; may be repeated"
    parser.add_argument("--unlabelled", action="append", metavar="NAME", help=text)
    text = "a folder of test that came after the training: counts as a defect; may be repeated"
    parser.add_argument("--labelled", action="append", metavar="NAME", help=text)


def labelling_of(options: argparse.Namespace, run: Run | None) -> Labelling:
    """Return which test folders count, by the options and by what is stored with a `run`.

    None is a run that has not begun: all its folders are known. An option wins over what is stored.
    Raises InputError when that is damaged.
    """
    unlabelled, labelled = options.unlabelled or [], options.labelled or []
    if run is None:
        return Labelling(unlabelled, labelled)
    known = images["test"] if (images := run.read_images()) else None
    kept = {*stored(run, "unlabelled")} - {*labelled}, {*stored(run, "labelled")} - {*unlabelled}
    return Labelling(sorted(kept[0] | {*unlabelled}), sorted(kept[1] | {*labelled}), known)


def stored(run: Run, option: str) -> list[str]:
    """Return the names that a run was trained with. Raises InputError when they are none."""
    config = run.read_config() if run.config_file.exists() else {}
    names = config.get(option) or []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InputError(f"{run.config_file} is damaged: train this category again")
    return names


def load_category(run: Run, options: argparse.Namespace) -> tuple[Category, int]:
    """Read a run's images, from where it was trained unless a path option says otherwise.

    Returns them with the run's seed, by which a validation split may have been drawn.
    """
    config = run.read_config() if run.config_file.exists() else {}
    trained_from, seed = config.get(f"{run.dataset}_path"), config.get("seed", 0)
    if not (isinstance(trained_from, str | None) and isinstance(seed, int) and seed >= 0):
        raise InputError(f"{run.config_file} is damaged: train this category again")
    path = dataset_path(options, run.dataset) or (trained_from and Path(trained_from))
    root = find_root(run.dataset, path)
    labelling = labelling_of(options, run)
    return read_category(run.dataset, root, run.subdataset, seed, labelling), seed


def load_test_set(run: Run, options: argparse.Namespace) -> tuple[Category, int]:
    """Read a run's images as `load_category` does, held out as they were in the training.

    Raises InputError for those of another product.
    """
    category, seed = load_category(run, options)
    if trained_on := run.read_images():
        check_product(trained_on, category, f"{run.dataset}/{run.subdataset}")
        category = as_held_out(category, trained_on)
    return category, seed

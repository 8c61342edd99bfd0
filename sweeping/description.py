"""What a sweep's file, or its command line, says: which data sets, seeds, grid and options."""

import argparse
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from data.catalog import DATASETS, require_dataset
from data.samples import InputError, is_plain, noted, report_faults
from utils.files import TextLoader, read_yaml, user_path

KEYS = ("datasets", "seeds", "grid", "options")
PATHS = {name: entry.option for name, entry in DATASETS.items() if entry.option}


@dataclass(frozen=True)
class Chosen:
    """A data set of the sweep: its path or URL as given (None: its usual place), its categories.

    Where none are asked for, all that there are.
    """

    dataset: str
    root: str | None
    categories: tuple[str, ...] = ()


def read_sweep(given: list[str]) -> tuple[str, dict[str, Any]]:
    """Return the file that a sweep is in ("": the command line), and its four sections.

    Raises InputError when it is no sweep.
    """
    empty = {"datasets": {}, "seeds": None, "grid": {}, "options": {}}
    if len(given) == 2:
        return "", {**empty, "datasets": {given[0]: {"path": given[1]}}}
    if len(given) != 1 or given[0] in DATASETS:
        raise InputError("name DATASET PATH, or the .yaml of a sweep; see --help")
    path = user_path(given[0])
    read = require_keys(read_yaml(path, TextLoader), KEYS, path)
    sweep = empty | {key: value for key, value in read.items() if value is not None}
    sections = [key for key, value in empty.items() if isinstance(value, dict)]
    wrong = [key for key in sections if not isinstance(sweep[key], dict)]
    faults = [f"{path}: {key} must hold lines of 'name: value'" for key in wrong]
    if not sweep["datasets"]:
        faults.append(f"{path}: datasets is missing: one or more of {', '.join(DATASETS)}")
    report_faults(faults)
    return str(path), sweep


def require_keys(values: Any, keys: Collection[str], where: object) -> dict:
    """Return a mapping that holds none but these keys. Raises InputError for anything else."""
    if not isinstance(values, dict):
        raise InputError(f"{where} must hold lines of 'name: value': {', '.join(keys)}")
    faults = []
    for key in values.keys() - {*keys}:
        near = get_close_matches(str(key), keys, n=1)
        meant = f"{near[0]}?" if near else f"choose of {', '.join(keys)}"
        faults.append(f"{where}: there is no {key}: {meant}")
    report_faults(sorted(faults))
    return values


def split_paths(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the paths of data sets, as they are given, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for dataset, option in PATHS.items():
        parser.add_argument(f"--{option}", dest=dataset)  # no Path, which would spoil a URL
    paths, others = parser.parse_known_args(arguments)
    return {name: path for name, path in vars(paths).items() if path is not None}, others


def read_datasets(datasets: dict, paths: dict[str, str]) -> tuple[Chosen, ...]:
    """Return which data sets a sweep is of; a path of the command line wins over a file's.

    Raises InputError with every fault.
    """
    faults: list[str] = []
    chosen = []
    for name, entry in datasets.items():
        with noted(faults):
            require_dataset(name)
            given = require_keys(entry or {}, ("path", "categories"), name)
            root = paths.get(name, given.get("path"))
            if not isinstance(root, str | None) or root == "" or "\0" in (root or ""):
                raise InputError(f"{name}: path must be a folder or a URL")
            user_path(root or "")  # ~ is somebody's
            categories = read_categories(name, given.get("categories"))
            chosen.append(Chosen(name, root if name in PATHS else None, categories))
    report_faults(faults)
    return tuple(chosen)


def read_categories(dataset: str, names: Any) -> tuple[str, ...]:
    """Return the categories that are asked for. Raises InputError with every one that none can be.

    None, and none in what is returned, are all that there are.
    """
    if names is None:
        return ()
    if not (isinstance(names, list) and names):
        raise InputError(f"{dataset}: categories must be a list, such as [a, b]; without it, all")
    faults = [f"{dataset}: {name!r} can be no category" for name in unfit(names)]
    if not faults and len({*names}) < len(names):
        faults.append(f"{dataset}: a category is there twice")
    report_faults(faults)
    return tuple(names)


def unfit(names: list) -> list:
    """Return those of the names that a folder of ours cannot have."""
    return [name for name in names if not (isinstance(name, str) and is_plain(name))]

"""A sweep's grid: which data sets, seeds and values of options, and the trainings they make.

All that is wrong with it is said before any data set is looked at.
"""

import argparse
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from data.samples import InputError, is_plain, noted, report_faults, told_of
from sweeping.axes import OWN, Value, axis_of_text, is_repeatable, read_axis, require_axis
from sweeping.description import PATHS, Chosen, read_datasets, read_sweep, split_paths, unfit
from utils.options import FLAGS, Parser
from utils.presets import mapping_tokens, parse

MOST_TASKS = 10_000  # more is a slip
NO_VALUE = Value("", ())


@dataclass(frozen=True)
class Point:
    """A point of the grid: its folder below the sweep's, main.py's arguments for it."""

    folder: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """What a sweep is of: the categories of its data sets at every point."""

    datasets: tuple[Chosen, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Task:
    """One training: a category at a point, whose folder below the sweep's is `point`.

    `name` is what people see, such as `screw_bag model=glae/seed=0`. `arguments` are main.py's, but
    for which category it is, and where that lies and is written to.
    """

    name: str
    dataset: str
    root: str | None
    category: str
    point: str
    arguments: tuple[str, ...]


def tasks_of(grid: Grid, find: Callable[[str, str | None], list[str]]) -> list[Task]:
    """Return the trainings, all categories of the first point first: a whole table is there soon.

    `find` gives the categories of a data set in its root, as `data.catalog.find_all`. Raises one
    InputError with all that it raises, and each category that was asked for and is not there.
    """
    faults: list[str] = []
    found: list[tuple[Chosen, str]] = []
    for chosen in grid.datasets:
        with noted(faults):
            names = chosen_names(chosen, find(chosen.dataset, chosen.root))
            found += [(chosen, name) for name in names]
    report_faults(faults)
    check_count(len(found) * len(grid.points))
    several = len(grid.datasets) > 1
    return [
        Task(
            " ".join(filter(None, (f"{chosen.dataset}/{name}" if several else name, point.folder))),
            chosen.dataset,
            chosen.root,
            name,
            point.folder,
            point.arguments,
        )
        for point in grid.points
        for chosen, name in found
    ]


def chosen_names(chosen: Chosen, found: list[str]) -> list[str]:
    """Return the categories asked for. Raises InputError for one that is not among those `found`.

    And for one that a run's folder cannot be called by.
    """
    missing = [name for name in chosen.categories if name not in found]
    names = [*(chosen.categories or found)]
    there = ", ".join(found)
    faults = [f"{chosen.dataset} has no category {name}: choose of {there}" for name in missing]
    faults += [f"{chosen.dataset}: category {name!r}: rename it" for name in unfit(names)]
    report_faults(faults)
    return names


def check_count(tasks: int) -> None:
    """Raise InputError when there are more trainings than anybody means."""
    if tasks > MOST_TASKS:
        raise InputError(f"the sweep has {tasks} trainings, more than {MOST_TASKS}: split it")


def read_grid(options: argparse.Namespace, more: list[str], parser: Parser) -> Grid:
    """Return the grid of a command line: `sweep` (DATASET PATH, or a file), `seeds` and `grid`.

    `more` are the arguments for main.py; its `parser` reads every value, and each point as a whole.
    The last that speaks wins: a file's options, the command line; a point's may stand in neither.
    Raises one InputError with every fault of all that.
    """
    where, sweep = read_sweep(options.sweep)
    faults: list[str] = []
    fixed, paths, datasets = [], {}, ()
    with noted(faults):
        refused = (*FLAGS, *OWN, *PATHS.values(), "help")
        fixed = mapping_tokens(parser, sweep["options"], f"{where}: options", refused)
    with noted(faults):
        parser.parse_args(more)
        paths, more = split_paths(more)
    with noted(faults), told_of(where):
        datasets = read_datasets(sweep["datasets"], paths)
    axes = read_axes(parser, sweep, where, options, faults)
    named = {token[2:].partition("=")[0] for token in more if token.startswith("--")}
    faults += [f"--{name} is none of a sweep's: {OWN[name]}" for name in OWN if name in named]
    faults += [f"--{fault}" for fault in clashes(parser, axes, named)]
    faults += [f"{where}: options: {fault}" for fault in clashes(parser, axes, sweep["options"])]
    report_faults(faults)
    check_count(len(datasets) * prod(map(len, axes.values())))
    grid = Grid(datasets, points_of(axes, fixed, more))
    check_points(parser, grid)
    return grid


def read_axes(
    parser: Parser,
    sweep: dict[str, Any],
    where: str,
    options: argparse.Namespace,
    faults: list[str],
) -> dict[str, list[Value]]:
    """Return the values of each option that is varied, by its name; those of the seed first.

    `--seeds` stand for a file's, `--grid` beside a file's. What is wrong is added to `faults`.
    """
    axes: dict[str, list[Value]] = {}
    given = [(f"{where}: grid", name, values) for name, values in sweep["grid"].items()]
    for text in options.grid or []:
        with noted(faults):
            given.append(("--grid", *axis_of_text(parser, text)))
    seeds, place = sweep["seeds"], f"{where}: seeds"
    if options.seeds is not None:
        seeds, place = [str(seed) for seed in options.seeds], "--seeds"
    if seeds is not None:
        with noted(faults), told_of(place):
            axes["seed"] = []
            axes["seed"] = read_axis(parser, "seed", seeds)
    for place, name, values in given:
        with noted(faults), told_of(place):
            require_axis(parser, name)
            if name in axes:
                raise InputError(f"{name} is there twice")
            axes[name] = []
            axes[name] = read_axis(parser, name, values)
    return axes


def clashes(parser: Parser, axes: Collection[str], named: Collection[str]) -> list[str]:
    """Return a fault for each option that is varied, and named elsewhere with one value for all."""
    both = [name for name in axes if name in named and not is_repeatable(parser, name)]
    return [f"{name} is varied by the sweep, too: name it in one place" for name in both]


def points_of(axes: dict[str, list[Value]], fixed: list[str], more: list[str]) -> tuple[Point, ...]:
    """Return the points, every one of the first seed first: so models can be compared soon."""
    seeds = axes.get("seed", [NO_VALUE])
    points = []
    for seed, *values in product(seeds, *(axis for name, axis in axes.items() if name != "seed")):
        folder = ",".join(value.label for value in values)
        if folder and not is_plain(folder):
            raise InputError(f"{folder} is too long for a folder: vary fewer options")
        tokens = [token for value in (*values, seed) for token in value.tokens]
        points.append(Point("/".join(filter(None, (folder, seed.label))), (*fixed, *tokens, *more)))
    return tuple(points)


def check_points(parser: Parser, grid: Grid) -> None:
    """Raise InputError with what main.py would refuse, and the first point that it would refuse."""
    from training.preparation import check  # here: what is given a Task loads no torch

    first: dict[str, str] = {}  # fault -> point
    for point, chosen in product(grid.points, grid.datasets):
        faults: list[str] = []
        with noted(faults):
            check(parse(parser, [f"--dataset={chosen.dataset}", *point.arguments]))
        for fault in faults:
            first.setdefault(fault, point.folder)
    report_faults([f"{point}: {fault}" if point else fault for fault, point in first.items()])

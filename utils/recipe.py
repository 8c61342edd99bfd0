"""The recipe as options of the command line: each of its numbers is one."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict

from models.experts import NETWORKS
from models.recipe import PUBLISHED, Recipe

TEXTS = {
    "learning_rate": "of Adam",
    "weight_decay": "of Adam",
    "decay_at": "part of the steps after which the learning rate falls",
    "decay": "what the learning rate is multiplied by then",
    "hard_quantile": "of a step's distances; the hard loss keeps those from there on",
    "ridge": "shrinkage of a student in closed form, which takes no steps; 0: steps train it",
    "jitter": "most that brightness, contrast or saturation of a training image change",
    "penalty_probability": "that a natural image of the penalty is turned grey",
    "dropout": "of the autoencoder's decoder",
    "map_quantiles": "of the good validation images' maps, which calibration brings to 0 and 0.1",
    "false_alarm_rate": "part of good images that may be called anomalous: sets the thresholds",
}
OTHERS = ("learning_rate", "map_quantiles", "false_alarm_rate")  # may not be any share
SHARES = [name for name in TEXTS if name not in OTHERS]


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each number of the recipe; the defaults are the published ones."""
    group = parser.add_argument_group("recipe", "the published numbers of training and calibration")
    for name, default in recipe_values(PUBLISHED).items():
        pair = {"nargs": 2, "metavar": ("LOW", "HIGH")} if isinstance(default, list) else {}
        group.add_argument(f"--{name}", type=float, default=default, help=TEXTS[name], **pair)


def recipe_values(recipe: Recipe) -> dict[str, float | list[float]]:
    """Return a recipe's numbers by the names of their options, as a run stores them."""
    values = asdict(recipe)
    return values | {"map_quantiles": list(recipe.map_quantiles)}


def with_recipe(config: Mapping) -> dict:
    """Return a run's stored options; one of an earlier version was of the published recipe.

    And its experts were the networks, which looked everywhere.
    """
    return {**recipe_values(PUBLISHED), "experts": [*NETWORKS], "ignored": None, **config}


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Return the recipe that the options ask for."""
    values = {name: getattr(options, name) for name in TEXTS}
    return Recipe(**values | {"map_quantiles": tuple(options.map_quantiles)})


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe in one line: learning_rate 0.0001, weight_decay 1e-05, ..."""
    values = recipe_values(recipe).items()
    listed = {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in values}
    return ", ".join(f"{name} {value}" for name, value in listed.items())


def check_learning_rate(options: argparse.Namespace) -> list[str]:
    """Return the fault of a --learning_rate that nothing can be learnt with, if there is one."""
    if 0 < options.learning_rate <= 1:
        return []
    return [f"--learning_rate must be above 0 and at most 1, not {options.learning_rate}"]


def check_false_alarm_rate(options: argparse.Namespace) -> list[str]:
    """Return the fault of a --false_alarm_rate that no threshold can have; None is none given."""
    rate = options.false_alarm_rate
    if rate is None or 0 < rate < 1:
        return []
    return [f"--false_alarm_rate must be above 0 and below 1, not {rate}"]


def check_recipe(options: argparse.Namespace) -> list[str]:
    """Return one fault for each number of the recipe that makes no sense."""
    shares = {name: getattr(options, name) for name in SHARES}
    faults = check_learning_rate(options) + check_false_alarm_rate(options)
    faults += [
        f"--{name} must be at least 0 and at most 1, not {value}"
        for name, value in shares.items()
        if not 0 <= value <= 1
    ]
    if options.ridge and options.imagenet_train_path:
        faults.append("--imagenet_train_path: a student in closed form (--ridge) has no penalty")
    if options.dropout == 1:
        faults.append("--dropout must be below 1: nothing would be left")
    low, high = options.map_quantiles
    if not 0 <= low < high <= 1:
        faults.append(f"--map_quantiles must be two that rise within 0 to 1, not {low} {high}")
    return faults

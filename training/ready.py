"""What --check says of a training that can begin."""

import argparse

from data.catalog import summary
from models.experts import NETWORKS, chosen
from scoring.thresholds import promise
from training.preparation import Prepared
from utils.commands import printable
from utils.recipe import recipe_of, recipe_text


def ready_text(prepared: Prepared, options: argparse.Namespace) -> str:
    """Return the images, what is ignored, the recipe, and what thresholds promise, a line each."""
    category, number = prepared.category, len(prepared.category.validation)
    if not chosen(NETWORKS, tuple(options.experts)):  # then every good image is held out once
        number += len(category.train)
    ignored = f"ignored: {options.ignored}\n" if options.ignored else ""
    depth = f" of {prepared.bits} bits" * (prepared.bits not in (None, 8))
    return (
        f"ready: {printable(summary(category))}{depth}\n"
        f"{ignored}recipe: {recipe_text(recipe_of(options))}\n"
        f"thresholds: {promise(number, options.false_alarm_rate)}"
    )

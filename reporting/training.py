"""How a detector came about: losses, seconds, device, versions, options, images."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.samples import InputError, noted, require_file
from evaluation.groups import in_words
from reporting.collected import Evaluated

MOST_POINTS = 1000  # of a curve, more than a screen can show
STEP = "step"

Losses = dict[str, list[float | None]]  # a column of the loss log -> its values


class Option(NamedTuple):
    name: str
    value: str
    others: str  # what other runs have instead; "" where none differs


@dataclass(frozen=True)
class Training:
    losses: Losses  # {} where no network was trained
    facts: dict[str, str]
    options: list[Option]


def training(one: Evaluated, settings: list[Option], faults: list[str]) -> Training:
    """Return how one run came about; `settings` are its own of `options`."""
    losses: Losses = {}
    if one.run.losses_file.exists():
        with noted(faults):
            losses = block_means(read_losses(one.run.losses_file))
    return Training(losses, facts(one), settings)


def read_losses(path: Path) -> dict[str, np.ndarray]:
    """Read a loss log: column -> (rows,) float64, NaN where a term is absent.

    A row that a crash cut short is left out. Raises InputError for what is no loss log.
    """
    try:
        require_file(path)
        with path.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        rows = [[float(text or "nan") for text in row] for row in rows if len(row) == len(head)]
        if head[:2] != [STEP, "total"]:
            raise ValueError("its columns are others")
        values = np.array(rows, float).reshape(-1, len(head))
        if np.isinf(values).any() or np.isnan(values[:, :2]).any():
            raise ValueError("a loss is no finite number")
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is no loss log, the curves are left out: {error}") from error
    return dict(zip(head, values.T, strict=True))


def block_means(columns: dict[str, np.ndarray], most: int = MOST_POINTS) -> Losses:
    """Return at most `most` rows of a loss log, each the mean of several, with their last step.

    That is what the log itself does over steps. Terms that are absent throughout are left out.
    """
    count = len(columns[STEP])
    if not count:
        return {}
    starts = np.arange(0, count, -(-count // most))
    sizes = np.diff([*starts, count])
    found: Losses = {STEP: [int(step) for step in columns[STEP][starts + sizes - 1]]}
    for name, values in columns.items():
        if name != STEP and not np.isnan(values).all():
            means = np.add.reduceat(values, starts) / sizes
            found[name] = [None if np.isnan(mean) else float(f"{mean:.6g}") for mean in means]
    return found


def facts(one: Evaluated) -> dict[str, str]:
    """Return what is known of a run beside its options, in words."""
    ours = one.metrics["glae"]
    seconds, versions = ours.get("seconds", {}), ours.get("versions", {})
    known = {
        "Evaluated": f"{one.written:%Y-%m-%d %H:%M} UTC",
        "Output folder": str(one.run.output),
        "Seed": ours.get("seed"),
        "Training": duration(seconds.get("training")),
        "Evaluation": duration(seconds.get("evaluation")),
        "Speed": speed(seconds.get("scoring_per_image")),
        "Device": ours.get("device"),
        "Precision": ours.get("precision"),
        "Fingerprint of the images": ours.get("images"),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return {name: str(value) for name, value in known.items() if value not in (None, "")}


def duration(seconds: float | None) -> str:
    """Return seconds as hours, minutes and seconds."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def speed(seconds: float | None) -> str:
    """Return what one image takes, in ms, and how many a second that is."""
    if not seconds:
        return ""
    return f"{1000 * seconds:.3g} ms an image, {1 / seconds:.3g} images a second"


def options(runs: list[Evaluated], faults: list[str]) -> list[list[Option]]:
    """Return each run's options, those first that differ from what other runs have.

    Options that decide no result, such as paths and workers, are those of its config.yaml.
    """
    known = [all_options(run, faults) for run in runs]
    names = dict.fromkeys(name for of in known for name in of)
    found = [[option(name, own, known) for name in names] for own in known]
    return [sorted(of, key=lambda option: not option.others) for of in found]


def option(name: str, own: dict[str, str], known: list[dict[str, str]]) -> Option:
    """Return one option of a run, beside those of all runs."""
    value = own.get(name, "not known")
    others = dict.fromkeys(of[name] for of in known if name in of and of[name] != value)
    return Option(name, value, "; ".join(others) if name in own else "")


def all_options(one: Evaluated, faults: list[str]) -> dict[str, str]:
    """Return the options that decided a result, then the others of its run."""
    decided, config = one.metrics["glae"].get("options", {}), {}
    if one.run.config_file.exists():
        with noted(faults):
            config = one.run.read_config()
    return {name: in_words(value) for name, value in {**decided, **config, **decided}.items()}

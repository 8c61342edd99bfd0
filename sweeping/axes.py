"""The values that a sweep gives to one option: each checked, and named by what main.py reads."""

import argparse
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.samples import InputError, noted, report_faults, told_of
from utils.options import FLAGS, Parser
from utils.presets import is_plain, takes_several, tokens_of

OWN = {  # what the sweep sets itself for each training, and where that is said instead
    "dataset": "it stands first, before its path",
    "subdataset": "write categories: [NAME] below its data set in a sweep's .yaml",
    "output_dir": "it holds all trainings",
}
NEVER = (*FLAGS, *OWN, "help", "device", "device_gpu")  # may be varied; nor may a path
MOST_LABEL = 100  # bytes of a value's name: a few of them stand in one folder's
# No slash, no control character, no dot first, last or twice; no "=" and ",", which stand between.
LABEL = re.compile(r"[\w+-]+([ .][\w+-]+)*")


@dataclass(frozen=True)
class Value:
    """One value of one option: its part of a folder's name, and the tokens that set it."""

    label: str
    tokens: tuple[str, ...]


def axis_of_text(parser: Parser, text: str) -> tuple[str, list[str | list[str]]]:
    """Return the option and the values of `NAME=VALUE,VALUE`; those of a list stand by spaces.

    Raises InputError for a text of another form.
    """
    name, sign, values = text.partition("=")
    if not sign:
        raise InputError(f"--grid {text}: write NAME=VALUE,VALUE")
    action = parser._option_string_actions.get(f"--{name}")
    listed = action is not None and action.nargs is not None
    return name, [v.split() if listed and " " in v else v for v in values.split(",")]


def require_axis(parser: Parser, name: str) -> None:
    """Raise InputError when main.py has no such option, or one that a sweep may not vary."""
    if f"--{name}" not in parser._option_string_actions:
        raise InputError(parser.unknown(f"--{name}"))
    if name == "seed":
        raise InputError("seed stands in seeds (--seeds), not in a grid")
    if name in NEVER or name.endswith("_path"):
        raise InputError(f"{name} cannot be varied: take it out of the grid")


def read_axis(parser: Parser, name: str, values: Any) -> list[Value]:
    """Return the values of main.py's option `name`, each as its `parser` reads it.

    Raises InputError with every value that it refuses, that is there twice or that cannot name a
    folder of its own.
    """
    if not (isinstance(values, list) and values):
        raise InputError(f"{name} must have a list of values, such as [a, b]")
    faults: list[str] = []
    read: list[Any] = []
    labels: dict[str, str] = {}  # folded -> as it is
    axis = []
    for value in values:
        with noted(faults), told_of(f"{name}={value}"):
            tokens, parsed = read_value(parser, name, value)
            if parsed in read:
                raise InputError("the same value is there twice")
            read.append(parsed)
            label = label_of(parsed)
            other = labels.setdefault(label.casefold(), label)
            if len(labels) < len(read):
                raise InputError(f"its folder would be called {label}, and another's {other}")
            axis.append(Value(f"{name}={label}", tokens))
    report_faults(faults)
    return axis


def read_value(parser: Parser, name: str, value: Any) -> tuple[tuple[str, ...], Any]:
    """Return the tokens that set an option, and what main.py's parser makes of them.

    Raises InputError for a value that the option cannot have.
    """
    action = parser._option_string_actions[f"--{name}"]
    if value in (None, []) or not is_plain(value, takes_several(action)):
        raise InputError(f"{name} cannot be set to such a value")
    tokens = tokens_of(action, name, value)
    return tuple(tokens), getattr(parser.parse_args(tokens), action.dest)


def label_of(parsed: Any) -> str:
    """Return what a value is called in a folder's name: a file as itself, a list with plus signs.

    Raises InputError for one that would lead elsewhere, or that some file systems cannot have.
    """
    values = parsed if isinstance(parsed, list) else [parsed]
    label = "+".join(value.name if isinstance(value, Path) else str(value) for value in values)
    if len(os.fsencode(label)) > MOST_LABEL or not LABEL.fullmatch(label):
        raise InputError(
            f"{label!r} cannot name a folder: take at most {MOST_LABEL} letters, digits, _ + -, "
            "and a dot or space between them"
        )
    return label


def is_repeatable(parser: Parser, name: str) -> bool:
    """Tell whether a second mention of an option adds to the first instead of replacing it."""
    return isinstance(parser._option_string_actions[f"--{name}"], argparse._AppendAction)

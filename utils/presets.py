"""YAML presets, which set the defaults of options.

The order is: the parser's default, the dataset's own preset, each `--config` in turn, the
command line; the last one that speaks wins. A dataset's path says which dataset is meant.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.catalog import DATASETS
from data.samples import InputError, report_faults
from utils.files import TextLoader, read_yaml
from utils.options import FLAGS, Parser

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NOT_PRESET = (*FLAGS, "config", "help")
INFORMATION = ("version",)  # what a run stores beside its options
# What a former version stored with its runs, and is no option any more.
RETIRED = {("memory_format", "channels_last"), ("memory_format", "channels_first")}
RETIRED |= {("compile", "inductor")}
MOST_TEXT = 4096  # characters of a value; no path is longer
Scalar = str | int | float | None


def parse(parser: Parser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line on top of the presets it names.

    Raises InputError for an unknown option, a bad value, or a preset that is not there.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    options = parser.parse_args(argv)
    configs = getattr(options, "config", None) or []
    tokens = [token for path in configs for token in preset_tokens(parser, path)]
    tokens = implied_dataset(parser, tokens + argv) + tokens
    if parser.presets and hasattr(options, "dataset"):
        dataset = parser.parse_args(tokens + argv).dataset
        own = CONFIGS / f"{dataset}.yaml"
        tokens = (preset_tokens(parser, own) if own.is_file() else []) + tokens
    return parser.parse_args(tokens + argv)


def implied_dataset(parser: Parser, arguments: list[str]) -> list[str]:
    """Return the tokens that set --dataset where it is not given but the path of one is.

    Raises InputError when paths of several are.
    """
    given = parser.parse_args(arguments, argparse.Namespace(dataset=None))  # not its default
    entries = [(name, entry.option) for name, entry in DATASETS.items() if entry.option]
    paths = {name: f"--{option}" for name, option in entries if getattr(given, option, None)}
    if given.dataset is not None or not paths:
        return []
    if len(paths) > 1:
        raise InputError(
            f"{' and '.join(paths.values())} are given: say which is meant with --dataset"
        )
    return [f"--dataset={name}" for name in paths]


def preset_tokens(parser: Parser, path: Path) -> list[str]:
    """Turn a YAML preset into command-line tokens, so that argparse checks its values too.

    Raises InputError naming the file and all that is wrong in it.
    """
    preset = read_yaml(path, TextLoader) or {}
    if not isinstance(preset, dict):
        raise InputError(f"{path} must hold lines of 'option: value'")
    faults, tokens = [], []
    for key, value in preset.items():
        if key in INFORMATION:
            continue
        if (key, str(value)) in RETIRED:
            warnings.warn(f"{path}: {key} {value} is no option any more: ignored", stacklevel=2)
        elif f"--{key}" not in parser._option_string_actions:
            faults.append(f"{path}: {parser.unknown(f'--{key}')}")
        elif key in NOT_PRESET or not is_plain(value):
            faults.append(f"{path}: {key} cannot be set here, or not to such a value")
        else:
            tokens += tokens_of(parser._option_string_actions[f"--{key}"], key, value)
    report_faults(faults)
    try:
        parser.parse_args(tokens)
    except InputError as error:
        raise InputError(*(f"{path}: {fault}" for fault in error.args)) from error
    return tokens


def is_plain(value: Any) -> bool:
    """Tell whether a value is one that an option can have.

    That of a flag is none: flags are of one invocation. No item of a list begins with a dash.
    """
    values = value if isinstance(value, list) else [value]
    dashes = isinstance(value, list) and any(str(v).startswith("-") for v in value)
    kinds = all(isinstance(v, Scalar) and not isinstance(v, bool) for v in values)
    short = all(len(str(v)) <= MOST_TEXT for v in values)
    return kinds and short and not dashes and "\0" not in str(value)


def tokens_of(action: argparse.Action, key: str, value: Scalar | list[Scalar]) -> list[str]:
    """Return the command-line tokens that set an option; one that may be repeated, repeated."""
    if value is None:
        return []
    if not isinstance(value, list):
        return [f"--{key}={value}"]
    if action.nargs is None:
        return [f"--{key}={one}" for one in value]
    return [f"--{key}", *map(str, value)]

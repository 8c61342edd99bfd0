"""YAML presets, which set the defaults of options.

The order is: the parser's default, the dataset's own preset, each `--config` in turn, the
command line; the last one that speaks wins. A dataset's path says which dataset is meant, where
one must be; one on the command line wins over what presets say.
"""

import argparse
import sys
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from data.catalog import DATASETS
from data.samples import InputError, report_faults, told_of
from utils.files import TextLoader, read_yaml
from utils.options import FLAGS, Parser

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NOT_PRESET = (*FLAGS, "config", "help")
INFORMATION = ("version", "ignored")  # what a run stores beside its options
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
    argv += implied_dataset(parser, argv, tokens)
    if parser.presets and hasattr(options, "dataset"):
        dataset = parser.parse_args(tokens + argv).dataset
        own = CONFIGS / f"{dataset}.yaml"
        tokens = (preset_tokens(parser, own) if own.is_file() else []) + tokens
    return parser.parse_args(tokens + argv)


def implied_dataset(parser: Parser, argv: list[str], tokens: list[str]) -> list[str]:
    """Return the tokens that set --dataset where it is not given but the path of one is.

    A path in `argv` wins over the dataset of the presets' `tokens`. None are implied where a script
    needs no dataset. Raises InputError when paths of several are given.
    """
    needed = getattr(parser.parse_args(tokens + argv), "dataset", None)  # its default at least
    if needed is None or names_dataset(argv):
        return []
    paths = path_options(parser, argv)
    if len(paths) != 1 and names_dataset(tokens):
        return []
    if tokens:  # alone they are no command line of a script that has commands
        paths = paths or path_options(parser, tokens)
    if len(paths) > 1:
        raise InputError(
            f"{' and '.join(paths.values())} are given: say which is meant with --dataset"
        )
    return [f"--dataset={name}" for name in paths]


def names_dataset(arguments: list[str]) -> bool:
    """Tell whether --dataset is among the arguments."""
    return any(argument.partition("=")[0] == "--dataset" for argument in arguments)


def path_options(parser: Parser, arguments: list[str]) -> dict[str, str]:
    """Return the datasets whose path is among the arguments, with its option."""
    given = parser.parse_args(arguments)
    entries = [(name, entry.option) for name, entry in DATASETS.items() if entry.option]
    return {name: f"--{option}" for name, option in entries if getattr(given, option, None)}


def preset_tokens(parser: Parser, path: Path) -> list[str]:
    """Turn a YAML preset into command-line tokens, so that argparse checks its values too.

    Raises InputError naming the file and all that is wrong in it.
    """
    preset = read_yaml(path, TextLoader) or {}
    if not isinstance(preset, dict):
        raise InputError(f"{path} must hold lines of 'option: value'")
    return mapping_tokens(parser, preset, path)


def mapping_tokens(
    parser: Parser, values: dict, where: object, refused: Collection[str] = NOT_PRESET
) -> list[str]:
    """Turn values by the names of their options into command-line tokens, none of `refused`.

    Raises InputError naming `where` they stand and all that is wrong there.
    """
    faults, tokens = [], []
    for key, value in values.items():
        if key in INFORMATION:
            continue
        if (key, str(value)) in RETIRED:
            warnings.warn(f"{where}: {key} {value} is no option any more: ignored", stacklevel=2)
            continue
        action = parser._option_string_actions.get(f"--{key}")
        if action is None:
            faults.append(f"{where}: {parser.unknown(f'--{key}')}")
        elif key in refused or not is_plain(value, takes_several(action)):
            faults.append(f"{where}: {key} cannot be set here, or not to such a value")
        else:
            tokens += tokens_of(action, key, value)
    report_faults(faults)
    with told_of(where):
        parser.parse_args(tokens)
    return tokens


def takes_several(action: argparse.Action) -> bool:
    """Tell whether an option has a list of values, or may be repeated."""
    return action.nargs is not None or isinstance(action, argparse._AppendAction)


def is_plain(value: Any, several: bool) -> bool:
    """Tell whether a value, or a list where an option takes `several`, is one that it can have.

    That of a flag is none: flags are of one invocation. No item of a list begins with a dash.
    """
    if isinstance(value, list) and not several:
        return False
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

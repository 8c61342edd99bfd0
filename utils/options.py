"""Command-line options: argparse, with YAML presets that set defaults.

The order is: the parser's default, the dataset's own preset, each `--config` in turn, the
command line; the last one that speaks wins.
"""

import argparse
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from data.catalog import DATASETS
from data.images import Size
from data.samples import InputError
from models.autoencoder import AUTOENCODERS, smallest_side
from models.pdn import PDNS
from utils.devices import COMPILERS, MEMORY_FORMATS, PRECISIONS

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
FLAGS = ("resume", "overwrite", "debug")  # of one invocation: never stored with a run


class ShowDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """Show each option's default, but not where there is none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        unset = action.default in (None, False)
        return action.help if unset else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are exceptions, so that all errors are printed alike."""

    def __init__(self, description: str, presets: bool = True, **more):
        self.presets = presets  # read the preset of the chosen dataset
        more |= {"formatter_class": ShowDefaults, "allow_abbrev": False}
        super().__init__(description=description, **more)
        self.add_argument("--debug", action="store_true", help="show a traceback on errors")

    def error(self, message: str):
        raise InputError(f"{message}; see {self.prog} --help")


def add_dataset_options(
    parser: argparse.ArgumentParser, default: str | None = "mvtec_loco"
) -> None:
    """Add --dataset, --subdataset and each dataset's path."""
    group = parser.add_argument_group("dataset")
    group.add_argument("--dataset", choices=list(DATASETS), default=default)
    group.add_argument("--subdataset", help="the category, one folder of the dataset")
    for dataset in DATASETS.values():
        if dataset.option:
            where = f"default: ./{dataset.default_path}" if dataset.default_path else dataset.hint
            group.add_argument(f"--{dataset.option}", type=Path, help=where)


def dataset_path(options: argparse.Namespace, dataset: str) -> Path | None:
    """Return the path option of `dataset`; None when it was not given, or there is none."""
    return getattr(options, f"{dataset}_path", None)


def add_model_options(parser: argparse.ArgumentParser, default_size: str | None = None) -> None:
    """Add what a detector is: --model, --model_size, --image_size."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", choices=list(AUTOENCODERS), default="glae", help="autoencoder")
    text = None if default_size else "default: --weights', else medium"
    group.add_argument("--model_size", choices=list(PDNS), default=default_size, help=text)
    group.add_argument(
        "--image_size", type=int, nargs="+", default=[256], help="one side, or height and width"
    )


def image_size(options: argparse.Namespace) -> Size:
    """Return (height, width) of what the networks see."""
    return (options.image_size[0], options.image_size[-1])


def add_machine_options(
    parser: argparse.ArgumentParser,
    workers: int = 4,
    auto: str = "bf16 where the hardware multiplies it, else fp32",
) -> None:
    """Add what says where and in which precision to compute; `auto` says what that means."""
    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    group.add_argument("--device_gpu", type=int, metavar="N", help="the same as --device cuda:N")
    group.add_argument(
        "--precision",
        choices=("auto", *PRECISIONS),
        default="auto",
        help=f"of the networks; auto is {auto}",
    )
    text = "background threads or processes"
    group.add_argument("--workers", type=int, default=workers, help=text)


def add_speed_options(
    parser: argparse.ArgumentParser, trains: bool = True, scores: bool = True
) -> None:
    """Add what changes how fast a detector computes, and nothing else beyond rounding."""
    group = parser.add_argument_group("speed")
    group.add_argument(
        "--compile",
        choices=COMPILERS,
        default="auto",
        help="graph: a CUDA graph; inductor: torch.compile; auto: graph on CUDA, else none",
    )
    group.add_argument(
        "--memory_format",
        choices=list(MEMORY_FORMATS),
        default="channels_last",
        help="of the networks' weights and features",
    )
    if scores:
        group.add_argument(
            "--scoring_batch_size",
            type=int,
            metavar="N",
            help="images scored at once; 1 has the least latency; default: 1 on a CPU, else 16",
        )
    if trains:
        group.add_argument(
            "--feature_memory",
            type=int,
            default=2048,
            metavar="MIB",
            help="what the teacher's features of the training images may take; 0 computes them "
            "again at every step",
        )


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add --config."""
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        metavar="FILE.yaml",
        help="options on top of presets",
    )


def parse(parser: Parser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line on top of the presets it names.

    Raises InputError for an unknown option, a bad value, or a preset that is not there.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    options = parser.parse_args(argv)
    configs = getattr(options, "config", None) or []
    tokens = [token for path in configs for token in preset_tokens(parser, path)]
    if parser.presets and hasattr(options, "dataset"):
        dataset = parser.parse_args(tokens + argv).dataset
        own = CONFIGS / f"{dataset}.yaml"
        tokens = (preset_tokens(parser, own) if own.is_file() else []) + tokens
    return parser.parse_args(tokens + argv)


def preset_tokens(parser: argparse.ArgumentParser, path: Path) -> list[str]:
    """Turn a YAML preset into command-line tokens, so that argparse checks its values too.

    Raises InputError naming the file and what is wrong in it.
    """
    try:
        preset = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise InputError(f"cannot read --config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(preset, dict):
        raise InputError(f"{path} must hold lines of 'option: value'")
    tokens = []
    for key, value in preset.items():
        if f"--{key}" not in parser._option_string_actions or key == "config":
            raise InputError(f"{path}: there is no option '{key}' for a preset")
        if value is True:
            tokens.append(f"--{key}")
        elif value is not None and value is not False:
            values = value if isinstance(value, list) else [value]
            tokens += [f"--{key}", *map(str, values)]
    try:
        parser.parse_args(tokens)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return tokens


def resolved(options: argparse.Namespace) -> dict:
    """Return the options that repeat this run from anywhere, as plain YAML values."""
    kept = {k: v for k, v in vars(options).items() if k not in (*FLAGS, "config")}
    return {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in kept.items()}


def check_positive(options: argparse.Namespace, *names: str) -> list[str]:
    """Return one fault for each named option that is below 1."""
    values = {name: getattr(options, name) for name in names}
    return [
        f"--{name} must be at least 1, not {value}"
        for name, value in values.items()
        if value is not None and value < 1
    ]


def check_not_negative(options: argparse.Namespace, *names: str) -> list[str]:
    """Return one fault for each named option that is below 0."""
    values = {name: getattr(options, name) for name in names}
    return [
        f"--{n} must not be negative, as {value} is" for n, value in values.items() if value < 0
    ]


def check_image_size(options: argparse.Namespace) -> list[str]:
    """Return the fault of an --image_size that the --model cannot work at, if there is one."""
    smallest = smallest_side(options.model)
    if len(options.image_size) > 2:
        return ["--image_size takes one side, or height and width"]
    if min(options.image_size) < smallest:
        return [f"--image_size for {options.model} must be at least {smallest}"]
    return []


def report_faults(faults: list[str]) -> None:
    """Raise one InputError that names every fault, if there is one."""
    if faults:
        raise InputError("; ".join(faults))


def print_warning(message: Warning | str, *_: object) -> None:
    """Show a warning as one line, without the line of code that raised it."""
    print(f"warning: {message}", file=sys.stderr)


def run_command(main: Callable, get_parser: Callable[[], Parser]) -> int:
    """Run a script; return its exit code: 0 done, 1 failed, 2 input error, 130 interrupted.

    Errors are one line on stderr; a traceback only with --debug.
    """
    debug = "--debug" in sys.argv
    warnings.showwarning = print_warning
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what stops a job on a cluster
    try:
        return main(parse(get_parser())) or 0
    except KeyboardInterrupt as interrupt:
        print(f"interrupted{interrupt.args[0] if interrupt.args else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split()) or "no message"
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        print(f"error: {kind}{text}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1

"""Command-line options: argparse, in groups that scripts share, and what their values must be."""

import argparse
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from data.catalog import DATASETS
from data.image_files import Size
from data.samples import InputError, report_faults
from models.experts import EXPERTS, NETWORKS, STATISTICS, chosen
from utils.files import user_path
from utils.recipe import with_recipe

PRECISIONS = ("fp32", "bf16", "fp16")
COMPILERS = ("auto", "none", "graph")
MOST = {"workers": 1024, "batch_size": 2**16, "scoring_batch_size": 2**16, "seed": 2**63 - 1}
MOST_OTHERS = 10**9  # of any number: more is a slip
EPILOG = "examples:"
# of one invocation: never stored with a run
FLAGS = ("resume", "overwrite", "check", "report", "debug")
# Options that may differ when a run is resumed, and make it no other model: where things lie, what
# computes. A checkpoint knows its teacher.
MAY_CHANGE = {"workers", "device", "device_gpu", "output_dir", "weights", "imagenet_train_path"}
MAY_CHANGE |= {"compile", "scoring_batch_size", "feature_memory", "checkpoint_every"}
MAY_CHANGE |= {"unlabelled", "labelled"}
MAY_CHANGE |= {"ignore"}  # but not "ignored", which says what is in that file
MAY_CHANGE |= {dataset.option for dataset in DATASETS.values()}


class ShowDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """Show each option's default, but not where there is none; keep the examples' lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(EPILOG) else super()._fill_text(text, width, indent)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        unset = action.default in (None, False, [])
        return action.help if unset else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are exceptions, so that all errors are printed alike."""

    def __init__(
        self, description: str, examples: Sequence[str] = (), presets: bool = True, **more
    ):
        self.presets = presets  # read the preset of the chosen dataset
        more |= {"formatter_class": ShowDefaults, "allow_abbrev": False}
        if examples:
            more["epilog"] = "\n  ".join((EPILOG, *examples))
        super().__init__(description=description, **more)
        self.add_argument("--debug", action="store_true", help="show a traceback on errors")

    def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
        """Name the nearest option there is for each that there is not.

        Options may stand between positional arguments, of which there may be any number.
        """
        parse = self.parse_known_args if self._subparsers else self.parse_known_intermixed_args
        options, unknown = parse(args, namespace)
        named = [text for text in unknown if text.startswith("-")] or unknown  # not their values
        report_faults([self.unknown(text) for text in named])
        return options

    def unknown(self, text: str) -> str:
        """Say what is wrong with an argument that is not known, and what it may stand for."""
        if not text.startswith("--"):
            return f"{text} belongs to no option; see {self.prog} --help"
        options = [option for option in self._option_string_actions if option != "--help"]
        near = get_close_matches(text.partition("=")[0], options, n=1)
        return (
            f"there is no option {text}: {near[0]}?"
            if near
            else (f"there is no option {text}; see {self.prog} --help")
        )

    def error(self, message: str):
        raise InputError(f"{message}; see {self.prog} --help")


def add_dataset_options(
    parser: argparse.ArgumentParser, default: str | None = "mvtec_loco"
) -> None:
    """Add --dataset, --subdataset and each dataset's path."""
    group = parser.add_argument_group("dataset")
    group.add_argument("--dataset", choices=list(DATASETS), default=default)
    group.add_argument("--subdataset", help="the category, one folder of the dataset")
    add_path_options(group)


def add_path_options(group: argparse.ArgumentParser) -> None:
    """Add each dataset's path."""
    for dataset in DATASETS.values():
        if dataset.option:
            where = f"default: ./{dataset.default_path}" if dataset.default_path else dataset.hint
            group.add_argument(f"--{dataset.option}", type=user_path, help=where)


def dataset_path(options: argparse.Namespace, dataset: str) -> Path | None:
    """Return the path option of `dataset`; None when it was not given, or there is none."""
    return getattr(options, f"{dataset}_path", None)


def add_model_options(parser: argparse.ArgumentParser, default_size: str | None = None) -> None:
    """Add what a detector is: --model, --model_size, --image_size."""
    from models.autoencoder import AUTOENCODERS  # here: what has none of these loads no torch
    from models.pdn import PDNS

    group = parser.add_argument_group("model")
    group.add_argument("--model", choices=list(AUTOENCODERS), default="glae", help="autoencoder")
    text = None if default_size else "default: --weights', else medium"
    group.add_argument("--model_size", choices=list(PDNS), default=default_size, help=text)
    group.add_argument(
        "--image_size", type=int, nargs="+", default=[256], help="one side, or height and width"
    )


def add_experts_option(parser: argparse.ArgumentParser, default: tuple[str, ...] = EXPERTS) -> None:
    """Add --experts."""
    parser.add_argument(
        "--experts",
        choices=EXPERTS,
        nargs="+",
        default=[*default],
        help="what scores: networks, which are trained, and statistics, which need no training",
    )


def add_detector_argument(
    parser: argparse.ArgumentParser, name: str = "DETECTOR", more: str = ""
) -> None:
    """Add the detector that a script works with, called `name`; `more` may stand for it, too."""
    text = f"a run's folder, an output folder with one run, or a detector.safetensors alone{more}"
    parser.add_argument("detector", type=user_path, metavar=name, help=text)


def add_false_alarm_option(parser: argparse.ArgumentParser) -> None:
    """Add --false_alarm_rate, for scripts that score with what is trained."""
    text = "part of good images that may be called anomalous; default: that of the training"
    parser.add_argument("--false_alarm_rate", type=float, metavar="RATE", help=text)


def settle_experts(options: argparse.Namespace) -> list[str]:
    """Bring --experts and --train_steps to agree; return the fault of what cannot.

    Without networks there is nothing to train, and without training there are no networks.
    """
    options.experts = [*chosen(EXPERTS, tuple(options.experts))]
    if not chosen(NETWORKS, tuple(options.experts)):
        options.train_steps = 0
    if options.train_steps == 0:
        options.experts = [*chosen(STATISTICS, tuple(options.experts))]
    if options.experts:
        return []
    return ["--train_steps must be at least 1 where no position or composition is in --experts"]


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
        help="graph: a training step, or a scoring, is one CUDA graph; auto: graph on CUDA",
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


def add_checkpoint_option(group: argparse._ArgumentGroup, default: str) -> None:
    """Add --checkpoint_every."""
    group.add_argument(
        "--checkpoint_every",
        type=interval,
        default=default,
        metavar="{STEPS,TIME}",
        help="save what --resume needs after so many steps, or a time such as 90s, 5m or 1h",
    )


def interval(text: str) -> str:
    """Check the value of --checkpoint_every."""
    if not re.fullmatch(r"0*[1-9]\d{0,8}[smh]?", text):
        raise argparse.ArgumentTypeError(f"{text} is no number of steps, and no time such as 5m")
    return text


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add where a run lies, and what becomes of an earlier one."""
    group = parser.add_argument_group("output")
    group.add_argument("--output_dir", type=user_path, default=Path("output"))
    add_checkpoint_option(group, "1m")
    group.add_argument("--resume", action="store_true", help="go on where the run was stopped")
    group.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    text = "read all that the run needs, report every fault, compute nothing"
    group.add_argument("--check", action="store_true", help=text)
    text = "in the end write a page of all that was evaluated in --output_dir, as report.py does"
    group.add_argument("--report", action="store_true", help=text)


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add --config."""
    parser.add_argument(
        "--config",
        type=user_path,
        action="append",
        metavar="FILE.yaml",
        help="options on top of presets",
    )


def resolved(options: argparse.Namespace) -> dict:
    """Return the options that repeat this run from anywhere, as plain YAML values."""
    kept = {k: v for k, v in vars(options).items() if k not in (*FLAGS, "config")}
    return {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in kept.items()}


def deciding(config: Mapping) -> dict:
    """Return which of a run's stored options decide what is trained, but for the seed."""
    aside = MAY_CHANGE | {"seed", "dataset", "subdataset", "version", "false_alarm_rate"}
    kept = {key: value for key, value in with_recipe(config).items() if key not in aside}
    return kept | {"penalty": config.get("imagenet_train_path") is not None}


def check_positive(options: argparse.Namespace, *names: str) -> list[str]:
    """Return one fault for each named option that is below 1."""
    values = {name: getattr(options, name) for name in names}
    return [
        f"--{name} must be at least 1 and at most {MOST.get(name, MOST_OTHERS)}, not {value}"
        for name, value in values.items()
        if value is not None and not 1 <= value <= MOST.get(name, MOST_OTHERS)
    ]


def check_not_negative(options: argparse.Namespace, *names: str) -> list[str]:
    """Return one fault for each named option that is below 0."""
    values = {name: getattr(options, name) for name in names}
    return [
        f"--{name} must be at least 0 and at most {MOST.get(name, MOST_OTHERS)}, not {value}"
        for name, value in values.items()
        if not 0 <= value <= MOST.get(name, MOST_OTHERS)
    ]


def check_image_size(options: argparse.Namespace) -> list[str]:
    """Return the fault of an --image_size that the --model cannot work at, if there is one."""
    from models.autoencoder import check_size

    if len(options.image_size) > 2:
        return ["--image_size takes one side, or height and width"]
    try:
        check_size(image_size(options), options.model)
    except ValueError as error:
        return [f"--image_size: {error}"]
    return []

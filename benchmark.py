"""Measure how fast the parts are, on this machine: `python3 benchmark.py --help`."""

if __name__ == "__main__":
    from utils.startup import leave_when_interrupted

    leave_when_interrupted()

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.cluster import add_cluster_benchmark, benchmark_cluster, check_cluster
from benchmarks.deployment import add_deployment_options, benchmark_deployment, check_deployment
from benchmarks.evaluation import benchmark_evaluation
from benchmarks.inference import benchmark_inference
from benchmarks.machine import machine
from benchmarks.prediction import benchmark_prediction
from benchmarks.report import add_report_options, benchmark_report, check_report
from benchmarks.sweep import add_sweep_options, benchmark_sweep, check_sweep
from benchmarks.tables import (
    print_cluster,
    print_deployment,
    print_evaluation,
    print_networks,
    print_prediction,
    print_report,
    print_sweep,
    print_thresholds,
)
from benchmarks.thresholds import benchmark_thresholds
from benchmarks.training import benchmark_training
from data.samples import report_faults
from models.experts import EXPERTS, NETWORKS, chosen
from utils.commands import run_command
from utils.compilation import WARM_UP
from utils.devices import pick_compute
from utils.files import user_path
from utils.options import (
    Parser,
    add_dataset_options,
    add_experts_option,
    add_machine_options,
    add_model_options,
    add_speed_options,
    check_image_size,
    check_not_negative,
    check_positive,
)

EXAMPLES = (
    "python3 benchmark.py train --dataset demo --image_size 128 160 --against published",
    "python3 benchmark.py evaluation --dataset demo --images 20",
    "python3 benchmark.py predict output/trainings/folder/my_product",
    "python3 benchmark.py deployment --model_size small --formats onnx",
    "python3 benchmark.py sweep --tasks 8 --repeats 5",
    "python3 benchmark.py cluster output/trainings/folder/my_product --scorers 1 2",
    "python3 benchmark.py thresholds output --good_images 10 20 50",
)


class Command(NamedTuple):
    """What one of benchmark.py's commands is, and how each of its parts is done."""

    text: str
    add_options: Callable[[Parser], None]
    check: Callable[[argparse.Namespace], list[str]]  # returns every fault
    run: Callable[[argparse.Namespace], dict]
    show: Callable[[dict], None]


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    text = "Measure how fast the parts are, on this machine."
    parser = Parser(text, EXAMPLES, presets=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.text, description=command.text, presets=False)
        own.add_argument("--seed", type=int, default=0)
        own.add_argument("--json", action="store_true", help="print one JSON object")
        command.add_options(own)
    return parser


def add_train_options(command: Parser) -> None:
    """Add the options of the benchmark of training steps."""
    group = add_networks_options(command, scores=False)
    group.add_argument("--batch_size", type=int, default=1, help="images a step")
    text = "natural images for the penalty"
    group.add_argument("--imagenet_train_path", type=user_path, help=text)


def add_inference_options(command: Parser) -> None:
    """Add the options of the benchmark of scoring."""
    group = add_networks_options(command, scores=True)
    add_experts_option(command, NETWORKS)
    text = "images at once, one or several; default: 1 on a CPU, else 1 and 16"
    group.add_argument("--batch_size", type=int, nargs="+", help=text)


def add_networks_options(command: Parser, scores: bool) -> argparse._ArgumentGroup:
    """Add what the benchmarks of networks share; return their group of options."""
    add_dataset_options(command, default="demo")
    add_model_options(command, default_size="small")
    add_machine_options(command)
    add_speed_options(command, trains=not scores, scores=False)
    group = command.add_argument_group("benchmark")
    group.add_argument(
        "--against",
        choices=("published",),
        help="time the published way as well, in turn, and give the ratio",
    )
    group.add_argument("--steps", type=int, help="timed in one block; default: 10, on CUDA 200")
    group.add_argument("--warm_up", type=int, default=5, help="steps before them")
    group.add_argument("--repeats", type=int, default=5, help="blocks that the median is of")
    return group


def add_evaluation_options(command: Parser) -> None:
    """Add the options of the benchmark of metrics."""
    add_dataset_options(command, default="demo")
    group = command.add_argument_group("benchmark")
    group.add_argument(
        "--images",
        type=int,
        nargs="+",
        help="how many, several for the cost against the count; more than there are repeat them; "
        "default: the test set, a half and a quarter of it",
    )
    group.add_argument("--repeats", type=int, default=3, help="runs that the median is of")
    group.add_argument("--workers", type=int, default=os.cpu_count(), help="threads")


def add_predict_options(command: Parser) -> None:
    """Add the options of the benchmark of predict.py, whose machine options it has."""
    command.add_argument("detector", type=user_path, metavar="DETECTOR", help="as of predict.py")
    text = "as of predict.py; default: photograph-like PNG of 900 x 900 pixels, drawn"
    command.add_argument("images", nargs="*", metavar="IMAGES", help=text)
    as_trained = "that of the training where the hardware can"
    add_machine_options(command, workers=os.cpu_count(), auto=as_trained)
    add_speed_options(command, trains=False)
    group = command.add_argument_group("benchmark")
    group.add_argument("--drawn", type=int, default=24, help="how many images, where none is named")
    text = "numbers of tiny images after which the peak of memory is looked at"
    group.add_argument("--memory", type=int, nargs="+", default=[100, 1000], help=text)
    group.add_argument("--repeats", type=int, default=5, help="runs that the median is of")


def add_thresholds_options(command: Parser) -> None:
    """Add the options of the command that looks at what is trained, not at how fast it is."""
    command.add_argument("outputs", nargs="+", type=user_path, help="output folders of main.py")
    text = "that calibrate; the others are new"
    command.add_argument("--good_images", type=int, nargs="+", default=[10, 20, 50], help=text)
    text = "false-alarm rates"
    command.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.1], help=text)
    command.add_argument("--splits", type=int, default=200, help="of the scores that are kept")
    text = "splits of the images, for each of which the statistics are fitted anew"
    command.add_argument("--refits", type=int, default=0, help=text)
    command.add_argument("--workers", type=int, default=os.cpu_count(), help="threads")


def check_each(options: argparse.Namespace, name: str) -> list[str]:
    """Return the fault of an option of several numbers, if one of them is below 1."""
    least = min(getattr(options, name) or [1])
    return [f"--{name} must be at least 1, not {least}"] if least < 1 else []


def check_networks(options: argparse.Namespace) -> list[str]:
    """Return the faults of what the benchmarks of networks share."""
    faults = check_positive(options, "repeats", "workers", "steps") + check_image_size(options)
    if options.warm_up <= WARM_UP:  # a CUDA graph is captured before steps are counted
        faults.append(f"--warm_up must be at least {WARM_UP + 1}, not {options.warm_up}")
    return faults


def check_train(options: argparse.Namespace) -> list[str]:
    faults = check_networks(options) + check_positive(options, "batch_size")
    return faults + check_not_negative(options, "feature_memory")


def check_inference(options: argparse.Namespace) -> list[str]:
    faults = check_networks(options) + check_each(options, "batch_size")
    if options.against and chosen(EXPERTS, options.experts) != NETWORKS:
        faults.append("--against published times the networks: leave --experts out")
    return faults


def check_evaluation(options: argparse.Namespace) -> list[str]:
    return check_positive(options, "repeats", "workers") + check_each(options, "images")


def check_predict(options: argparse.Namespace) -> list[str]:
    numbers = ("repeats", "workers", "scoring_batch_size", "drawn")
    return check_positive(options, *numbers) + check_each(options, "memory")


def check_thresholds(options: argparse.Namespace) -> list[str]:
    faults = check_positive(options, "workers", "splits") + check_not_negative(options, "refits")
    faults += check_each(options, "good_images")
    if not all(0 < rate < 1 for rate in options.rates):
        faults.append("--rates must be above 0 and below 1")
    return faults


def on_device(benchmark: Callable) -> Callable[[argparse.Namespace], dict]:
    """Return a benchmark of networks that says on which device it was, of a machine's."""

    def run(options: argparse.Namespace) -> dict:
        warnings.filterwarnings("ignore", "This DataLoader will create")  # four, as published
        compute = pick_compute(options)
        return benchmark(options, compute) | {"machine": machine(compute)}

    return run


def on_machine(benchmark: Callable) -> Callable[[argparse.Namespace], dict]:
    """Return a benchmark that says on which machine it was."""
    return lambda options: benchmark(options) | {"machine": machine()}


COMMANDS = {
    "train": Command(
        "training steps, their images and loaders included",
        add_train_options,
        check_train,
        on_device(benchmark_training),
        print_networks,
    ),
    "inference": Command(
        "scoring, from the image on the device to its map at full size",
        add_inference_options,
        check_inference,
        on_device(benchmark_inference),
        print_networks,
    ),
    "evaluation": Command(
        "metrics from maps on disk: a test set's real masks, generated maps of its images' size",
        add_evaluation_options,
        check_evaluation,
        on_machine(benchmark_evaluation),
        print_evaluation,
    ),
    "predict": Command(
        "predict.py, from files to verdicts: its rate beside the bare network's, start, memory",
        add_predict_options,
        check_predict,
        on_machine(benchmark_prediction),
        print_prediction,
    ),
    "cluster": Command(
        "predict.py --ray: 1 and 2 scorers on this machine, and predict.py alone: rates, memory",
        add_cluster_benchmark,
        check_cluster,
        on_machine(benchmark_cluster),
        print_cluster,
    ),
    "deployment": Command(
        "exported files, from the decoded picture to its map, beside torch: rate, start, memory",
        add_deployment_options,
        check_deployment,
        on_machine(benchmark_deployment),
        print_deployment,
    ),
    "report": Command(
        "report.py: how long a page of many images takes to write, and to open in Chromium",
        add_report_options,
        check_report,
        on_machine(benchmark_report),
        print_report,
    ),
    "sweep": Command(
        "what sweep.py adds to each training, on this machine and on Ray",
        add_sweep_options,
        check_sweep,
        on_machine(benchmark_sweep),
        print_sweep,
    ),
    "thresholds": Command(
        "good images that alarm, against what the false-alarm rate promises",
        add_thresholds_options,
        check_thresholds,
        on_machine(benchmark_thresholds),
        print_thresholds,
    ),
}


def main(options: argparse.Namespace) -> None:
    """Run one benchmark and print its figures."""
    command = COMMANDS[options.command]
    report_faults(check_not_negative(options, "seed") + command.check(options))
    result = command.run(options)
    print(json.dumps(result, indent=2)) if options.json else command.show(result)


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

"""Measure how fast the parts are, on this machine: `python3 benchmark.py --help`."""

if __name__ == "__main__":
    from utils.startup import leave_when_interrupted

    leave_when_interrupted()

import argparse
import json
import os
import sys
import warnings

from tabulate import tabulate

from benchmarks.evaluation import benchmark_evaluation
from benchmarks.inference import benchmark_inference
from benchmarks.machine import machine
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

TRAIN = "training steps, their images and loaders included"
INFERENCE = "scoring, from the image on the device to its map at full size"
EVALUATION = (
    "metrics from maps on disk: a test set's real masks, generated maps of its images' size"
)
THRESHOLDS = "good images that alarm, against what the false-alarm rate promises"
EXAMPLES = (
    "python3 benchmark.py train --dataset demo --image_size 128 160 --against published",
    "python3 benchmark.py evaluation --dataset mvtec_ad --mvtec_ad_path path/mvtec_ad "
    "--subdataset bottle --images 20",
    "python3 benchmark.py thresholds output --good_images 10 20 50",
)


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    text = "Measure how fast the parts are, on this machine."
    parser = Parser(text, EXAMPLES, presets=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = add_command(commands, "train", TRAIN)
    group = add_networks_options(train, scores=False)
    group.add_argument("--batch_size", type=int, default=1, help="images a step")
    group.add_argument(
        "--imagenet_train_path", type=user_path, help="natural images for the penalty"
    )
    inference = add_command(commands, "inference", INFERENCE)
    group = add_networks_options(inference, scores=True)
    add_experts_option(inference, NETWORKS)
    text = "images at once, one or several; default: 1 on a CPU, else 1 and 16"
    group.add_argument("--batch_size", type=int, nargs="+", help=text)
    evaluation = add_command(commands, "evaluation", EVALUATION)
    group = evaluation.add_argument_group("benchmark")
    group.add_argument(
        "--images",
        type=int,
        nargs="+",
        help="how many, several for the cost against the count; more than there are repeat them; "
        "default: the test set, a half and a quarter of it",
    )
    group.add_argument("--repeats", type=int, default=3, help="runs that the median is of")
    group.add_argument("--workers", type=int, default=os.cpu_count(), help="threads")
    add_thresholds_command(commands)
    return parser


def add_thresholds_command(commands) -> None:
    """Add the subcommand that looks at what is trained, not at how fast it is."""
    command = commands.add_parser(
        "thresholds", help=THRESHOLDS, description=THRESHOLDS, presets=False
    )
    command.add_argument("outputs", nargs="+", type=user_path, help="output folders of main.py")
    text = "that calibrate; the others are new"
    command.add_argument("--good_images", type=int, nargs="+", default=[10, 20, 50], help=text)
    text = "false-alarm rates"
    command.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.1], help=text)
    command.add_argument("--splits", type=int, default=200, help="of the scores that are kept")
    text = "splits of the images, for each of which the statistics are fitted anew"
    command.add_argument("--refits", type=int, default=0, help=text)
    command.add_argument("--workers", type=int, default=os.cpu_count(), help="threads")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--json", action="store_true", help="print one JSON object")


def add_command(commands, name: str, text: str) -> Parser:
    """Add a subcommand with what all of them have."""
    command = commands.add_parser(name, help=text, description=text, presets=False)
    add_dataset_options(command, default="demo")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    return command


def add_networks_options(command: Parser, scores: bool) -> argparse._ArgumentGroup:
    """Add what the benchmarks of networks share; return their group of options."""
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


def check(options: argparse.Namespace) -> None:
    """Raise one InputError with every fault that the options alone show."""
    timed = () if options.command == "thresholds" else ("repeats",)
    faults = check_positive(options, *timed, "workers") + check_not_negative(options, "seed")
    if options.command == "thresholds":
        faults += check_positive(options, "splits") + check_not_negative(options, "refits")
        if min(options.good_images) < 1 or not all(0 < rate < 1 for rate in options.rates):
            faults.append("--good_images must be at least 1, --rates above 0 and below 1")
        report_faults(faults)
        return
    if options.command != "evaluation":
        faults += check_positive(options, "steps") + check_image_size(options)
        if options.warm_up <= WARM_UP:  # a CUDA graph is captured before steps are counted
            faults.append(f"--warm_up must be at least {WARM_UP + 1}, not {options.warm_up}")
    experts = chosen(EXPERTS, getattr(options, "experts", NETWORKS))
    if options.command == "inference" and options.against and experts != NETWORKS:
        faults.append("--against published times the networks: leave --experts out")
    if options.command == "train":
        faults += check_positive(options, "batch_size")
        faults += check_not_negative(options, "feature_memory")
    several = {"inference": "batch_size", "evaluation": "images"}.get(options.command)
    if several and min(getattr(options, several) or [1]) < 1:
        faults.append(f"--{several} must be at least 1, not {min(getattr(options, several))}")
    report_faults(faults)


def print_evaluation(result: dict) -> None:
    """Print the rows of the benchmark of metrics."""
    header = ["images", "seconds", "images/s", "ms/image", "peak memory, MiB"]
    body = [
        (
            row["images"],
            f"{row['seconds']:.2f} ({row['seconds_min']:.2f}-{row['seconds_max']:.2f})",
            f"{row['images_per_second']:.1f}",
            f"{1000 * row['seconds_per_image']:.1f}",
            f"{row['peak_memory_bytes'] / 2**20:.0f}",
        )
        for row in result["rows"]
    ]
    print_table(header, body)


def print_thresholds(result: dict) -> None:
    """Print promised and found false alarms, in percent, of splits and of good test images."""
    header = ["", "of", "good images", "rate", "promised", "found (5 to 95 %)", "plain quantile"]
    body = [
        (
            *(row["category"], row["how"], row["good_images"]),
            *(f"{100 * row[name]:.1f}" for name in ("rate", "promised")),
            f"{100 * row['found']:.1f} ± {100 * row['found_error']:.1f} "
            f"({100 * row['found_5']:.0f} to {100 * row['found_95']:.0f})",
            f"{100 * row['plain_quantile']:.1f}",
        )
        for row in result["splits"]
    ]
    print_table(header, body)
    body = [
        (
            *(row["category"], row["good_images"]),
            *(f"{100 * row[name]:.1f}" for name in ("rate", "promised")),
            f"{row['alarms']} of {row['test_images']}",
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
        )
        for row in result["tests"]
    ]
    print()
    print_table(["", "good images", "rate", "promised", "alarms", "95 % interval"], body)


def print_networks(result: dict) -> None:
    """Print the rows of a benchmark of networks: ours, and the published way below it."""
    unit = "step" if result["benchmark"] == "train" else "image"
    header = ["", "batch", f"ms/{unit}", "images/s", "of matmul", "peak, MiB", "times as fast"]
    body = []
    for row in result.get("rows", [result]):
        share, memory = f"{row['share_of_matmul']:.0%}", f"{row['peak_memory_bytes'] / 2**20:.0f}"
        rate = f"{row['images_per_second']:.2f}"
        ours = ["ours", row["batch_size"], timing(row, unit), rate, share, memory]
        if "published" in row:
            ours.append(f"{row['ratio']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})")
            theirs = ["published", row["batch_size"], timing(row["published"], unit)]
        body += [ours, theirs] if "published" in row else [ours]
    print_table(header[: len(body[0])], body)


def timing(row: dict, unit: str) -> str:
    """Return a median with its spread, in milliseconds."""
    names = ("", "_min", "_max")
    median, least, most = (1000 * row[f"seconds_per_{unit}{name}"] for name in names)
    return f"{median:.1f} ({least:.1f}-{most:.1f})"


def print_table(header: list[str], body: list[tuple]) -> None:
    """Print a table of texts."""
    print(tabulate(body, header, colalign=("right",) * len(header), disable_numparse=True))


def main(options: argparse.Namespace) -> None:
    """Run one benchmark and print its figures."""
    check(options)
    if options.command == "thresholds":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each fit to few images says that they are few
            result = benchmark_thresholds(options) | {"machine": machine()}
        print(json.dumps(result, indent=2)) if options.json else print_thresholds(result)
        return
    warnings.filterwarnings("ignore", "This DataLoader will create")  # four, as published
    if options.command == "evaluation":
        result = benchmark_evaluation(options) | {"machine": machine()}
    else:
        compute = pick_compute(options)
        run = {"train": benchmark_training, "inference": benchmark_inference}[options.command]
        result = run(options, compute) | {"machine": machine(compute)}
    if options.json:
        print(json.dumps(result, indent=2))
    elif options.command == "evaluation":
        print_evaluation(result)
    else:
        print_networks(result)


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

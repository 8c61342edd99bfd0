"""Score any pictures with a trained detector: `python3 predict.py --help`."""

if __name__ == "__main__":
    from utils.startup import leave_when_interrupted

    leave_when_interrupted()

import argparse
import os
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from data.samples import InputError, noted, report_faults
from prediction.exported import is_exported, load_exported_detector
from prediction.inputs import Places, check_apart, check_results, find_images
from prediction.output import Output, predict_files
from prediction.predictor import Predictor, load_detector
from prediction.records import HEAD, Sink, csv_file, json_file, show
from utils.commands import printable, run_command, say
from utils.detectors import find_detector
from utils.files import user_path
from utils.interrupts import Interrupts
from utils.options import (
    Parser,
    add_false_alarm_option,
    add_machine_options,
    add_speed_options,
    check_positive,
)
from utils.recipe import check_false_alarm_rate

EXAMPLES = (
    "python3 predict.py output/trainings/folder/my_product new_images",
    "python3 predict.py detector.safetensors a.png b.jpg 'line3/*.png'",
    "python3 predict.py output new_images --false_alarm_rate 0.01 --pictures seen --csv seen.csv",
)
FOUND = 3  # exit code of --fail_on_anomaly
STDOUT = Path("-")


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser(
        "Score pictures with a trained detector; print a line for each: its verdict, score, "
        "p-value, and where it is strangest. Exit code: 0 done, 1 failed, 2 wrong option, or a "
        "picture that cannot be read, 3 with --fail_on_anomaly (also where 2 holds), 130 "
        "interrupted.",
        EXAMPLES,
        presets=False,
    )
    text = "a run's folder, an output folder with one run, a detector.safetensors, or detector.onnx"
    parser.add_argument("detector", type=user_path, metavar="DETECTOR", help=text)
    text = "files, folders with all that is below them, patterns such as 'line3/*.png'"
    parser.add_argument("images", nargs="+", metavar="IMAGES", help=text)
    group = parser.add_argument_group("output")
    group.add_argument("--csv", type=user_path, metavar="FILE", help="a row a picture")
    text = "a JSON object a picture, a line each; - is stdout, instead of the table"
    group.add_argument("--jsonl", type=user_path, metavar="FILE", help=text)
    text = "pictures with heat, contours and verdict, PNG"
    group.add_argument("--pictures", type=user_path, metavar="DIR", help=text)
    text = "anomaly maps, float32 TIFF of the picture's size"
    group.add_argument("--maps", type=user_path, metavar="DIR", help=text)
    add_false_alarm_option(parser)
    text = f"exit code {FOUND} when a picture is anomalous"
    parser.add_argument("--fail_on_anomaly", action="store_true", help=text)
    as_trained = "that of the training where the hardware can"
    add_machine_options(parser, workers=os.cpu_count(), auto=as_trained)
    add_speed_options(parser, trains=False)
    return parser


def prepare(options: argparse.Namespace, output: Output) -> Places:
    """Return the images that are meant. Raises one InputError with every fault."""
    faults = check_positive(options, "workers", "scoring_batch_size")
    faults += check_false_alarm_rate(options)
    if options.csv == STDOUT:
        faults.append("--csv -: name a file; --jsonl - writes to stdout")
    for option in ("maps", "pictures"):
        if folder := getattr(options, option):
            faults += check_apart(f"--{option}", folder, options.images)
    places: Places = {}
    with noted(faults):
        places = find_images(options.images)
    files = {name: getattr(options, name) for name in ("csv", "jsonl")}
    results = {name: [file] for name, file in files.items() if file not in (None, STDOUT)}
    faults += [
        f"--{name} {file} is there, and no file: name another"  # such as a device
        for name, (file,) in results.items()
        if file.exists() and not file.is_file()
    ]
    results |= output.results(places)
    with noted(faults):
        faults += check_results(results, [*places, find_detector(options.detector)])
    report_faults(faults)
    return places


def open_sinks(options: argparse.Namespace, predictor: Predictor, stack: ExitStack) -> list[Sink]:
    """Return what takes each prediction in turn; files are whole when `stack` closes."""
    sinks: list[Sink] = []
    if options.csv:
        experts = predictor.detector.experts if predictor.detector.statistics else ()
        sinks.append(stack.enter_context(csv_file(options.csv, experts)))
    if options.jsonl:
        path = None if options.jsonl == STDOUT else options.jsonl
        sinks.append(stack.enter_context(json_file(path)))
    if options.jsonl != STDOUT:
        print(HEAD)
        sinks.append(show)
    return sinks


def main(options: argparse.Namespace) -> int:
    """Score all pictures; those that cannot be read do not stop the others."""
    output = Output(options.maps, options.pictures)
    places = prepare(options, output)
    machine = ("device", "device_gpu", "precision", "compile", "scoring_batch_size")
    chosen = {name: getattr(options, name) for name in (*machine, "false_alarm_rate")}
    if is_exported(options.detector):
        predictor = load_exported_detector(options.detector, options)
    else:
        predictor = load_detector(options.detector, **chosen)
    unreadable: dict[Path, str] = {}
    done = anomalous = 0
    failure: Exception | None = None
    with Interrupts() as interrupts, ExitStack() as stack:
        sinks = open_sinks(options, predictor, stack)
        try:
            predictions = predict_files(predictor, places, output, options.workers, unreadable)
            with closing(predictions):
                for prediction in predictions:
                    for sink in sinks:
                        sink(prediction)
                    done += 1
                    anomalous += prediction.anomalous
                    if interrupts.requested:
                        break
        except Exception as error:  # the rows so far are whole, and kept
            failure = error
    if failure:
        raise failure
    for fault in sorted(unreadable.values()):
        say(f"error: {printable(fault)}")
    if interrupts.requested:
        raise KeyboardInterrupt(f" after {done} of {len(places)}; what was written is whole")
    if not done:
        raise InputError("no picture could be read")
    rate = predictor.false_alarm_rate
    promise = f"; of good ones at most {100 * rate:.3g} % are called so" if rate else ""
    say(f"{done} pictures, {anomalous} anomalous{promise}")
    if options.fail_on_anomaly and anomalous:
        return FOUND
    return 2 if unreadable else 0


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

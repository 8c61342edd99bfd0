"""Score any pictures with a trained detector: `python3 predict.py --help`."""

if __name__ == "__main__":
    from utils.startup import leave_when_interrupted

    leave_when_interrupted()

import argparse
import os
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from data.ignored import read_region
from data.samples import InputError, noted, report_faults
from prediction.changes import follow
from prediction.cluster_options import add_cluster_options, check_here, place
from prediction.exported_files import add_exported_options
from prediction.inputs import Places, check_apart, check_results, check_source, find_images
from prediction.journal import FILES, journal_file, open_journal
from prediction.output import Output
from prediction.predictor import load_detector
from prediction.records import HEAD, Sink, columns_of, csv_file, json_file, show
from prediction.sources import Source, open_source
from prediction.verdicts import Predictor, Tally
from scoring.drift import LEVEL, Drift
from utils.commands import printable, run_command, say
from utils.detectors import find_detector
from utils.files import user_path
from utils.ignoring import add_ignore_option
from utils.interrupts import Interrupts
from utils.options import (
    Parser,
    add_detector_argument,
    add_false_alarm_option,
    add_machine_options,
    add_speed_options,
    check_positive,
)
from utils.recipe import check_false_alarm_rate
from utils.storage import is_url

EXAMPLES = (
    "python3 predict.py output/trainings/folder/my_product new_images",
    "python3 predict.py detector.safetensors a.png b.jpg 'line3/*.png'",
    "python3 predict.py output new_images --false_alarm_rate 0.01 --pictures seen --csv seen.csv",
    "python3 predict.py output --watch incoming --csv incoming.csv",
    "python3 predict.py output --video line.mp4 --every 5 --drift",
    "python3 predict.py output --camera 0 --jsonl -",
    "python3 predict.py output new_images --ray local --csv rows",
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
    add_detector_argument(parser, more=", or what export.py wrote")
    text = "files, folders with all that is below them, patterns such as 'line3/*.png'"
    parser.add_argument("images", nargs="*", default=[], metavar="IMAGES", help=text)
    group = parser.add_argument_group("instead of IMAGES")
    text = (
        "what arrives in a folder and below, until Ctrl-C; with --csv or --jsonl FILE, which are "
        "appended to, each picture once, however often it is started; else all at each start"
    )
    group.add_argument("--watch", type=user_path, metavar="FOLDER", help=text)
    group.add_argument("--video", type=user_path, metavar="FILE", help="a video's frames, in order")
    text = "a camera's newest frame, again and again, until Ctrl-C: a number, or a URL (rtsp://…)"
    group.add_argument("--camera", metavar="N|URL", help=text)
    text = "of a video or camera, every Nth frame"
    group.add_argument("--every", type=int, default=1, metavar="N", help=text)
    group = parser.add_argument_group("output")
    group.add_argument("--csv", type=place, metavar="FILE", help="a row a picture")
    text = "a JSON object a picture, a line each; - is stdout, instead of the table"
    group.add_argument("--jsonl", type=user_path, metavar="FILE", help=text)
    text = "pictures with heat, contours and verdict, PNG"
    group.add_argument("--pictures", type=user_path, metavar="DIR", help=text)
    text = "anomaly maps, float32 TIFF of the picture's size"
    group.add_argument("--maps", type=user_path, metavar="DIR", help=text)
    add_false_alarm_option(parser)
    add_ignore_option(parser, ", beside what the detector ignores already")
    text = f"say when pictures, each of another piece, change; falsely with this chance ({LEVEL})"
    parser.add_argument("--drift", type=level, nargs="?", const=LEVEL, metavar="LEVEL", help=text)
    text = f"exit code {FOUND} when a picture is anomalous"
    parser.add_argument("--fail_on_anomaly", action="store_true", help=text)
    as_trained = "that of the training where the hardware can"
    add_machine_options(parser, workers=os.cpu_count(), auto=as_trained)
    add_exported_options(parser)
    add_speed_options(parser, trains=False)
    add_cluster_options(parser)
    return parser


def level(text: str) -> float:
    """Read --drift's level: an image behind it would be taken for one."""
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no level: put --drift last") from error


def prepare(options: argparse.Namespace, output: Output) -> Source:
    """Return what is to be scored. Raises one InputError with every fault."""
    faults = check_positive(options, "workers", "scoring_batch_size", "every")
    faults += check_false_alarm_rate(options) + check_source(options) + check_here(options)
    if options.drift is not None and not 0 < options.drift < 1:
        faults.append(f"--drift must be above 0 and below 1, not {options.drift}")
    if options.csv == STDOUT:
        faults.append("--csv -: name a file; --jsonl - writes to stdout")
    rows = row_files(options)
    written = {name: getattr(options, name) for name in ("maps", "pictures")}
    written |= rows if options.watch else {}  # what is watched is only read
    for name, path in written.items():
        if path:
            sources = [*options.images, *filter(None, [options.watch])]
            faults += check_apart(f"--{name}", path, sources)
    if options.ignore:
        with noted(faults):
            read_region(options.ignore)
    places: Places = {}
    if paths := [name for name in options.images if not is_url(name)]:
        with noted(faults):
            places = find_images(paths)
    results = {name: [file] for name, file in rows.items()}
    faults += [
        f"--{name} {file} is there, and no file: name another"  # such as a device
        for name, (file,) in results.items()
        if file.exists() and not file.is_file()
    ]
    if not options.watch:
        faults += [
            f"--{name} {file} has a journal of a --watch, which appends to it: name another"
            for name, file in rows.items()
            if journal_file({name: file}).exists()
        ]
    results |= output.results(places)
    if options.watch and rows:
        results["watch"] = [journal_file(rows)]
    kept = [*places, *filter(None, [options.video, options.ignore])]
    with noted(faults):
        faults += check_results(results, [*kept, find_detector(options.detector)])
    report_faults(faults)
    return open_source(options, places)


def row_files(options: argparse.Namespace) -> dict[str, Path]:
    """Return the files of rows by their options."""
    files = {name: getattr(options, name) for name in FILES}
    return {name: file for name, file in files.items() if isinstance(file, Path) and file != STDOUT}


def open_sinks(
    options: argparse.Namespace, source: Source, columns: tuple[str, ...], stack: ExitStack
) -> list[Sink]:
    """Return what takes each prediction in turn; files are whole when `stack` closes."""
    sinks: list[Sink] = []
    files = row_files(options)
    if options.watch:
        source.journal = stack.enter_context(open_journal(files, columns))
        sinks, files = [source.journal.write], {}
    if "csv" in files:
        sinks.append(stack.enter_context(csv_file(options.csv, columns)))
    if "jsonl" in files or options.jsonl == STDOUT:
        sinks.append(stack.enter_context(json_file(files.get("jsonl"))))
    if options.jsonl != STDOUT:
        print(HEAD)
        sinks.append(show)
    return sinks


def main(options: argparse.Namespace) -> int:
    """Score all that is meant; what cannot be read does not stop the others."""
    if options.ray:
        from prediction.at_scale import predict_at_scale  # here: who has no cluster starts sooner

        return conclude(options, *predict_at_scale(options))
    output = Output(options.maps, options.pictures)
    source = prepare(options, output)
    names = ("device", "device_gpu", "precision", "compile", "scoring_batch_size", "runtime")
    names += ("trusted", "false_alarm_rate", "ignore")
    chosen = {name: getattr(options, name) for name in names}
    predictor = load_detector(options.detector, **chosen)
    columns = columns_of(predictor, bool(options.drift))
    done = anomalous = 0
    failure: Exception | None = None
    with Interrupts() as interrupts, ExitStack() as stack:
        sinks = open_sinks(options, source, columns, stack)
        predictions = source.predictions(predictor, output, options.workers, interrupts)
        if options.drift:
            predictions = follow(predictions, Drift(options.drift))
        try:
            with closing(predictions):
                for prediction in predictions:
                    for sink in sinks:
                        sink(prediction)
                    done += 1
                    anomalous += prediction.anomalous
                    if interrupts.requested and not source.endless:  # which ends itself
                        break
        except Exception as error:  # the rows so far are whole, and kept
            failure = error
    if failure:
        raise failure
    for text in source.conclusion(done):
        say(printable(text))
    if interrupts.requested and not source.endless:
        of_all = f" of {source.promised}" if source.promised else ""
        raise KeyboardInterrupt(f" after {done}{of_all}; what was written is whole")
    if not (done or source.endless):
        raise InputError("no picture could be read")
    return conclude(options, Tally(done, anomalous, source.unreadable), predictor)


def conclude(options: argparse.Namespace, tally: Tally, predictor: Predictor) -> int:
    """Say how many pictures there were, and what that promises; return the exit code."""
    done, anomalous, unreadable = tally
    rate = predictor.false_alarm_rate
    promise = f"; of good ones at most {100 * rate:.3g} % are called so" if rate else ""
    lost = f", {unreadable} could not be read" if unreadable else ""
    say(f"{done} picture{'s' * (done != 1)}, {anomalous} anomalous{lost}{promise}")
    if options.fail_on_anomaly and anomalous:
        return FOUND
    return 2 if unreadable else 0


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

"""Take more good images into a trained detector: `python3 calibrate.py --help`."""

if __name__ == "__main__":
    from utils.startup import leave_when_interrupted

    leave_when_interrupted()

import argparse
import os
import shlex
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from data.ignored import read_region
from data.samples import InputError, noted, report_faults
from models.detector import Detector
from prediction.exported_files import check_trained
from prediction.inputs import find_images
from scoring.calibration import decode_images
from scoring.learning import Learnt, learn
from scoring.thresholds import good_scores, promised_rate, set_thresholds
from utils.commands import printable, run_command
from utils.detectors import Trained, find_detector, keep_former, read_detector, save_detector
from utils.devices import Compute, as_trained, pick_compute
from utils.files import locked_folder, remove_parts, user_path, written_aside
from utils.ignoring import add_ignore_option, ignore_more
from utils.known_images import check_no_tests, fingerprints_of, unknown_images
from utils.options import (
    Parser,
    add_detector_argument,
    add_false_alarm_option,
    add_machine_options,
    add_speed_options,
    check_positive,
)
from utils.recipe import check_false_alarm_rate
from utils.runs import Run, run_around

EXAMPLES = (
    "python3 calibrate.py output/trainings/folder/my_product more_good",
    "python3 calibrate.py detector.safetensors a.png 'line3/*.png' --out better.safetensors",
    "python3 calibrate.py output --ignore region.png",
)


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser(
        "Take more good images into a trained detector, without training and without the images "
        "that it was trained on: such as those that raised a false alarm. The detector as it was "
        "is kept beside the new one.",
        EXAMPLES,
        presets=False,
    )
    add_detector_argument(parser, "RUN")
    text = "good images: files, folders with all that is below them, patterns"
    parser.add_argument("images", nargs="*", default=[], metavar="IMAGES", help=text)
    text = "write the new detector there, and leave RUN's as it is"
    parser.add_argument("--out", type=user_path, metavar="FILE", help=text)
    add_false_alarm_option(parser)
    add_ignore_option(parser, ", from now on beside what the detector ignores already")
    trained = "that of the training where the hardware can"
    add_machine_options(parser, workers=os.cpu_count(), auto=trained)
    add_speed_options(parser, trains=False)
    return parser


class Work(NamedTuple):
    """What is to learn from what. `run` is where the detector lies, if that is in one."""

    file: Path
    run: Run | None
    images: list[Path]


def prepare(options: argparse.Namespace) -> Work:
    """Return what there is to do. Raises one InputError with every fault."""
    faults = check_positive(options, "workers", "scoring_batch_size")
    faults += check_false_alarm_rate(options)
    if options.out and os.path.lexists(options.out):
        faults.append(f"--out {options.out} is there: name another")
    file, images = options.detector, []
    with noted(faults):
        check_trained(options.detector)
        file = find_detector(options.detector).resolve()  # what a link leads to is replaced
    if not (options.images or options.ignore or options.false_alarm_rate):
        faults.append("give IMAGES to take in, --ignore, or --false_alarm_rate")
    with noted(faults):
        images = [*find_images(options.images)] if options.images else []
    with noted(faults):
        if options.ignore:
            read_region(options.ignore)
    report_faults(faults)
    return Work(file, run_around(file), images)


def take_in(
    work: Work, trained: Trained, compute: Compute, options: argparse.Namespace
) -> list[Path]:
    """Let the detector learn from those images that are new to it; return them, [] if none is.

    Raises InputError, before anything is learnt, with every image that cannot be read.
    """
    detector, about, unreadable = trained.detector, trained.about, {}
    found = fingerprints_of(work.images, options.workers, unreadable)
    new = unknown_images(found, about.get("taken_in", []), work.run)
    paths, how = [*new.values()], (trained.size, options.workers, int(detector.bits))
    images, sizes = decode_images(paths, *how, unreadable)
    report_faults([unreadable[path] for path in work.images if path in unreadable])
    if work.run:
        check_no_tests({path: found[path] for path in paths}, work.run, options.workers)
    was, rate = state(detector), options.false_alarm_rate or detector.recipe.false_alarm_rate
    detector.recipe = replace(detector.recipe, false_alarm_rate=rate)
    about["false_alarm_rate"], about["taken_in"] = rate, [*about.get("taken_in", []), *new]
    if new:
        learnt = learn(compute.place(detector), images, sizes, rate, compute)
        show(was, state(detector), learnt, paths)
    else:
        set_thresholds(detector, rate)
    return paths


def state(detector: Detector) -> dict[str, float]:
    """Return what calibration changes, as numbers that a table shows."""
    return {
        "held-out good images": detector.good_scores.shape[1],
        "false alarms at most, %": 100 * promised_rate(good_scores(detector), detector.threshold),
        "threshold": detector.threshold.item(),
        "the map's threshold": detector.map_threshold.item(),
    }


def show(was: dict[str, float], now: dict[str, float], learnt: Learnt, paths: list[Path]) -> None:
    """Print what has changed, and what was found in the new images."""
    alarms = {
        name: int((scores > of["threshold"]).sum())
        for name, scores, of in (("was", learnt.before, was), ("now", learnt.held_out, now))
    }
    rows = [(name, was[name], now[name]) for name in was]
    rows.append((f"alarms of the {len(paths)} new", alarms["was"], alarms["now"]))
    print(tabulate(rows, ("", "before", "now"), floatfmt=".4g"))
    strangest = int(learnt.held_out.argmax())
    score = f"score {learnt.held_out[strangest]:.4g} while held out"
    print(f"strangest of the new: {printable(paths[strangest])}, {score}")
    print("the promise holds if these are all the good pictures of a time, not those that alarmed")


def main(options: argparse.Namespace) -> int:
    """Learn from the images, write the new detector, keep the old one."""
    work, compute = prepare(options), pick_compute(options)
    in_place = work.run and not options.out
    with locked_folder(work.file.parent, "--out") if in_place else nullcontext():
        remove_parts(work.file.parent.glob(f".*{work.file.name}.*.part"))
        trained = read_detector(work.file, compute.device)
        compute = as_trained(compute, options.precision, trained.precision)
        if not trained.detector.good_scores.numel():
            text = "of an earlier version, which kept no good images' scores: train it again"
            raise InputError(f"{work.file} is {text} with --overwrite")
        changed = bool(options.ignore) and ignore_more(trained, options.ignore)
        changed |= options.false_alarm_rate not in (None, trained.detector.recipe.false_alarm_rate)
        if not (take_in(work, trained, compute, options) or changed):
            print(f"nothing to change: {printable(work.file)} is as it was")
            return 0
        with written_aside(options.out or work.file) as aside:
            save_detector(trained.detector, aside, trained.about)
            undo = None if options.out else ["mv", str(keep_former(work.file)), str(work.file)]
    back = f"; back to the one before: {printable(shlex.join(undo))}" if undo else ""
    print(f"wrote {printable(options.out or work.file)}{back}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

"""Write a trained detector as one file for other runtimes: `python3 export.py --help`."""

if __name__ == "__main__":
    from utils.startup import leave_when_interrupted

    leave_when_interrupted()

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from data.samples import InputError, noted, report_faults
from deployment.description import MOST_SIDE, Description
from deployment.formats import FORMATS
from deployment.graph import ScoringGraph
from deployment.quantisation import Good, check_nncf
from deployment.runtimes import load_exported
from deployment.torch_file import check_compiler
from prediction.agreement import GOALS, compare
from prediction.exported_files import check_trained
from prediction.inputs import find_images
from prediction.predictor import TrainedPredictor, load_detector
from utils.commands import run_command, say
from utils.detectors import find_detector
from utils.files import user_path
from utils.labelling import load_test_set
from utils.options import (
    Parser,
    add_detector_argument,
    add_false_alarm_option,
    add_path_options,
)
from utils.recipe import check_false_alarm_rate
from utils.runs import run_around

EXAMPLES = (
    "python3 export.py output/trainings/folder/my_product --format onnx --check",
    "python3 export.py detector.safetensors --check new_images --out deployed",
)
PRECISIONS = ("fp32", "bf16", "int8")


class Plan(NamedTuple):
    """What is to be done."""

    files: dict[str, Path]  # of each format
    images: list[Path]  # to compare on
    good: Good | None  # images for a quantisation


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser(
        "Write a trained detector as one file for other runtimes: from an image's bytes to its "
        "score, p-value, verdict and map. Exit code: 0 done, 1 failed, or --check found too large "
        "a difference, 2 wrong option or input.",
        EXAMPLES,
        presets=False,
    )
    add_detector_argument(parser)
    text = "; ".join(f"{name}: for {kind.runtimes}" for name, kind in FORMATS.items())
    text += "; several may be named"
    choices = {"nargs": "+", "choices": FORMATS, "default": ["onnx"]}
    parser.add_argument("--format", **choices, help=text)
    text = "of the networks"
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help=text)
    text = "a smaller graph, for images that have the detector's size already"
    parser.add_argument("--without_resize", action="store_true", help=text)
    text = "for images of this size alone, such as a camera's; default: any"
    sides = {"type": int, "nargs": 2, "metavar": ("HEIGHT", "WIDTH")}
    parser.add_argument("--fixed_size", **sides, help=text)
    text = "with --format torch: machine code for processors such as this one, or for its GPU"
    kinds = {"choices": ("cpu", "cuda"), "const": "cpu", "default": ""}
    parser.add_argument("--compiled", nargs="?", **kinds, help=text)
    text = "folder of the file; default: output/exports/<dataset>/<category>, or the detector's own"
    parser.add_argument("--out", type=user_path, metavar="DIR", help=text)
    add_false_alarm_option(parser)
    text = "compare the file with the detector on IMAGES; none: the run's test images"
    parser.add_argument("--check", nargs="*", metavar="IMAGES", help=text)
    add_path_options(parser.add_argument_group("where the run's images are, if they were moved"))
    return parser


def prepare(options: argparse.Namespace) -> Plan:
    """Return what is to be done. Raises one InputError with every fault."""
    faults, plan = check_false_alarm_rate(options) + check_size(options), None
    formats = [*dict.fromkeys(options.format)]
    for name in formats:
        kind = FORMATS[name]
        if options.precision not in kind.precisions:
            known = ", ".join(kind.precisions)
            faults.append(f"--format {name} is written in {known}, not in {options.precision}")
        with noted(faults):
            kind.check()
    if options.out and options.out.exists() and not options.out.is_dir():
        faults.append(f"--out {options.out} is no folder: name another")
    if options.compiled and formats != ["torch"]:
        faults.append("--compiled is for --format torch alone: export the others without it")
    elif options.compiled:
        with noted(faults):
            check_compiler(options.compiled)
    if options.precision == "int8":
        with noted(faults):
            check_nncf()
    with noted(faults):
        plan = look_up(options, formats)
    report_faults(faults)
    return plan


def look_up(options: argparse.Namespace, formats: list[str]) -> Plan:
    """Return the plan for a detector. Raises InputError where it, or images of its run, lack."""
    check_trained(options.detector)
    detector = find_detector(options.detector)
    run, good, images = run_around(detector), None, []
    if options.precision == "int8" and run is None:
        raise InputError(
            f"--precision int8 needs good images: name a run's folder, not {detector} alone"
        )
    stored = argparse.Namespace(**vars(options), unlabelled=None, labelled=None)
    if run and options.precision != "fp32" and "openvino" in formats:
        category = load_test_set(run, stored)[0]
        good = Good(*([s.image for s in of] for of in (category.train, category.validation)))
    if options.check:
        images = [*find_images(options.check)]
    elif options.check is not None:
        images = [s.image for s in load_test_set(run, stored)[0].scored] if run else []
        if not images:
            raise InputError(f"--check: {detector} has no test images here: name some")
    folder = options.out or (run.exports_folder if run else detector.parent)
    files = {name: folder / f"{stem_of(options)}{FORMATS[name].suffix}" for name in formats}
    return Plan(files, images, good)


def check_size(options: argparse.Namespace) -> list[str]:
    """Return what is wrong with the size of images that is asked for."""
    if options.fixed_size is None:
        return []
    faults = ["--fixed_size and --without_resize exclude each other"] * options.without_resize
    if not all(0 < side <= MOST_SIDE for side in options.fixed_size):
        faults.append(f"--fixed_size: a side must be of 1 to {MOST_SIDE} pixels")
    return faults


def stem_of(options: argparse.Namespace) -> str:
    """Return a file's name without its suffix: what it is, where that is not the usual."""
    parts = ["without_resize"] if options.without_resize else []
    parts += ["{}x{}".format(*options.fixed_size)] if options.fixed_size else []
    parts += [options.precision] if options.precision != "fp32" else []
    parts += {"": [], "cpu": ["compiled"], "cuda": ["compiled_cuda"]}[options.compiled]
    return "_".join(["detector", *parts])


def describe(
    predictor: TrainedPredictor, graph: ScoringGraph, options: argparse.Namespace
) -> Description:
    """Return what the file is to say of itself. Raises InputError for what cannot say it."""
    detector, about = predictor.detector, predictor.about
    if predictor.false_alarm_rate is None:
        raise InputError(
            f"{options.detector} is of an earlier version, which kept no good images' scores: "
            "train it again with --overwrite"
        )
    return Description(
        predictor.size,
        graph.resizes,
        detector.experts if detector.statistics else (),
        int(detector.bits),
        predictor.threshold,
        predictor.map_threshold,
        predictor.false_alarm_rate,
        tuple(detector.good_scores[0].tolist()),
        options.precision,
        about.get("dataset", ""),
        about.get("subdataset", ""),
        about.get("version", ""),
        graph.fixed_size,
        options.compiled,
    )


def main(options: argparse.Namespace) -> int:
    """Write each file; compare it with the detector if that is asked for.

    A format that cannot hold the detector does not stop the others.
    """
    plan = prepare(options)
    rate = options.false_alarm_rate
    predictor = load_detector(options.detector, "cpu", "fp32", rate)
    fixed = options.fixed_size and tuple(options.fixed_size)
    resizes = not options.without_resize
    graph = ScoringGraph(predictor.detector, predictor.size, resizes, fixed).eval()
    description = describe(predictor, graph, options)
    close, faults = True, []
    for name, path in plan.files.items():
        with noted(faults):
            FORMATS[name].write(graph, description, path, plan.good)
            files = [path, path.with_suffix(".bin")] if name == "openvino" else [path]
            size = sum(file.stat().st_size for file in files)
            say(f"wrote {path}: {size / 1e6:.1f} MB")
            if plan.images:
                close &= check(predictor, path, plan.images)
    report_faults(faults)
    return 0 if close else 1


def check(predictor: TrainedPredictor, path: Path, images: list[Path]) -> bool:
    """Print how far a file is from its detector; return whether that is close."""
    exported = load_exported(path, trusted=True)  # it is our own
    found, goals = compare(predictor, exported, images), GOALS[exported.description.precision]
    print(f"file              {path}")
    print(f"images            {found.images}")
    print(f"score differs by  {found.score:.2g} of good images' spread (goal {goals.score:g})")
    print(f"map differs by    {found.anomaly_map:.2g} (goal {goals.anomaly_map:g})")
    goal = f" (goal {goals.verdicts})" if goals.verdicts < len(images) else ""
    print(f"other verdicts    {found.verdicts}{goal}")
    return found.is_close(goals)


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

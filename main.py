"""Train, calibrate and evaluate one category: `python3 main.py --help`."""

if __name__ == "__main__":
    from utils.startup import leave_when_interrupted

    leave_when_interrupted()

import argparse
import sys
from contextlib import ExitStack
from dataclasses import replace

from data.fingerprints import fingerprint
from evaluation.evaluation import evaluate, tell_result
from evaluation.pictures import draw_cases
from evaluation.tables import print_tables, tables, write_csv
from models.detector import Detector
from reporting.writing import report_of
from scoring.calibration import calibrate, decode_images
from scoring.fitting import HeldOut, fit_statistics
from scoring.good_images import GoodImages
from scoring.thresholds import strangest
from training.beginning import begin
from training.features import describe_training_images
from training.loop import fit
from training.preparation import NO_PENALTY, Prepared, prepare
from training.ready import ready_text
from utils.commands import exit_code, printable, resumable, run_command, say
from utils.devices import seed_everything
from utils.files import user_path
from utils.ignoring import add_ignore_option
from utils.labelling import add_labelling_options
from utils.options import (
    Parser,
    add_config_option,
    add_dataset_options,
    add_experts_option,
    add_machine_options,
    add_model_options,
    add_run_options,
    add_speed_options,
    image_size,
    resolved,
)
from utils.recipe import add_recipe_options
from utils.teachers import teacher_name
from utils.version import project_version

EXAMPLES = (
    "python3 main.py --mvtec_ad_path path/mvtec_ad --subdataset bottle --model_size small",
    "python3 main.py --dataset folder --folder_path ./my_product --model_size small --check",
)


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("Train, calibrate and evaluate one category.", EXAMPLES)
    add_dataset_options(parser)
    add_labelling_options(parser)
    add_model_options(parser)
    add_experts_option(parser)
    add_ignore_option(parser)
    group = parser.add_argument_group("training")
    group.add_argument(
        "--weights",
        type=teacher_name,
        metavar="{small,medium,FILE}",
        help="the teacher: one that ships, or a file; default: the one of --model_size",
    )
    text = "natural images for the penalty"
    group.add_argument("--imagenet_train_path", type=user_path, help=text)
    group.add_argument(
        "--train_steps", type=int, default=65_000, help="of the networks; 0: statistics alone"
    )
    group.add_argument("--batch_size", type=int, default=1, help="images a step")
    group.add_argument("--seed", type=int, default=0, help="of weights, order and jitter")
    add_recipe_options(parser)
    add_machine_options(parser)
    add_speed_options(parser)
    add_run_options(parser)
    add_config_option(parser)
    return parser


def train(prepared: Prepared, options: argparse.Namespace) -> None:
    """Train and calibrate the category's detector and write it."""
    run, compute, size = prepared.run, prepared.compute, image_size(options)
    if not (options.resume and run.checkpoint_file.exists()):
        run.clear()
        if prepared.natural is None and options.train_steps and not options.ridge:
            say(NO_PENALTY)
    run.write_config(resolved(options) | {"version": project_version()})
    if not run.images_file.exists():
        run.write_images(fingerprint(prepared.category, options.workers))
    seed_everything(options.seed)
    detector, images = begin(prepared, options)
    features = describe_training_images(detector, images, compute, options.feature_memory)
    validation, held_out = [sample.image for sample in prepared.category.validation], None
    if detector.statistics:
        more, _ = decode_images(validation, size, options.workers, int(detector.bits))
        parts = [(images, features), (detector.view.filled(more), None)]
        held_out = fit_statistics(detector, GoodImages(detector, compute, parts))
    if detector.networks():
        if held_out and prepared.category.scored and not run.checkpoint_file.exists():
            show_statistics(prepared, detector, held_out, options)
        fit(detector, images, features, prepared.natural, run, options, compute)
    del images, features  # gigabytes that calibration does not need
    good = calibrate(detector, validation, size, options.workers, compute, held_out)
    others = [] if detector.networks() else [s.image for s in prepared.category.train]
    say(printable(strangest(others + validation, good, detector.threshold.item())))
    run.save_detector(detector, options.model, options.model_size, size, compute.precision)


def show_statistics(
    prepared: Prepared, detector: Detector, held_out: HeldOut, options: argparse.Namespace
) -> None:
    """Print on stderr what the statistics alone reach: the number that a training has to beat."""
    alone, category = detector.without_networks(), prepared.category
    size, compute = image_size(options), prepared.compute
    calibrate(alone, [], size, options.workers, compute, held_out)
    how = (size, options.workers, options.seed, compute)
    metrics = evaluate(prepared.run, alone, category, *how, keep=False)
    text = tables([{options.dataset: {category.name: metrics}}], "simple")
    say(f"the statistics alone, before any training:\n{text}")


def test(prepared: Prepared, options: argparse.Namespace) -> dict:
    """Evaluate the category's detector; return its metrics."""
    run, compute, category = prepared.run, prepared.compute, prepared.category
    detector, size, _ = run.load_detector(compute.device)
    return evaluate(run, detector, category, size, options.workers, options.seed, compute)


def main(options: argparse.Namespace) -> int:
    """Train one category, evaluate it, print its row."""
    with ExitStack() as locks:
        try:
            prepared = prepare(options, locks)
        except KeyboardInterrupt as interrupt:
            text = "; nothing has changed: the same command begins again"
            raise KeyboardInterrupt(text) from interrupt
        run, category = prepared.run, prepared.category
        if options.check:
            print(ready_text(prepared, options))
            return 0
        with resumable(run.has_begun):
            if prepared.images is not None:
                train(prepared, options)
            metrics = test(prepared, options) if category.scored else None
            if run.replacement:
                run.take_over()
    run = replace(run, replacement=False)
    if metrics is None:
        print(f"{run.detector_file} is trained; there are no test images to evaluate it on")
        return 0
    write_csv(options.output_dir)
    tell_result(category, run, metrics)
    if options.dataset == "demo":
        picture, threshold = options.output_dir / "demo.png", metrics["glae"]["map_threshold"]
        draw_cases(category, run.maps_folder, run.results_file, threshold, picture)
    print_tables([{options.dataset: {category.name: metrics}}], "simple")
    code = exit_code(metrics["glae"]["unreadable"])
    output = options.output_dir
    return max(code, report_of([output], output, options)) if options.report else code


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

"""Train, calibrate and evaluate one category: `python3 main.py --help`."""

if __name__ == "__main__":
    from utils.startup import leave_when_interrupted

    leave_when_interrupted()

import argparse
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from data.catalog import DATASETS, find_root, survey_category
from data.natural import Files, find_natural_images
from data.samples import Category, InputError, noted, report_faults
from data.shards import Shards
from evaluation.evaluation import evaluate
from evaluation.pictures import draw_cases
from evaluation.tables import print_tables, write_csv
from models.detector import build_detector, empty_detector
from scoring.calibration import calibrate
from training.checkpoints import check_checkpoint
from training.features import describe_training_images
from training.loop import fit
from training.preparation import folder_faults, natural_faults, read_images, room_faults
from utils.commands import resumable, run_command
from utils.devices import Compute, pick_compute, seed_everything
from utils.options import (
    Parser,
    add_checkpoint_option,
    add_config_option,
    add_dataset_options,
    add_machine_options,
    add_model_options,
    add_speed_options,
    check_image_size,
    check_not_negative,
    check_positive,
    dataset_path,
    image_size,
    resolved,
)
from utils.runs import Run
from utils.teachers import find_teacher, load_teacher, teacher_name

# Options that may differ when a run is resumed: where things lie, what computes. The checkpoint
# knows its teacher.
MAY_CHANGE = {"workers", "device", "device_gpu", "output_dir", "weights", "imagenet_train_path"}
MAY_CHANGE |= {"compile", "memory_format", "scoring_batch_size", "feature_memory"}
MAY_CHANGE |= {"checkpoint_every"}
MAY_CHANGE |= {dataset.option for dataset in DATASETS.values()}


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("Train, calibrate and evaluate one category.")
    add_dataset_options(parser)
    add_model_options(parser)
    group = parser.add_argument_group("training")
    group.add_argument(
        "--weights",
        type=teacher_name,
        metavar="{small,medium,FILE}",
        help="the teacher: one that ships, or a file; default: the one of --model_size",
    )
    group.add_argument("--imagenet_train_path", type=Path, help="natural images for the penalty")
    group.add_argument("--train_steps", type=int, default=65_000, help="batches to train on")
    group.add_argument("--batch_size", type=int, default=1, help="images a step")
    group.add_argument("--seed", type=int, default=0, help="of weights, order and jitter")
    add_machine_options(parser)
    add_speed_options(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--output_dir", type=Path, default=Path("output"))
    add_checkpoint_option(group, "1m")
    group.add_argument("--resume", action="store_true", help="go on where the run was stopped")
    group.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    text = "read all that the run needs, report every fault, compute nothing"
    group.add_argument("--check", action="store_true", help=text)
    add_config_option(parser)
    return parser


def check(options: argparse.Namespace) -> None:
    """Raise one InputError with every fault that the options alone show."""
    faults = check_positive(options, "train_steps", "batch_size", "workers", "scoring_batch_size")
    faults += check_image_size(options) + check_not_negative(options, "seed", "feature_memory")
    if options.resume and options.overwrite:
        faults.append("--resume and --overwrite exclude each other")
    report_faults(faults)


@dataclass
class Prepared:
    """What a run needs, found to be there. `images` are for training, uint8 (N, 3, H, W)."""

    run: Run
    compute: Compute
    teacher: nn.Module
    category: Category
    natural: Files | Shards | None
    images: torch.Tensor | None


def get_teacher(options: argparse.Namespace) -> nn.Module:
    """Load the teacher, settle --weights and --model_size."""
    options.weights = options.weights or options.model_size or "medium"
    teacher, options.model_size = load_teacher(find_teacher(options.weights), options.model_size)
    return teacher


def get_compute(options: argparse.Namespace) -> Compute:
    """Find the device, settle --precision."""
    compute = pick_compute(options)
    options.precision = compute.precision
    return compute


def get_category(options: argparse.Namespace) -> Category:
    """Find the category's files, settle its name and path."""
    root = find_root(options.dataset, dataset_path(options, options.dataset))
    category = survey_category(options.dataset, root, options.subdataset, options.seed)
    options.subdataset = category.name
    if DATASETS[options.dataset].option:
        setattr(options, DATASETS[options.dataset].option, root)
    return category


def get_natural_images(options: argparse.Namespace) -> Files | Shards | None:
    """Find the penalty's images; without any, say what that is known to cost."""
    if options.imagenet_train_path:
        return find_natural_images(options.imagenet_train_path)
    print(
        "no --imagenet_train_path: training without the penalty, which is reported to cost "
        "2 to 5 points of AUROC on MVTec LOCO",
        file=sys.stderr,
    )
    return None


def prepare(options: argparse.Namespace, locks: ExitStack) -> Prepared:
    """Read all that the run needs, and keep other processes out of its folder until `locks` closes.

    Raises one InputError with every fault of all that.
    """
    faults: list[str] = []
    compute = teacher = category = natural = images = None
    with noted(faults):
        check(options)
    sound = not faults  # so that networks and images of that size can be made
    with noted(faults):
        compute = get_compute(options)
    with noted(faults):
        teacher = get_teacher(options)
    with noted(faults):
        natural = get_natural_images(options)
        faults += natural_faults(natural)
    with noted(faults):
        category = get_category(options)
    run = Run(options.output_dir, options.dataset, category.name if category else "any")
    faults += folder_faults(run)
    if category is None:
        raise InputError(*faults)
    faults += category.faults
    if run.folder.is_dir() or not (faults or options.check):
        with noted(faults):
            locks.enter_context(run.locked())
            if not options.check:
                run.finish_take_over()
    with noted(faults):
        run = choose(run, options)
        if sound and compute and teacher:
            check_stored(run, category, teacher, options)
    trains = options.overwrite or not run.detector_file.exists()
    if trains or options.check:
        kept = None if faults or options.check else image_size(options)
        images, unfit = read_images(category, kept, options.workers)
        faults += unfit
    report_faults(faults)
    return Prepared(run, compute, teacher, category, natural, images)


def check_stored(
    run: Run, category: Category, teacher: nn.Module, options: argparse.Namespace
) -> None:
    """Raise InputError when what is stored does not suit these options, or more cannot be."""
    faults: list[str] = []
    begun = run.replacement or run.checkpoint_file.exists() or run.detector_file.exists()
    if options.resume and begun:
        with noted(faults):
            check_unchanged(run.read_config(), resolved(options))
    empty = empty_detector(options.model, options.model_size, image_size(options))
    faults += room_faults(run, category, empty, options.overwrite)
    if options.resume:
        with noted(faults):
            check_checkpoint(run, empty, teacher, options.train_steps)
        with noted(faults):
            if run.detector_file.exists():
                run.load_detector(torch.device("cpu"))
    report_faults(faults)


def choose(run: Run, options: argparse.Namespace) -> Run:
    """Return the run to work on: `run`, or its replacement while it holds an earlier one.

    Raises InputError rather than mix or lose results.
    """
    new = replace(run, replacement=True)
    begun = run.detector_file.exists() or run.checkpoint_file.exists()
    if run.former_checkpoint.exists() and not (begun or options.overwrite):
        raise InputError(
            f"{run.former_checkpoint} is of an earlier version: --overwrite begins anew"
        )
    if not begun:
        return run
    if options.overwrite:
        return new
    if not options.resume:
        state = "a finished" if run.detector_file.exists() else "an unfinished"
        raise InputError(
            f"{run.folder} holds {state} run: --resume goes on with it, --overwrite replaces it"
        )
    return new if new.config_file.exists() else run  # what was begun last


def check_unchanged(former: dict, now: dict) -> None:
    """Raise InputError with every option that a resumed run may not change but would."""
    changed = sorted(k for k in now if k not in MAY_CHANGE and now[k] != former.get(k, now[k]))
    mend = "give the same again, or --overwrite, or another --output_dir"
    faults = [f"--resume: {k} was {former[k]} in this run, not {now[k]}: {mend}" for k in changed]
    penalty = "imagenet_train_path"
    if (former.get(penalty) is None) != (now[penalty] is None):
        faults.append(
            f"--resume: --{penalty} was {former.get(penalty)}, not {now[penalty]}: {mend}"
        )
    report_faults(faults)


def train(prepared: Prepared, options: argparse.Namespace) -> None:
    """Train and calibrate the category's detector and write it."""
    run, compute, size = prepared.run, prepared.compute, image_size(options)
    if not (options.resume and run.checkpoint_file.exists()):
        run.clear()
    run.write_config(resolved(options))
    seed_everything(options.seed)
    detector = build_detector(options.model, options.model_size, size, prepared.teacher)
    compute.place(detector)
    images, prepared.images = prepared.images.to(compute.device), None
    features = describe_training_images(detector, images, compute, options.feature_memory)
    fit(detector, images, features, prepared.natural, run, options, compute)
    del images, features  # gigabytes that calibration does not need
    validation = [sample.image for sample in prepared.category.validation]
    calibrate(detector, validation, size, options.workers, compute)
    run.save_detector(detector, options.model, options.model_size, size, compute.precision)


def test(prepared: Prepared, options: argparse.Namespace) -> dict:
    """Evaluate the category's detector; return its metrics."""
    run, compute, category = prepared.run, prepared.compute, prepared.category
    detector, size, _ = run.load_detector(compute.device)
    return evaluate(run, detector, category, size, options.workers, options.seed, compute)


def main(options: argparse.Namespace) -> None:
    """Train one category, evaluate it, print its row."""
    with ExitStack() as locks:
        try:
            prepared = prepare(options, locks)
        except KeyboardInterrupt as interrupt:
            text = "; nothing has changed: the same command begins again"
            raise KeyboardInterrupt(text) from interrupt
        run, category = prepared.run, prepared.category
        if options.check:
            counts = f"{len(category.train)} training, {len(category.validation)} validation and "
            print(f"ready: {category.name}, {counts}{len(category.test)} test images")
            return
        with resumable():
            if prepared.images is not None:
                train(prepared, options)
            metrics = test(prepared, options) if category.test else None
            if run.replacement:
                run.take_over()
    run = replace(run, replacement=False)
    if metrics is None:
        print(f"wrote {run.detector_file}; there are no test images to evaluate it on")
        return
    if options.dataset == "demo":
        threshold = metrics["glae"]["threshold"]
        draw_cases(category, run.maps_folder, threshold, options.output_dir / "demo.png")
    print_tables([{options.dataset: {category.name: metrics}}], "simple")
    write_csv(options.output_dir)


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

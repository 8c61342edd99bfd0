"""Before a training: settle the options, find what they name, and all that would fail later.

Every fault is told at once, before anything is computed.
"""

import argparse
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from data.catalog import DATASETS, choose_name, find_root, survey_category
from data.fingerprints import as_held_out, check_same
from data.images import image_size as size_of
from data.natural import Files, find_natural_images, require_readable, some_members
from data.samples import Category, InputError, noted, report_faults
from data.shards import Shards
from models.building import empty_detector
from models.detector import Detector
from models.experts import EXPERTS, NETWORKS
from training.checkpoints import check_checkpoint, checkpoint_tensors
from training.reading import read_images
from utils.devices import Compute, pick_compute
from utils.ignoring import settle_ignored
from utils.labelling import labelling_of
from utils.options import (
    MAY_CHANGE,
    check_image_size,
    check_not_negative,
    check_positive,
    dataset_path,
    image_size,
    resolved,
    settle_experts,
)
from utils.recipe import check_recipe, recipe_of, with_recipe
from utils.runs import Run
from utils.teachers import find_teacher, load_teacher

MIB = 2**20
NO_NAME = ".none"  # instead of a category's: none begins with a dot
FLOAT = 4  # bytes, of a map's pixel
NO_PENALTY = (
    "no --imagenet_train_path: training without the penalty, which is reported to cost "
    "2 to 5 points of AUROC on MVTec LOCO"
)


def check(options: argparse.Namespace) -> None:
    """Raise one InputError with every fault that the options alone show."""
    faults = check_positive(options, "batch_size", "workers", "scoring_batch_size")
    faults += check_not_negative(options, "train_steps", "seed", "feature_memory")
    faults += settle_experts(options) + check_image_size(options) + check_recipe(options)
    if options.resume and options.overwrite:
        faults.append("--resume and --overwrite exclude each other")
    report_faults(faults)


@dataclass
class Prepared:
    """What a run needs, found to be there. `images` are for training, uint8 (N, 3, H, W).

    `bits` is the depth of those deeper than 8 bits, None if none is or if they were not read;
    `ignored` tells which pixels nobody is to look at, bool (H, W), None if all are looked at.
    """

    run: Run
    compute: Compute
    teacher: nn.Module
    category: Category
    natural: Files | Shards | None
    images: torch.Tensor | None
    bits: int | None
    ignored: torch.Tensor | None


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
    """Find the category's files, settle its name, path and unlabelled folders."""
    root = find_root(options.dataset, dataset_path(options, options.dataset))
    name = options.subdataset = choose_name(options.dataset, root, options.subdataset)
    run = Run(options.output_dir, options.dataset, name)
    resumed = last_begun(run) if options.resume and run.has_begun() else None
    labelling = labelling_of(options, resumed)
    options.unlabelled, options.labelled = [*labelling.unlabelled], [*labelling.labelled]
    category = survey_category(options.dataset, root, name, options.seed, labelling)
    if DATASETS[options.dataset].option:
        setattr(options, DATASETS[options.dataset].option, root)
    return category


def prepare(options: argparse.Namespace, locks: ExitStack) -> Prepared:
    """Read all that the run needs, and keep other processes out of its folder until `locks` closes.

    Raises one InputError with every fault of all that.
    """
    faults: list[str] = []
    compute = teacher = category = natural = images = bits = ignored = None
    with noted(faults):
        check(options)
    sound = not faults  # so that networks and images of that size can be made
    with noted(faults):
        compute = get_compute(options)
    with noted(faults):
        teacher = get_teacher(options)
    with noted(faults):
        if options.imagenet_train_path:
            natural = find_natural_images(options.imagenet_train_path)
            require_readable(some_members(natural), "images")
    with noted(faults):
        ignored = settle_ignored(options)
    with noted(faults):
        category = get_category(options)
    run = Run(options.output_dir, options.dataset, category.name if category else NO_NAME)
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
        category = recognise(run, category, options)
        if sound and compute and teacher:
            check_stored(run, category, teacher, options)
    trains = options.overwrite or not run.detector_file.exists()
    if trains or (options.check and not options.resume):
        kept = None if faults or options.check else image_size(options)
        images, bits, unfit = read_images(category, kept, options.workers)
        faults += unfit
    report_faults(faults)
    return Prepared(run, compute, teacher, category, natural, images, bits, ignored)


def recognise(run: Run, category: Category, options: argparse.Namespace) -> Category:
    """Return the category held out as the run that is resumed has it.

    Raises InputError when its images are not those of before.
    """
    former = run.read_images() if options.resume and run.has_begun() else None
    if former is None or category.faults:
        return category
    check_same(former, category, options.workers, str(run.folder))
    return as_held_out(category, former)


def check_stored(
    run: Run, category: Category, teacher: nn.Module, options: argparse.Namespace
) -> None:
    """Raise InputError when what is stored does not suit these options, or more cannot be."""
    faults: list[str] = []
    begun = run.replacement or run.has_begun()
    if options.resume and begun:
        with noted(faults):
            former = run.read_config()
            if "experts" not in former and options.experts == [*EXPERTS]:  # it knew no others
                options.experts = [*NETWORKS]
            check_unchanged(former, resolved(options))
    same = not faults  # or the checkpoint would be called damaged
    experts = tuple(options.experts)
    empty = empty_detector(options.model, options.model_size, image_size(options), experts)
    empty.recipe = recipe_of(options)  # it tells what steps train
    faults += room_faults(run, category, empty, options.overwrite)
    if options.resume:
        with noted(faults):
            if same:
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
    begun = run.has_begun()
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
            f"{run.folder} holds {state} run: --resume goes on with it, --overwrite replaces it, "
            "another --output_dir keeps it"
        )
    return last_begun(run)


def last_begun(run: Run) -> Run:
    """Return a run's replacement if that was begun, else the run."""
    new = replace(run, replacement=True)
    return new if new.config_file.exists() else run


def check_unchanged(former: dict, now: dict) -> None:
    """Raise InputError with every option that a resumed run may not change but would."""
    former = with_recipe(former)
    changed = sorted(k for k in now if k not in MAY_CHANGE and now[k] != former.get(k, now[k]))
    mend = "give the same again, or --overwrite, or another --output_dir"
    faults = [f"--resume: {k} was {former[k]} in this run, not {now[k]}: {mend}" for k in changed]
    penalty = "imagenet_train_path"
    if (former.get(penalty) is None) != (now[penalty] is None):
        faults.append(
            f"--resume: --{penalty} was {former.get(penalty)}, not {now[penalty]}: {mend}"
        )
    report_faults(faults)


def folder_faults(run: Run) -> list[str]:
    """Return a fault for each place of the output that cannot be written."""
    places = (run.folder, run.maps_folder, run.metrics_file.parent, run.results_file.parent)
    places += (run.output,)
    above = {existing(place) for place in places}
    faults = [
        f"--output_dir {run.output}: {place} "
        f"{'cannot be written' if place.is_dir() else 'is no folder'}; name another"
        for place in sorted(above)
        if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK))
    ]
    files = (run.checkpoint_file, run.detector_file, run.config_file, run.losses_file)
    for file in (*files, run.metrics_file, run.results_file, run.output / "results.csv"):
        if os.path.lexists(file) and not file.is_file():
            faults.append(f"{file} is no file: remove it, or name another --output_dir")
    test = run.maps_folder / "test"
    if test.exists() and not test.is_dir():
        faults.append(f"{test} is no folder: remove it, or name another --output_dir")
    return faults


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that there is."""
    absolute = path.absolute()
    return next((p for p in (path, *absolute.parents) if os.path.lexists(p)), absolute)


def room_faults(
    run: Run, category: Category, detector: Detector, overwrite: bool = False
) -> list[str]:
    """Return the fault of a disk without room for checkpoints, detector and anomaly maps.

    `detector` may be an empty one. Two checkpoints lie there while one is written; a finished run
    writes none, unless it is to be overwritten.
    """
    checkpoint, trained = (
        sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        for tensors in (checkpoint_tensors(detector), detector.state_dict())
    )
    maps = 0
    for sample in category.scored:
        with noted([]):  # of an image that is named already
            height, width = size_of(sample.image)
            maps += height * width * FLOAT
    present = [run.checkpoint_file, run.detector_file, *run.maps_folder.rglob("*.tiff")]
    there = sum(path.stat().st_size for path in present if path.exists())
    needed = 2 * checkpoint + trained + maps - there
    if run.detector_file.exists() and not overwrite:
        needed = maps - sum(path.stat().st_size for path in present[2:])
    free = shutil.disk_usage(existing(run.output)).free
    if needed <= free:
        return []
    number = len(category.scored)
    return [
        f"--output_dir {run.output}: {needed // MIB} MiB are needed for checkpoints, detector and "
        f"{number} anomaly maps, {free // MIB} MiB are free: make room, or name another"
    ]

"""Distil teachers from an ImageNet backbone: `python3 pretrain.py --help`.

A teacher learns to give, from 33 x 33 pixels, what a large backbone says of the same place.
Its quality is the explained variance on images that were held out. Under torchrun, any number of
processes share each batch.
"""

if __name__ == "__main__":
    from utils.startup import leave_when_interrupted

    leave_when_interrupted()

import argparse
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from difflib import get_close_matches
from http.client import HTTPException
from pathlib import Path

import torch

from data.natural import (
    MOST_UNREADABLE,
    Files,
    find_natural_images,
    hold_out_natural,
    is_readable,
)
from data.samples import InputError, report_faults
from data.shards import Member, Shards
from distillation.loop import (
    Pupils,
    State,
    checkpoint_path,
    explained_variance,
    fit,
    recipe,
)
from distillation.targets import PATCH_MARGIN, Cached, FeatureCache, Streamed, describe
from models.backbone import (
    LAYERS,
    Backbone,
    UnfitWeights,
    backbone_names,
    build_backbone,
    published_weights,
)
from models.pdn import PDNS, TEACHER_CHANNELS
from utils.commands import resumable, run_command
from utils.devices import Compute, pick_device, pick_precision, set_up
from utils.files import locked_folder
from utils.options import (
    Parser,
    add_checkpoint_option,
    add_config_option,
    add_machine_options,
    check_not_negative,
    check_positive,
)
from utils.processes import joined, own_gpu, process_count, said_once
from utils.teachers import read_state_dict, save_teacher

LEARNT = 0.02  # explained variance below which a teacher is of no use
LONG = 200  # steps after which it should have learnt


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("Distil teachers from an ImageNet backbone.")
    group = parser.add_argument_group("distillation")
    group.add_argument(
        "--imagenet_train_path",
        type=Path,
        help="natural images: a folder of any shape, of image files or of tar shards",
    )
    group.add_argument(
        "--max_unreadable",
        type=float,
        default=MOST_UNREADABLE,
        metavar="SHARE",
        help="of the images (of 1,000 at least), may be skipped because they cannot be read",
    )
    group.add_argument(
        "--backbone",
        default="wide_resnet101_2",
        help="any classification network of torchvision",
    )
    group.add_argument(
        "--backbone_layers",
        nargs="+",
        metavar="LAYER",
        help=f"whose features are learnt; known for {', '.join(LAYERS)}",
    )
    group.add_argument("--backbone_weights", type=Path, help="a file; else torchvision's download")
    group.add_argument(
        "--model_size",
        nargs="+",
        choices=list(PDNS),
        default=["medium"],
        help="of the teacher; two sizes learn side by side from one pass through the backbone",
    )
    group.add_argument("--train_steps", type=int, default=60_000, help="0: the initial weights")
    group.add_argument("--batch_size", type=int, default=16, help="of all processes together")
    group.add_argument(
        "--image_size", type=int, default=256, help="what the teacher sees, in pixels"
    )
    group.add_argument("--learning_rate", type=float, default=1e-4)
    group.add_argument("--schedule", choices=("constant", "cosine"), default="constant")
    group.add_argument(
        "--cached_views",
        type=int,
        default=0,
        help="keep the features of 1 view, or of 2 (the other mirrored), of each image in memory "
        "and train on crops of them; 0 runs the backbone at every step",
    )
    group.add_argument("--crop_size", type=int, default=128, help="of cached views, in pixels")
    add_machine_options(parser)
    parser.add_argument("--seed", type=int, default=0)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output_dir",
        type=Path,
        default=Path("output/teachers"),
        help="for teacher_<size>.safetensors, losses.csv and the checkpoint",
    )
    add_checkpoint_option(group, "500")
    group.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    group.add_argument("--overwrite", action="store_true", help="replace existing teachers")
    add_config_option(parser)
    return parser


def check(options: argparse.Namespace) -> None:
    """Raise one InputError with every fault of the options; fill in what follows from them."""
    faults = check_positive(options, "batch_size", "image_size")
    faults += check_not_negative(options, "train_steps", "seed", "workers")
    if options.learning_rate <= 0:
        faults.append(f"--learning_rate must be above 0, not {options.learning_rate}")
    if not 0 <= options.max_unreadable < 1:
        faults.append(f"--max_unreadable is a share from 0 to 1, not {options.max_unreadable}")
    if options.imagenet_train_path is None:
        faults.append("--imagenet_train_path is missing: name a folder of natural images")
    if options.image_size % 8:
        faults.append(f"--image_size must be a multiple of 8, not {options.image_size}")
    if options.cached_views not in (0, 1, 2):
        faults.append(f"--cached_views must be 0, 1 or 2, not {options.cached_views}")
    if options.image_size <= PATCH_MARGIN:
        faults.append(f"--image_size must be above {PATCH_MARGIN}, not {options.image_size}")
    crops = range(PATCH_MARGIN + 4, options.image_size + 1, 4)
    if options.cached_views and options.crop_size not in crops:
        faults.append(
            f"--crop_size {options.crop_size} must be a multiple of 4 from {PATCH_MARGIN + 4} to "
            f"{options.image_size}, the --image_size"
        )
    if options.resume and options.overwrite:
        faults.append("--resume and --overwrite exclude each other")
    faults += check_processes(options)
    options.model_size = [size for size in PDNS if size in options.model_size]
    faults += check_backbone(options) + check_output(options)
    report_faults(faults)


def check_processes(options: argparse.Namespace) -> list[str]:
    """Return what the processes of torchrun cannot share; give each its own GPU."""
    count, here = process_count(), process_count("LOCAL_WORLD_SIZE")
    if count == 1:
        return []
    faults = []
    if options.batch_size % count:
        faults.append(f"--batch_size {options.batch_size} is no multiple of {count} processes")
    if options.cached_views:
        faults.append("--cached_views keeps features in one process: start it without torchrun")
    if options.device_gpu is not None or options.device not in ("auto", "cpu", "cuda"):
        faults.append("torchrun gives each process a GPU: leave --device_gpu out, --device auto")
    elif options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available()):
        if 0 < torch.cuda.device_count() < here:
            faults.append(f"{torch.cuda.device_count()} GPUs here: --nproc_per_node {here} is more")
        options.device = own_gpu()
    return faults


def check_backbone(options: argparse.Namespace) -> list[str]:
    """Return the faults of the backbone's name and layers; fill in the layers' default."""
    name = options.backbone
    if name not in backbone_names():
        near = " or ".join(get_close_matches(name, backbone_names(), n=2)) or "resnet18"
        return [f"--backbone {name} is no classification network of torchvision: {near}?"]
    options.backbone_layers = options.backbone_layers or list(LAYERS.get(name, ()))
    if not options.backbone_layers:
        return [f"--backbone {name} needs --backbone_layers, such as layer2 layer3"]
    if TEACHER_CHANNELS % len(options.backbone_layers):
        count = len(options.backbone_layers)
        return [f"--backbone_layers: {count} cannot share {TEACHER_CHANNELS} channels equally"]
    return []


def teacher_path(options: argparse.Namespace, size: str) -> Path:
    """Return where a teacher will lie."""
    return options.output_dir / f"teacher_{size}.safetensors"


def finished(options: argparse.Namespace) -> bool:
    """Tell whether there is nothing left that --resume could do."""
    paths = [teacher_path(options, size) for size in options.model_size]
    done = all(path.exists() for path in paths) and not checkpoint_path(options).exists()
    return options.resume and done


def check_output(options: argparse.Namespace) -> list[str]:
    """Return what of an earlier distillation this one would lose."""
    checkpoint = checkpoint_path(options)
    if options.overwrite or (options.resume and checkpoint.exists()):
        return []
    if checkpoint.exists():
        return [f"{checkpoint} exists: --resume goes on, --overwrite begins anew"]
    if finished(options):
        return []
    paths = [teacher_path(options, size) for size in options.model_size]
    return [f"{p} exists: name another --output_dir, or --overwrite" for p in paths if p.exists()]


def load_backbone(options: argparse.Namespace) -> Backbone:
    """Build the backbone from its file, or let torchvision download it."""
    name, file = options.backbone, options.backbone_weights
    weights = None if file is None else read_state_dict(file)
    try:
        return build_backbone(name, TEACHER_CHANNELS, options.backbone_layers, weights)
    except UnfitWeights as error:
        raise InputError(f"--backbone_weights {file}: {error}") from error
    except (ValueError, RuntimeError) as error:  # the latter from torch.hub, for a damaged download
        raise InputError(f"--backbone {name}: {error}") from error
    except (OSError, HTTPException) as error:
        url = published_weights(name).url
        place = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
        raise InputError(
            f"{url} could not be downloaded ({error}): fetch it elsewhere and put it at {place}, "
            "or give --backbone_weights FILE"
        ) from error


def judge(
    state: State, held_out: list[Path | Member], features: Callable, options: argparse.Namespace
) -> None:
    """Print how much the teachers explain of held-out images; write them with their recipe."""
    judged = FeatureCache(held_out, features, options, views=1)
    about = recipe(options) | {"held_out_images": len(judged)}
    about["failed_reads"] = state.unreadable
    for size, pupil in state.pupils.items():
        teacher = PDNS[size]().to(state.device)
        teacher.load_state_dict(pupil.state_dict())
        explained = explained_variance(teacher, judged.pairs(state.mean, state.std))
        print(f"{size}: held-out explained variance {explained:.4f} on {len(judged)} images")
        if explained < LEARNT and options.train_steps >= LONG:
            text = "more --train_steps or a lower --learning_rate may help"
            warnings.warn(f"the {size} teacher has learnt nothing: {text}", stacklevel=2)
        about |= {"model_size": size, "held_out_explained_variance": round(explained, 4)}
        path = teacher_path(options, size)
        save_teacher(teacher, path, about)
        print(f"wrote {path}: use it with main.py --weights {path}")
    if state.unreadable:
        print(f"skipped {state.unreadable} reads that failed", file=sys.stderr)
    checkpoint_path(options).unlink(missing_ok=True)


def distil(
    train: Files | Shards,
    held_out: list[Path | Member],
    options: argparse.Namespace,
    compute: Compute,
) -> None:
    """Train the teachers with the other processes; the leading one judges and writes them."""
    with said_once():
        features = describe(load_backbone(options), compute)
    with joined(compute.device) as processes, ExitStack() as stack:
        if processes.leads:
            stack.enter_context(locked_folder(options.output_dir, "--output_dir"))
            if options.overwrite:  # or --resume would go on with it
                checkpoint_path(options).unlink(missing_ok=True)
        source = (Cached if options.cached_views else Streamed)(train, features, options)
        state = State(Pupils(options.model_size, source.padding, options.seed), options, compute)
        with resumable():
            fit(state, source, compute, processes)
        held = stack.pop_all()
    with held:
        if processes.leads:
            judge(state, held_out, features, options)


def main(options: argparse.Namespace) -> None:
    """Distil, judge on held-out images, write the teachers with their recipe."""
    with said_once():
        check(options)
        device = set_up(pick_device(options))
        options.precision = pick_precision(options, device)
        if finished(options):
            print(f"{options.output_dir} is finished already", file=sys.stderr)
            return
        source = find_natural_images(options.imagenet_train_path)
        train, held_out = hold_out_natural(source, options.seed)
        if not any(map(is_readable, held_out)):  # or all the training would end in this error
            text = f"none of {len(held_out)} images that are held out can be read, such as"
            raise InputError(f"{text} {held_out[0]}")
        options.train_images = len(train)
    distil(train, held_out, options, Compute(device, options.precision))


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

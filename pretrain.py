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
from pathlib import Path

from data.natural import (
    MOST_UNREADABLE,
    Files,
    find_natural_images,
    hold_out_natural,
    require_readable,
)
from data.shards import Member, Shards
from distillation.loop import (
    Pupils,
    State,
    checkpoint_path,
    explained_variance,
    fit,
    recipe,
)
from distillation.preparation import check, finished, load_backbone, teacher_path
from distillation.targets import Cached, FeatureCache, Streamed, describe
from models.backbone import LAYERS
from models.pdn import PDNS
from utils.commands import resumable, run_command
from utils.devices import Compute, pick_device, pick_precision, set_up
from utils.files import locked_folder, user_path
from utils.options import (
    Parser,
    add_checkpoint_option,
    add_config_option,
    add_machine_options,
)
from utils.processes import joined, said_once
from utils.teachers import save_teacher

LEARNT = 0.02  # explained variance below which a teacher is of no use
LONG = 200  # steps after which it should have learnt
EXAMPLES = (
    "python3 pretrain.py --config configs/teachers_published.yaml "
    "--imagenet_train_path path/imagenet",
    "torchrun --nproc_per_node 2 pretrain.py --imagenet_train_path path/imagenet "
    "--output_dir output_torchrun",
)


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("Distil teachers from an ImageNet backbone.", EXAMPLES)
    group = parser.add_argument_group("distillation")
    group.add_argument(
        "--imagenet_train_path",
        type=user_path,
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
    group.add_argument(
        "--backbone_weights", type=user_path, help="a file; else torchvision's download"
    )
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
    group.add_argument("--learning_rate", type=float, default=1e-4, help="of Adam")
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
        type=user_path,
        default=Path("output/teachers"),
        help="for teacher_<size>.safetensors, losses.csv and the checkpoint",
    )
    add_checkpoint_option(group, "500")
    group.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    group.add_argument("--overwrite", action="store_true", help="replace existing teachers")
    add_config_option(parser)
    return parser


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
        if options.cached_views:
            source = Cached(train, features, options)
        else:
            source = Streamed(train, features, options, pinned=compute.on_cuda)
        state = State(Pupils(options.model_size, source.padding, options.seed), options, compute)
        with resumable(checkpoint_path(options).exists):
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
        require_readable(held_out, "images that are held out")  # or training would end in this
        options.train_images = len(train)
    distil(train, held_out, options, Compute(device, options.precision))


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

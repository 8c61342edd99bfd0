"""Distil a teacher from an ImageNet backbone: `python3 pretrain.py --help`.

The teacher learns to give, from 33 x 33 pixels, what a large backbone says of the same place.
Its quality is the explained variance on images that were held out.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from data.images import normalise
from data.natural import NaturalImages, distillation_view, list_natural_images, load_batches
from data.samples import InputError
from models.backbone import BACKBONES, Backbone, build_backbone
from models.pdn import PDNS, TEACHER_CHANNELS
from utils.calibration import ChannelMoments
from utils.devices import Compute, pick_device, pick_precision, seed_everything
from utils.distillation import PATCH_MARGIN, FeatureCache, describe, explained_variance
from utils.files import written_aside
from utils.options import (
    Parser,
    add_config_option,
    add_machine_options,
    check_positive,
    report_faults,
    run_command,
)
from utils.teachers import default_teacher, read_state_dict, save_teacher

STATISTICS_IMAGES = 10_000
HELD_OUT_IMAGES = 500  # at most; a twentieth of a small folder
CHECKPOINT_STEPS = 500
RECIPE = (
    "backbone",
    "model_size",
    "image_size",
    "train_steps",
    "batch_size",
    "learning_rate",
    "schedule",
    "cached_views",
    "crop_size",
    "seed",
    "precision",
)
WARM_UP = 0.02  # part of the steps, for the cosine schedule


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("Distil a teacher from an ImageNet backbone.")
    group = parser.add_argument_group("distillation")
    group.add_argument("--imagenet_train_path", type=Path, help="natural images, in any folders")
    group.add_argument("--backbone", choices=list(BACKBONES), default="wide_resnet101_2")
    group.add_argument("--backbone_weights", type=Path, help="a file; else torchvision's download")
    group.add_argument("--model_size", choices=list(PDNS), default="medium")
    group.add_argument("--train_steps", type=int, default=60_000)
    group.add_argument("--batch_size", type=int, default=16)
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
    group.add_argument("--output", type=Path, help="the teacher's file")
    group.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    group.add_argument("--overwrite", action="store_true", help="replace an existing teacher")
    add_machine_options(parser)
    parser.add_argument("--seed", type=int, default=0)
    add_config_option(parser)
    return parser


def check(options: argparse.Namespace) -> None:
    """Raise one InputError with every fault of the options; fill in the output's default."""
    faults = check_positive(options, "train_steps", "batch_size", "image_size")
    for name in ("seed", "workers"):
        if getattr(options, name) < 0:
            faults.append(f"--{name} must not be negative, as {getattr(options, name)} is")
    if options.learning_rate <= 0:
        faults.append(f"--learning_rate must be above 0, not {options.learning_rate}")
    if options.imagenet_train_path is None:
        faults.append("--imagenet_train_path is missing: name a folder of natural images")
    if options.image_size % 8:
        faults.append(f"--image_size must be a multiple of 8, not {options.image_size}")
    if options.cached_views not in (0, 1, 2):
        faults.append(f"--cached_views must be 0, 1 or 2, not {options.cached_views}")
    if not PATCH_MARGIN < options.crop_size <= options.image_size or options.crop_size % 4:
        faults.append(f"--crop_size must be a multiple of 4 from {PATCH_MARGIN + 4} to image_size")
    if options.output is None:
        options.output = default_teacher(options.model_size)
    if options.output.exists() and not options.overwrite:
        faults.append(f"{options.output} exists: name another --output, or --overwrite")
    if checkpoint_path(options).exists() and not (options.resume or options.overwrite):
        faults.append(
            f"{checkpoint_path(options)} exists: --resume goes on, --overwrite begins anew"
        )
    report_faults(faults)


def checkpoint_path(options: argparse.Namespace) -> Path:
    """Return where the state of an unfinished distillation lies."""
    return options.output.with_suffix(".checkpoint.pt")


def split(paths: list[Path], seed: int) -> tuple[list[Path], list[Path]]:
    """Hold out a seeded twentieth, 500 at most: (train, held out)."""
    if len(paths) < 2:
        raise InputError("--imagenet_train_path holds one image: at least two are needed")
    shuffled = random.Random(seed).sample(paths, len(paths))
    count = min(HELD_OUT_IMAGES, max(1, len(paths) // 20))
    return shuffled[count:], shuffled[:count]


def load_backbone(options: argparse.Namespace) -> Backbone:
    """Build the backbone from its file, or let torchvision download it."""
    weights = options.backbone_weights and read_state_dict(options.backbone_weights)
    try:
        backbone = build_backbone(options.backbone, TEACHER_CHANNELS, weights)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"--backbone_weights {options.backbone_weights}: {error}") from error
    except OSError as error:
        raise InputError(
            f"torchvision could not download {options.backbone} ({error}): "
            "fetch its weights elsewhere and give --backbone_weights FILE"
        ) from error
    return backbone


class Cached:
    """Batches from features that were computed once: random crops, unpadded PDN."""

    padding = False

    def __init__(self, paths: list[Path], features: Callable, options: argparse.Namespace):
        views = options.cached_views
        self.cache = FeatureCache(
            paths, options.image_size, features, TEACHER_CHANNELS, options, views
        )
        self.options = options

    def moments(self) -> ChannelMoments:
        return self.cache.moments()

    def batches(self, steps: range) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        o = self.options
        return (self.cache.batch(step, o.batch_size, o.crop_size, o.seed) for step in steps)


class Streamed:
    """Batches through the backbone at every step: whole images, padded PDN."""

    padding = True

    def __init__(self, paths: list[Path], features: Callable, options: argparse.Namespace):
        self.paths, self.features, self.options = paths, features, options

    def moments(self) -> ChannelMoments:
        count = min(STATISTICS_IMAGES, len(self.paths))
        steps = range(max(1, count // self.options.batch_size))
        moments = ChannelMoments()
        for _, features in tqdm(self.batches(steps), "feature statistics", len(steps), leave=False):
            moments.add(features)
        return moments

    def batches(self, steps: range) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        o = self.options
        size = (o.image_size, o.image_size)
        images = NaturalImages(self.paths, size, o.seed, distillation_view)
        for large, small in load_batches(images, o.batch_size, steps, o.workers):
            yield small, self.features(large)


def learning_rate_factor(step: int, options: argparse.Namespace) -> float:
    """Return what the learning rate is multiplied by at `step`."""
    if options.schedule == "constant":
        return 1.0
    progress = step / options.train_steps
    cosine = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * progress)).item())
    return min(1.0, (progress + 1 / options.train_steps) / WARM_UP) * cosine


def fit(
    pdn: nn.Module,
    source: Cached | Streamed,
    options: argparse.Namespace,
    compute: Compute,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Train `pdn`; return the features' mean and std. Checkpoints every CHECKPOINT_STEPS."""
    optimizer = torch.optim.Adam(
        pdn.parameters(), lr=options.learning_rate, weight_decay=1e-5, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, partial(learning_rate_factor, options=options)
    )
    modules = {"pdn": pdn, "optimizer": optimizer, "schedule": schedule}
    device = compute.device
    start = 0
    if options.resume and checkpoint_path(options).exists():
        start, mean, std = load_checkpoint(modules, options, device)
    else:
        mean, std = (t.to(device) for t in source.moments().mean_std())

    def save_checkpoint(step: int) -> None:
        state = {name: module.state_dict() for name, module in modules.items()}
        state |= {"step": step, "mean": mean, "std": std, "recipe": recipe(options)}
        with written_aside(checkpoint_path(options)) as aside:
            torch.save(state, aside)

    steps = range(start, options.train_steps)
    bar = tqdm(source.batches(steps), "distilling", options.train_steps, initial=start, unit="step")
    smoothed = None
    try:
        for step, (images, features) in zip(steps, bar, strict=True):
            inputs = normalise(images.to(device, non_blocking=True))
            target = (features.to(device, non_blocking=True).float() - mean) / std
            with compute.autocast():
                output = pdn(inputs.contiguous(memory_format=torch.channels_last))
            loss = (output.float() - target).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 20 == 0:  # reading the loss waits for the device
                smoothed = loss.item() if smoothed is None else 0.8 * smoothed + 0.2 * loss.item()
                bar.set_postfix(loss=f"{smoothed:.4f}")
            if (step + 1) % CHECKPOINT_STEPS == 0:
                save_checkpoint(step + 1)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"; --resume goes on from the last multiple of {CHECKPOINT_STEPS} steps"
        ) from interrupt
    return mean, std


def load_checkpoint(
    modules: dict, options: argparse.Namespace, device: torch.device
) -> tuple[int, torch.Tensor, torch.Tensor]:
    """Continue from the checkpoint: (steps done, the features' mean, their std).

    Raises InputError when it is damaged or of another recipe.
    """
    path = checkpoint_path(options)
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        former = state["recipe"]
    except Exception as error:  # a cut file fails in any way
        raise InputError(f"{path} is damaged: begin anew with --overwrite ({error})") from error
    now = recipe(options)
    changed = [key for key in now if now[key] != former.get(key)]
    report_faults([f"--resume: {k} was {former.get(k)}, not {now[k]}" for k in changed])
    for name, module in modules.items():
        module.load_state_dict(state[name])
    return state["step"], state["mean"], state["std"]


def recipe(options: argparse.Namespace) -> dict:
    """Return what of the options made the teacher, as opposed to places on somebody's disk."""
    return {name: getattr(options, name) for name in RECIPE}


def main(options: argparse.Namespace) -> None:
    """Distil, judge on held-out images, write the teacher with its recipe."""
    check(options)
    device = pick_device(options)
    options.precision = pick_precision(options, device)
    compute = Compute(device, options.precision)
    seed_everything(options.seed)
    train, held_out = split(list_natural_images(options.imagenet_train_path), options.seed)
    features = describe(load_backbone(options), compute)
    source = (Cached if options.cached_views else Streamed)(train, features, options)

    build = PDNS[options.model_size]
    pdn = compute.place(build(padding=source.padding))
    mean, std = fit(pdn, source, options, compute)

    teacher = build().to(device)
    teacher.load_state_dict(pdn.state_dict())
    cache = FeatureCache(held_out, options.image_size, features, TEACHER_CHANNELS, options, views=1)
    pairs = (
        (cache.images[i : i + 1], (cache.features[i : i + 1].to(device) - mean) / std)
        for i in range(len(held_out))
    )
    explained = explained_variance(teacher, pairs, device)
    about = recipe(options) | {"train_images": len(train), "held_out_images": len(held_out)}
    about["held_out_explained_variance"] = round(explained, 4)
    save_teacher(teacher, options.output, about)
    checkpoint_path(options).unlink(missing_ok=True)
    print(f"held-out explained variance {explained:.4f} on {len(held_out)} images")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

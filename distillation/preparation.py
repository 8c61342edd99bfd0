"""Before a distillation: what its options must be, and the backbone that they name."""

import argparse
from difflib import get_close_matches
from http.client import HTTPException
from pathlib import Path

import torch

from data.samples import InputError, report_faults
from distillation.loop import checkpoint_path
from distillation.targets import PATCH_MARGIN
from models.backbone import (
    LAYERS,
    Backbone,
    UnfitWeights,
    backbone_names,
    build_backbone,
    published_weights,
)
from models.pdn import PDNS, TEACHER_CHANNELS
from utils.options import check_not_negative, check_positive
from utils.processes import own_gpu, process_count
from utils.recipe import check_learning_rate
from utils.teachers import read_state_dict


def check(options: argparse.Namespace) -> None:
    """Raise one InputError with every fault of the options; fill in what follows from them."""
    faults = check_positive(options, "batch_size", "image_size")
    faults += check_not_negative(options, "train_steps", "seed", "workers")
    faults += check_learning_rate(options)
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

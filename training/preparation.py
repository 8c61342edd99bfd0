"""Pre-flight: find all that would fail later, and say it at once, before anything is computed."""

import os
import shutil
from pathlib import Path

import torch
from tqdm import tqdm

from data.images import Size, decode, image_size, in_background, resize
from data.masks import regions
from data.natural import Files, is_readable
from data.samples import Category, Sample, noted
from data.shards import Member, Shards, list_members
from models.detector import Detector
from training.checkpoints import checkpoint_tensors
from utils.runs import Run

MIB = 2**20
FLOAT = 4  # bytes, of a map's pixel
TRIED = 20  # natural images


def read_images(
    category: Category, size: Size | None, workers: int
) -> tuple[torch.Tensor | None, list[str]]:
    """Decode every image, and compare every mask with its image and the table of defects.

    Returns the training images at `size` (height, width), uint8 (N, 3, H, W), if one is given, and
    a fault for each file that cannot be used. The other images are read to be dropped again: a bad
    one is to be named now, not after hours of training.
    """
    number, samples = len(category.train), category.samples
    images = None if size is None else torch.empty((number, 3, *size), dtype=torch.uint8)

    def look(index: int) -> list[str]:
        faults, sample = [], samples[index]
        with noted(faults):
            image = decode(sample.image)
            faults += mask_faults(sample, (image.height, image.width), category)
            if images is not None and index < number:
                images[index] = resize(image, size)
        return faults

    looked = in_background(look, range(len(samples)), workers)
    bar = tqdm(looked, "reading images", len(samples), unit="img", leave=False)
    return images, [fault for faults in bar for fault in faults]


def mask_faults(sample: Sample, size: Size, category: Category) -> list[str]:
    """Return a fault for each mask that cannot be that of an image of `size`."""
    faults: list[str] = []
    for mask in sample.masks:
        with noted(faults):
            regions((mask,), size, category.defects_config)
    return faults


def natural_faults(source: Files | Shards | None) -> list[str]:
    """Return the fault of natural images of which none of some can be read."""
    some = [] if source is None else some_members(source)
    if not some or any(map(is_readable, some)):
        return []
    return [f"--imagenet_train_path: none of {len(some)} images, such as {some[0]}, can be read"]


def some_members(source: Files | Shards) -> list[Path | Member]:
    """Return a few images from all over the source."""
    if isinstance(source, Files):
        return source.paths[:: -(-len(source.paths) // TRIED)]
    some: list[Path | Member] = []
    for shard in source.shards[:: -(-len(source.shards) // TRIED)]:
        with noted([]):  # it is skipped in training, too
            some += list_members(shard)[:TRIED]
    return some or [source.shards[0]]


def folder_faults(run: Run) -> list[str]:
    """Return a fault for each place of the output that cannot be written."""
    places = (run.folder, run.maps_folder, run.metrics_file.parent, run.output)
    above = {existing(place) for place in places}
    faults = [
        f"--output_dir {run.output}: {place} "
        f"{'cannot be written' if place.is_dir() else 'is no folder'}; name another"
        for place in sorted(above)
        if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK))
    ]
    files = (run.checkpoint_file, run.detector_file, run.config_file, run.losses_file)
    for file in (*files, run.metrics_file, run.output / "results.csv"):
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
    for sample in category.test:
        with noted([]):  # of an image that is named already
            height, width = image_size(sample.image)
            maps += height * width * FLOAT
    present = [run.checkpoint_file, run.detector_file, *run.maps_folder.rglob("*.tiff")]
    there = sum(path.stat().st_size for path in present if path.exists())
    needed = 2 * checkpoint + trained + maps - there
    if run.detector_file.exists() and not overwrite:
        needed = maps - sum(path.stat().st_size for path in present[2:])
    free = shutil.disk_usage(existing(run.output)).free
    if needed <= free:
        return []
    return [
        f"--output_dir {run.output}: {needed // MIB} MiB are needed for checkpoints, detector and "
        f"{len(category.test)} anomaly maps, {free // MIB} MiB are free: make room, or name another"
    ]

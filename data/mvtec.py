"""MVTec AD and MVTec LOCO AD: `<category>/{train,validation,test,ground_truth}/...`."""

import json
import math
from collections import defaultdict
from pathlib import Path

from data.listing import (
    GOOD_NAMES,
    broken_links,
    folders_called,
    list_folders,
    list_images,
    passed_over,
)
from data.samples import (
    GOOD,
    Category,
    InputError,
    Sample,
    check_inside,
    good_samples,
    hold_out,
    noted,
    report_faults,
)

DEFECTS_CONFIG = "defects_config.json"
MOST_CONFIG = 2**20  # bytes of a defects_config.json; LOCO's have 2,000
SPLITS = ("train", "validation", "test")
AD_SPLITS = ("train", "test")


def find_categories(root: Path) -> list[str]:
    """Return the folders of `root` that hold training images; none when it is itself a category."""
    if is_category(root):
        return []
    return [folder.name for folder in list_folders(root) if is_category(folder)]


def is_category(folder: Path) -> bool:
    """Tell whether `folder` has a place for training images."""
    return bool(good_folders(folder, "train"))


def good_folders(folder: Path, split: str) -> list[Path]:
    """Return the folders of a split that stand for good images, such as train/good or Train/OK."""
    splits = folders_called(folder, split)
    return [good for place in splits for good in folders_called(place, *GOOD_NAMES)]


def read_mvtec_ad(root: Path, name: str, seed: int) -> Category:
    """Read a category of MVTec AD. A tenth of train/good, drawn by `seed`, is for validation.

    Its faults name each folder and mask that is missing.
    """
    folder, faults = root / name, []
    train, validation = [], []
    with noted(faults):
        train = require_good(folder, "train", "training")
        train, validation = hold_out(train, seed)
    category = Category(name, train, validation, faults=faults, held_out=True)
    return with_test(folder, category, AD_SPLITS)


def read_mvtec_loco(root: Path, name: str, seed: int) -> Category:
    """Read a category of MVTec LOCO AD, which brings its own validation split (`seed` is unused).

    Its faults name each folder, mask and entry of defects_config.json that is missing.
    """
    folder, faults = root / name, []
    train, validation, config = [], [], None  # without it no value of a mask is a fault
    with noted(faults):
        train = require_good(folder, "train", "training")
    with noted(faults):
        validation = require_good(folder, "validation", "validation")
    with noted(faults):
        check_inside(folder / DEFECTS_CONFIG, folder)
        config = read_defects_config(folder)
    category = Category(name, train, validation, defects_config=config, faults=faults)
    return with_test(folder, category)


def list_good(folder: Path, split: str) -> list[Sample]:
    """Return the images of a split's good folders; an absent one has none."""
    return good_samples([p for good in good_folders(folder, split) for p in list_images(good)])


def require_good(folder: Path, split: str, role: str) -> list[Sample]:
    """Return the images of a split's good folders.

    Raises InputError, which calls them `role`, when there are none.
    """
    samples = list_good(folder, split)
    if not samples:
        there = good_folders(folder, split)
        place, state = (there or [folder / split / GOOD])[0], "is empty of images"
        state = state if there else "does not exist"
        raise InputError(f"{place} {state}: put the {role} images there")
    return samples


def with_test(folder: Path, category: Category, read: tuple[str, ...] = SPLITS) -> Category:
    """Add the test images in `folder` to its category, and faults and notes on what is odd.

    `read` are the splits that its reader takes images from.
    """
    category.test.extend(read_test(folder, category.faults))
    splits = folders_called(folder, *SPLITS)
    taken = {sample.image for sample in category.samples}
    category.faults.extend(broken_links(folder, splits, taken))
    category.notes.extend(translated(folder, read) + passed_over(folder, splits, taken, read))
    return category


def read_test(folder: Path, faults: list[str]) -> list[Sample]:
    """Read test/<defect> with each defect's masks, in any layout that `masks_of` knows.

    Adds to `faults` each folder of masks without their images.
    """
    samples = []
    for split in folders_called(folder, "test"):
        for group in list_folders(split):
            images = list_images(group)
            places = [image.relative_to(split) for image in images]
            if group.name.lower() in GOOD_NAMES:
                pairs = zip(images, places, strict=True)
                samples += [Sample(image, 0, GOOD, within=place) for image, place in pairs]
                continue
            masks = masks_of([image.relative_to(group) for image in images], folder, group.name)
            triples = zip(images, masks, places, strict=True)
            samples += [Sample(i, 1, group.name, found, within=at) for i, found, at in triples]
    known = {mask for sample in samples for mask in sample.masks}
    for truth in folders_called(folder, "ground_truth"):
        for defect in list_folders(truth):
            if defect.name.lower() not in GOOD_NAMES:
                strays = [mask for mask in list_images(defect) if mask not in known]
                faults += no_image(strays, folder / "test" / defect.name)
    return samples


def no_image(strays: list[Path], where: Path) -> list[str]:
    """Return a fault for a defect's masks without their image, which belongs in `where`."""
    if not strays:
        return []
    more = f" and {len(strays) - 1} more" if len(strays) > 1 else ""
    return [f"{strays[0]}{more}: there is no image in {where}; add it, or remove the mask"]


def masks_of(images: list[Path], folder: Path, defect: str) -> list[tuple[Path, ...]]:
    """Return the masks of each of a defect's images, whose paths are below test/<defect>.

    They lie at the same place below ground_truth/<defect>: `<stem>/*` (LOCO), `<stem>_mask.*` (AD)
    or `<stem>.*`.
    """
    by_name, by_folder = defaultdict(list), defaultdict(list)
    for truth in folders_called(folder, "ground_truth"):
        for mask in list_images(truth / defect):
            place = mask.relative_to(truth / defect)
            by_name[place.with_suffix("")].append(mask)
            by_folder[place.parent].append(mask)
    mirrored = {above for image in images for above in image.parents}  # not an image's own

    def find(place: Path) -> list[Path]:
        nested = [] if place in mirrored else by_folder[place]
        return nested or (by_name[place.with_name(f"{place.name}_mask")] or by_name[place])[:1]

    return [tuple(find(image.with_suffix(""))) for image in images]


def translated(folder: Path, read: tuple[str, ...]) -> list[str]:
    """Return a note on the folders whose names were taken for others, if there are any."""
    splits = {split: folders_called(folder, split) for split in read}
    taken = {place: split for split, places in splits.items() for place in places}
    taken |= {good: f"{split}/{GOOD}" for split in read for good in good_folders(folder, split)}
    named = {place.relative_to(folder).as_posix(): name for place, name in taken.items()}
    odd = [f"{place} for {name}" for place, name in named.items() if place != name]
    return [f"{folder}: takes {', '.join(odd)}"] if odd else []


def read_defects_config(folder: Path) -> list[dict]:
    """Read LOCO's table of defects. Raises InputError when it is missing or not such a table."""
    path = folder / DEFECTS_CONFIG
    needed = {"defect_name", "pixel_value", "saturation_threshold", "relative_saturation"}
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= MOST_CONFIG):
            raise InputError(f"{path} must be a file of at most {MOST_CONFIG} bytes")
        entries = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: it is part of the dataset; copy it there"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    tabular = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    if not tabular or not all(needed <= set(entry) for entry in entries):
        raise InputError(f"{path} must list entries with {', '.join(sorted(needed))}")
    report_faults(
        [
            f"{path}: {str(entry['defect_name'])[:100]} needs a whole pixel_value from 1 to 65535, "
            "and a saturation_threshold above 0, at most 1 when relative"
            for entry in entries
            if not is_saturation(entry)
        ]
    )
    return entries


def is_saturation(entry: dict) -> bool:
    """Tell whether an entry of defects_config.json has values that make sense."""
    value, threshold = entry["pixel_value"], entry["saturation_threshold"]
    relative = entry["relative_saturation"]
    kinds = type(value) is int and type(threshold) in (int, float) and type(relative) is bool
    return kinds and 0 < value < 2**16 and 0 < threshold <= (1 if relative else math.inf)

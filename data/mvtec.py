"""MVTec AD and MVTec LOCO AD: `<category>/{train,validation,test,ground_truth}/...`."""

import json
import math
from pathlib import Path

from data.samples import (
    GOOD,
    IMAGE_SUFFIXES,
    Category,
    InputError,
    Sample,
    check_inside,
    good_samples,
    hold_out,
    list_folders,
    list_images,
    noted,
    report_faults,
    require_images,
)

DEFECTS_CONFIG = "defects_config.json"
MOST_CONFIG = 2**20  # bytes of a defects_config.json; LOCO's have 2,000


def find_categories(root: Path) -> list[str]:
    """Return the folders of `root` that hold training images."""
    return [folder.name for folder in list_folders(root) if (folder / "train" / GOOD).is_dir()]


def read_mvtec_ad(root: Path, name: str, seed: int) -> Category:
    """Read a category of MVTec AD. A tenth of train/good, drawn by `seed`, is for validation.

    Its faults name each folder and mask that is missing.
    """
    folder, faults = root / name, []
    train, validation = [], []
    with noted(faults):
        train = good_samples(require_images(folder / "train" / GOOD, "training"))
        train, validation = hold_out(train, seed)
    return Category(name, train, validation, read_test(folder, faults), faults=faults)


def read_mvtec_loco(root: Path, name: str, seed: int) -> Category:
    """Read a category of MVTec LOCO AD, which brings its own validation split (`seed` is unused).

    Its faults name each folder, mask and entry of defects_config.json that is missing.
    """
    folder, faults = root / name, []
    train, validation, config = [], [], []
    with noted(faults):
        train = good_samples(require_images(folder / "train" / GOOD, "training"))
    with noted(faults):
        validation = good_samples(require_images(folder / "validation" / GOOD, "validation"))
    with noted(faults):
        check_inside(folder / DEFECTS_CONFIG, root)
        config = read_defects_config(folder)
    test = read_test(folder, faults)
    return Category(name, train, validation, test, config, faults)


def read_test(folder: Path, faults: list[str]) -> list[Sample]:
    """Read test/<defect> with each defect's masks, in any layout that `find_masks` knows.

    Adds to `faults` each image without its mask and each mask without its image.
    """
    samples = []
    for defect in list_folders(folder / "test"):
        images = list_images(defect)
        if defect.name == GOOD:
            samples += good_samples(images)
            continue
        for image in images:
            masks = find_masks(folder / "ground_truth" / defect.name, image.stem)
            samples.append(Sample(image, 1, defect.name, masks))
    if any(sample.masks for sample in samples):
        for sample in samples:
            if sample.label and not sample.masks:
                truth = folder / "ground_truth" / sample.defect / sample.image.stem
                faults.append(f"{truth}: there is no mask for {sample.image}")
    known = {mask for sample in samples for mask in sample.masks}
    for defect in list_folders(folder / "ground_truth"):
        nested = [mask for image in list_folders(defect) for mask in list_images(image)]
        for mask in (*list_images(defect), *nested):
            if mask not in known and defect.name != GOOD:
                faults.append(f"{mask}: there is no image in {folder / 'test' / defect.name}")
    return samples


def find_masks(folder: Path, stem: str) -> tuple[Path, ...]:
    """Return an image's masks: `<stem>/*` (LOCO), `<stem>_mask.*` (AD) or `<stem>.*`."""
    if (folder / stem).is_dir():
        return tuple(list_images(folder / stem))
    suffixes = [*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES)]
    names = [f"{name}{suffix}" for name in (f"{stem}_mask", stem) for suffix in suffixes]
    return next(((folder / name,) for name in names if (folder / name).is_file()), ())


def read_defects_config(folder: Path) -> list[dict]:
    """Read LOCO's table of defects. Raises InputError when it is missing or not such a table."""
    path = folder / DEFECTS_CONFIG
    needed = {"defect_name", "pixel_value", "saturation_threshold", "relative_saturation"}
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= MOST_CONFIG):
            raise InputError(f"{path} must be a file of at most {MOST_CONFIG} bytes")
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
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

"""MVTec AD and MVTec LOCO AD: `<category>/{train,validation,test,ground_truth}/...`."""

import json
from pathlib import Path

from data.samples import (
    GOOD,
    IMAGE_SUFFIXES,
    Category,
    InputError,
    Sample,
    good_samples,
    hold_out,
    list_folders,
    list_images,
    require_images,
)


def find_categories(root: Path) -> list[str]:
    """Return the folders of `root` that hold training images."""
    return [folder.name for folder in list_folders(root) if (folder / "train" / GOOD).is_dir()]


def read_mvtec_ad(root: Path, name: str, seed: int) -> Category:
    """Read a category of MVTec AD. A tenth of train/good, drawn by `seed`, is for validation.

    Raises InputError naming the folder or mask that is missing.
    """
    folder = root / name
    train = good_samples(require_images(folder / "train" / GOOD, "training"))
    train, validation = hold_out(train, seed)
    return Category(name, train, validation, read_test(folder))


def read_mvtec_loco(root: Path, name: str, seed: int) -> Category:
    """Read a category of MVTec LOCO AD, which brings its own validation split (`seed` is unused).

    Raises InputError naming the folder, mask or entry of defects_config.json that is missing.
    """
    folder = root / name
    train = good_samples(require_images(folder / "train" / GOOD, "training"))
    validation = good_samples(require_images(folder / "validation" / GOOD, "validation"))
    test = read_test(folder)
    return Category(name, train, validation, test, read_defects_config(folder))


def read_test(folder: Path) -> list[Sample]:
    """Read test/<defect> with each defect's masks, in any layout that `find_masks` knows."""
    samples = []
    for defect in list_folders(folder / "test"):
        images = list_images(defect)
        if defect.name == GOOD:
            samples += good_samples(images)
            continue
        for image in images:
            masks = find_masks(folder / "ground_truth" / defect.name, image.stem)
            samples.append(Sample(image, 1, defect.name, masks))
    check_pairs(folder, samples)
    without = [sample for sample in samples if sample.label and not sample.masks]
    if without and any(sample.masks for sample in samples):
        truth = folder / "ground_truth" / without[0].defect / without[0].image.stem
        raise InputError(f"{truth}: there is no mask for {without[0].image}")
    return samples


def check_pairs(folder: Path, samples: list[Sample]) -> None:
    """Raise InputError for a mask without its image, or two images that would share their mask."""
    known = {mask for sample in samples for mask in sample.masks}
    for defect in list_folders(folder / "ground_truth"):
        nested = [mask for image in list_folders(defect) for mask in list_images(image)]
        for mask in (*list_images(defect), *nested):
            if mask not in known and defect.name != GOOD:
                raise InputError(f"{mask}: there is no image in {folder / 'test' / defect.name}")
    seen: dict[tuple[str, str], Path] = {}
    for sample in samples:
        former = seen.setdefault((sample.defect, sample.image.stem), sample.image)
        if former != sample.image:
            raise InputError(
                f"{former} and {sample.image} differ in their suffix alone: rename one"
            )


def find_masks(folder: Path, stem: str) -> tuple[Path, ...]:
    """Return an image's masks: `<stem>/*` (LOCO), `<stem>_mask.*` (AD) or `<stem>.*`."""
    if (folder / stem).is_dir():
        return tuple(list_images(folder / stem))
    suffixes = [*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES)]
    names = [f"{name}{suffix}" for name in (f"{stem}_mask", stem) for suffix in suffixes]
    return next(((folder / name,) for name in names if (folder / name).is_file()), ())


def read_defects_config(folder: Path) -> list[dict]:
    """Read LOCO's table of defects. Raises InputError when it is missing or not such a table."""
    path = folder / "defects_config.json"
    needed = {"defect_name", "pixel_value", "saturation_threshold", "relative_saturation"}
    try:
        entries = json.loads(path.read_text())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: it is part of the dataset; copy it there"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    tabular = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    if not tabular or not all(needed <= set(entry) for entry in entries):
        raise InputError(f"{path} must list entries with {', '.join(sorted(needed))}")
    for entry in entries:
        value, threshold = entry["pixel_value"], entry["saturation_threshold"]
        numbers = isinstance(value, int) and isinstance(threshold, int | float)
        if not numbers or not 0 < threshold <= (1 if entry["relative_saturation"] else threshold):
            raise InputError(
                f"{path}: {entry['defect_name']} needs a whole pixel_value, and a "
                "saturation_threshold above 0, at most 1 when relative"
            )
    return entries

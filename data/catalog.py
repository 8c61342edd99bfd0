"""Dataset names: where each is expected, how to get it, which categories it has."""

import os
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from data import folder, mvtec, visa
from data.samples import MOST_BYTES, Category, InputError, is_plain, report_faults
from data.unlabelled import ALL_LABELLED, Labelling, set_apart, unmasked


@dataclass(frozen=True)
class Dataset:
    """How to read one dataset. `option` is its path's option; the demo has none: it is drawn."""

    read: Callable[[Path, str, int], Category]
    find: Callable[[Path], list[str]]
    option: str | None
    default_path: Path | None
    hint: str
    saturated: bool = False  # measured by sPRO with a defects_config, else by AU-PRO
    categories: tuple[str, ...] = ()  # as published; of a product of one's own none are known


def of_demo(name: str) -> Callable:
    """Return a function of data.demo, which draws by OpenCV: what never calls it starts sooner."""

    def function(*arguments):
        from data import demo

        return getattr(demo, name)(*arguments)

    return function


DATASETS = {
    "mvtec_loco": Dataset(
        mvtec.read_mvtec_loco,
        mvtec.find_categories,
        "mvtec_loco_path",
        Path("mvtec_loco_anomaly_detection"),
        "download it from https://www.mvtec.com/company/research/datasets/mvtec-loco",
        saturated=True,
        categories=(
            "breakfast_box",
            "juice_bottle",
            "pushpins",
            "screw_bag",
            "splicing_connectors",
        ),
    ),
    "mvtec_ad": Dataset(
        mvtec.read_mvtec_ad,
        mvtec.find_categories,
        "mvtec_ad_path",
        Path("mvtec_anomaly_detection"),
        "download it from https://www.mvtec.com/company/research/datasets/mvtec-ad",
        categories=(
            *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"),
            *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
        ),
    ),
    "visa": Dataset(
        visa.read_visa,
        visa.find_categories,
        "visa_path",
        Path("VisA"),
        "download it as https://github.com/amazon-science/spot-diff tells",
        categories=(
            *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"),
            *("pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"),
        ),
    ),
    "folder": Dataset(
        folder.read_folder,
        folder.find_categories,
        "folder_path",
        None,
        "put good images in <folder_path>/train/good",
    ),
    "demo": Dataset(
        of_demo("read_demo"),
        of_demo("find_categories"),
        None,
        Path("datasets") / "demo",
        "it is drawn at first use",
        saturated=True,
    ),
}


def find_root(dataset: str, path: Path | None) -> Path:
    """Return where `dataset` lies: `path`, or its usual place.

    Raises InputError that names the option and how to get the data.
    """
    entry = DATASETS[dataset]
    root = path or entry.default_path
    if entry.option is None:
        return root
    if root is None:
        raise InputError(f"--{entry.option} is missing: {entry.hint}")
    if not root.is_dir():
        raise InputError(
            f"--{entry.option} {root} does not exist: name its folder, or {entry.hint}"
        )
    return root


def read_category(
    dataset: str, root: Path, name: str | None, seed: int, labelling: Labelling = ALL_LABELLED
) -> Category:
    """Read one category; no `name` is needed where there is only one.

    Warns of what its user may not expect. Raises InputError that lists the categories there are
    when `name` is missing or not one, or that names everything wrong with the category.
    """
    category = survey_category(dataset, root, name, seed, labelling)
    report_faults(category.faults)
    return category


def survey_category(
    dataset: str, root: Path, name: str | None, seed: int, labelling: Labelling = ALL_LABELLED
) -> Category:
    """Read one category as `read_category` does, but leave what is wrong in its `faults`."""
    name = choose_name(dataset, root, name)
    category = set_apart(DATASETS[dataset].read(root, name, seed), labelling)
    category = replace(category, folder=folder_of(category, root))
    category.faults.extend(unmasked(category) + unfit_names(category))
    for note in category.notes:
        warnings.warn(note, stacklevel=3)
    return category


def folder_of(category: Category, root: Path) -> Path:
    """Return the category's own folder below `root`; `root` itself where there is none."""
    own = root / category.name
    inside = all(sample.image.is_relative_to(own) for sample in category.samples)
    return own if inside and category.samples else root


def require_dataset(name: str) -> None:
    """Raise InputError, which lists those there are, when there is no dataset of this name."""
    if name not in DATASETS:
        raise InputError(f"there is no dataset {name}: choose one of {', '.join(DATASETS)}")


def find_all(dataset: str, path: str | None) -> list[str]:
    """Return the categories of `dataset` in `path`, or in its usual place; a product is one itself.

    Raises InputError as `find_root` does, or when there are none.
    """
    root = find_root(dataset, None if path is None else Path(path).expanduser())
    found = DATASETS[dataset].find(root)
    if not found and dataset == "folder" and mvtec.is_category(root):
        return [root.resolve().name]  # the one product that `root` is
    if not found:
        raise InputError(f"{root} holds no category of {dataset}: {DATASETS[dataset].hint}")
    return found


def choose_name(dataset: str, root: Path, name: str | None) -> str:
    """Return the name of the category meant. Raises InputError for one that cannot be."""
    found = DATASETS[dataset].find(root)
    if not found and dataset == "folder":  # then `root` is itself the product
        check_no_inner(root, name)
        name = name or root.resolve().name
    else:
        if name is None and len(found) == 1:
            name = found[0]
        check_found(dataset, root, name, found)
    if not is_plain(name):
        raise InputError(f"--subdataset {name!r} names a folder of the output: choose a plain name")
    return name


def check_no_inner(root: Path, name: str | None) -> None:
    """Raise InputError when `name` is of another product inside the product in `root`."""
    if name and is_plain(name) and name != root.resolve().name and mvtec.is_category(root / name):
        raise InputError(
            f"--subdataset {name}: {root} is itself a product, with another one in {name}: give "
            f"--folder_path {root / name} for that one, or no --subdataset"
        )


def check_found(dataset: str, root: Path, name: str | None, found: list[str]) -> None:
    """Raise InputError when `name` is not among the categories `found` in `root`."""
    if name in found:
        return
    hint = DATASETS[dataset].hint
    there = f"choose one of {', '.join(found)}" if found else f"{root} holds none; {hint}"
    if not found and mvtec.is_category(root):
        there = f"{root} is itself a category: give the folder above it"
    given = f"--subdataset {name} is no category there" if name else "--subdataset is missing"
    raise InputError(f"{given}: {there}")


def unfit_names(category: Category) -> list[str]:
    """Return a fault for each image whose anomaly map could not have its name."""
    faults: list[str] = []
    seen: dict[Path, Path] = {}  # where a map lies -> its image
    for sample in category.scored:
        image, place = sample.image, sample.place.with_suffix(".tiff")
        former = seen.setdefault(place, image)
        if former != image:
            faults.append(f"{former} and {image} would share a map: rename one")
        if len(os.fsencode(place.name)) > MOST_BYTES:
            faults.append(f"{image}: its name is too long for its map's: rename it")
    for sample in category.scored:
        for above in {*sample.place.parents} & {*seen}:
            faults.append(f"{seen[above]} has the map {above}, {sample.image} a folder: rename one")
    return faults


def summary(category: Category) -> str:
    """Say in one line what a category consists of."""
    drawn = " (held out of the training images)" if category.held_out else ""
    parts = [f"{len(category.train)} training", f"{len(category.validation)} validation{drawn}"]
    parts.append(f"{len(category.test)} test images{counted([s.defect for s in category.test])}")
    if category.unlabelled:
        folders = counted([sample.folder for sample in category.unlabelled])
        parts.append(f"{len(category.unlabelled)} without a label{folders}")
    return f"{category.name}, {', '.join(parts)}"


def counted(names: list[str]) -> str:
    """Say how often each name occurs, in brackets."""
    numbers = ", ".join(f"{name} {number}" for name, number in sorted(Counter(names).items()))
    return f" ({numbers})" if numbers else ""

"""Your product: train/good; optional validation/good, test/<defect>, ground_truth/<defect>."""

from pathlib import Path

from data import mvtec
from data.samples import GOOD, Category, good_samples, hold_out, list_images, noted, require_images


def find_categories(root: Path) -> list[str]:
    """Return the products below `root`; none when `root` is itself one product."""
    return mvtec.find_categories(root)


def read_folder(root: Path, name: str, seed: int) -> Category:
    """Read the product in `root`, or in its folder `name` if there is one.

    Without validation/good, a tenth of train/good drawn by `seed` is held out. Its faults name the
    folder that is missing.
    """
    folder, faults = root / name if (root / name).is_dir() else root, []
    train, validation = [], []
    with noted(faults):
        train = good_samples(require_images(folder / "train" / GOOD, "good training"))
        validation = good_samples(list_images(folder / "validation" / GOOD))
        if not validation:
            train, validation = hold_out(train, seed)
    return Category(name, train, validation, mvtec.read_test(folder, faults), faults=faults)

"""Your product: train/good; optional validation/good, test/<defect>, ground_truth/<defect>."""

from pathlib import Path

from data import mvtec
from data.samples import Category, hold_out, noted


def find_categories(root: Path) -> list[str]:
    """Return the products below `root`; none when `root` is itself one product."""
    return mvtec.find_categories(root)


def read_folder(root: Path, name: str, seed: int) -> Category:
    """Read the product in `root`, or in its folder `name` where `root` is none.

    Without validation/good, a tenth of train/good drawn by `seed` is held out. Its faults name the
    folder that is missing.
    """
    product = root if mvtec.is_category(root) or not (root / name).is_dir() else root / name
    train, faults = [], []
    validation = mvtec.list_good(product, "validation")
    held_out = not validation
    with noted(faults):
        train = mvtec.require_good(product, "train", "good training")
        if held_out:
            train, validation = hold_out(train, seed)
    category = Category(name, train, validation, faults=faults, held_out=held_out)
    return mvtec.with_test(product, category)

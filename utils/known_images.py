"""Which images a detector may still learn from: none twice, and none that is to test it."""

import argparse
from pathlib import Path

from data.catalog import DATASETS
from data.fingerprints import all_images, size_and_hash
from data.image_files import warn_of
from data.images import in_background
from data.samples import InputError, noted
from utils.commands import printable, say
from utils.labelling import load_category
from utils.runs import Run

Fingerprints = dict[Path, tuple[int, str]]  # image -> size in bytes and hash


def fingerprints_of(paths: list[Path], workers: int, unreadable: dict[Path, str]) -> Fingerprints:
    """Return what tells each image from others; note in `unreadable` which cannot be read."""

    def look(path: Path) -> list | None:
        try:
            return size_and_hash(path)
        except InputError as error:
            unreadable[path] = str(error)
            return None

    found = zip(paths, in_background(look, paths, workers), strict=True)
    return {path: tuple(pair) for path, pair in found if pair}


def unknown_images(found: Fingerprints, taken_in: list[str], run: Run | None) -> dict[str, Path]:
    """Return by their hashes the images that a detector has not learnt from; warn of the others.

    It has `taken_in` some; a `run` knows what it was trained and calibrated on.
    """
    trained_on = run.read_images() if run else None
    known = {digest for _, digest in all_images(trained_on).values()} if trained_on else set()
    known |= {*taken_in}
    new: dict[str, Path] = {}
    for path, (_, digest) in found.items():
        if digest not in known:
            new.setdefault(digest, path)
    left_out = found.keys() - {*new.values()}
    warn_of([*left_out], "the detector has learnt from it, or it is there twice: left out")
    return new


def check_no_tests(found: Fingerprints, run: Run, workers: int) -> None:
    """Raise InputError for images that are test images of the run's data set, wherever they lie.

    Says so when that cannot be told, as where the data set has moved.
    """
    category = None
    if run.dataset in DATASETS:
        with noted([]):
            category, _ = load_category(run, argparse.Namespace(unlabelled=None, labelled=None))
    if category is None:
        where = printable(run.config_file)
        say(f"{where}: its data set is not there, or not whole: test images would go unnoticed")
        return
    sizes = {size for size, _ in found.values()}
    tests = [s.image for s in category.test if s.image.exists() and s.image.stat().st_size in sizes]
    hashes = {digest for _, digest in fingerprints_of(tests, workers, {}).values()}
    if hit := [path for path, (_, digest) in found.items() if digest in hashes]:
        more = f" and {len(hit) - 1} more" * (len(hit) > 1)
        raise InputError(
            f"{hit[0]}{more}: test images of {run.dataset}/{run.subdataset}, and nothing is fitted "
            "on what measures it: leave them out"
        )

"""--ignore: a picture that is white where nobody is to look."""

import argparse
import warnings
from pathlib import Path

import torch

from data.ignored import nothing_left, read_region, scaled, text_of
from data.samples import InputError
from models.pdn import covers
from utils.detectors import Trained
from utils.files import user_path
from utils.options import check_image_size, image_size


def add_ignore_option(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Add --ignore; `more` is what else its help says."""
    text = f"a picture of any size, white where nobody is to look{more}"
    parser.add_argument("--ignore", type=user_path, metavar="REGION", help=text)


def settle_ignored(options: argparse.Namespace) -> torch.Tensor | None:
    """Return the pixels that --ignore means, bool (H, W) of --image_size; None if all are seen.

    Settles what tells the region from any other, by which a resumed run is compared. Raises
    InputError as `read_region` does, or when nothing would be left.
    """
    options.ignored = None
    if options.ignore is None:
        return None
    white = read_region(options.ignore)
    if check_image_size(options) or not white.any():
        return None
    pixels = scaled(white, image_size(options))
    if covers(pixels):
        raise nothing_left(options.ignore)
    options.ignored = text_of(pixels)
    return pixels


def ignore_more(trained: Trained, path: Path, source: Path) -> bool:
    """Let a trained detector, read from `source`, ignore a region beside what it ignores already.

    Returns whether that is more than before, and warns then: nothing is promised of false alarms.
    Raises InputError as `settle_ignored` does, and for a detector that knows no mean image.
    """
    detector, before = trained.detector, trained.detector.ignored
    if not detector.typical.numel():
        raise InputError(
            f"{source} is of an earlier version, which kept no mean image to put in place of what "
            "is ignored: train it again with --overwrite, or leave --ignore out"
        )
    detector.ignore(scaled(read_region(path), trained.size))
    if covers(detector.ignored):
        raise nothing_left(path)
    if torch.equal(before, detector.ignored):
        return False
    text = f"{path}: {source} was trained without this region, and promises no false-alarm rate now"
    warnings.warn(f"{text}: train with --ignore to keep it", stacklevel=2)
    return True

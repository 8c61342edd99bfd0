"""--ignore: a picture that is white where nobody is to look."""

import argparse
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


def ignore_more(trained: Trained, path: Path) -> bool:
    """Let a trained detector overlook a region beside what it ignores; return whether that is more.

    Raises InputError as `settle_ignored` does, and for one that sees images as a whole alone.
    """
    if trained.detector.experts == ("composition",):
        raise InputError(f"--ignore {path}: the composition is of the whole image: train with it")
    view = trained.detector.view
    before = view.unseen
    view.overlook(scaled(read_region(path), trained.size))
    if covers(view.unseen):
        raise nothing_left(path)
    return not torch.equal(before, view.unseen)

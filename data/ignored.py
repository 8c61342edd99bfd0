"""The region that nobody is to look at: what is white in a picture of any size."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from data.depth import read_picture
from data.image_files import Size, warn_of
from data.samples import InputError

WHITE = 128  # the darkest grey level that is white


def read_region(path: Path) -> np.ndarray:
    """Return which pixels of a region's file are white, bool (H, W) of its own size.

    Raises InputError when it cannot be read, or is white all over; warns when nothing is white.
    """
    white = np.asarray(read_picture(path).rgb().convert("L")) >= WHITE
    if white.all():
        raise nothing_left(path)
    if not white.any():
        warn_of([path], "no pixel is white: nothing is ignored")
    return white


def nothing_left(path: Path) -> InputError:
    """Return the error for a region that leaves nothing to look at."""
    return InputError(f"{path} leaves nothing to look at: make black what is to be seen")


def scaled(white: np.ndarray, size: Size) -> torch.Tensor:
    """Return which pixels of images that were resized to `size` are ignored, bool of that size.

    `white`, bool (H, W), is scaled to the frame of an image, whatever its size. All pixels are
    ignored to which an ignored pixel adds something as `data.images.resize` does it: of images as
    large as `white`, and of all that are not smaller than `size`.
    """
    region = Image.fromarray(white.astype(np.float32))  # integers would lose the least parts
    resized = region.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    ignored = torch.from_numpy((np.asarray(resized) > 0).astype(np.float32))
    # the pixels of an image of another size reach further beyond the rim, by less than one of these
    return F.max_pool2d(ignored[None], 3, stride=1, padding=1)[0] > 0


def text_of(ignored: torch.Tensor) -> str:
    """Return what tells a scaled region from any other, for people, too."""
    digest = hashlib.blake2b(ignored.numpy().tobytes(), digest_size=4).hexdigest()
    return f"{100 * ignored.float().mean():.1f} % of the image ({digest})"

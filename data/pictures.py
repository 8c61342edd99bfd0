"""A picture as a program has it, a file, an image or an array, as RGB of 8 bits."""

from pathlib import Path

import numpy as np
from PIL import Image

from data.depth import read_picture
from data.image_files import upright
from data.samples import InputError

Picture = str | Path | Image.Image | np.ndarray  # an array is uint8 (H, W, 3), RGB


def rgb_of(picture: Picture, bits: int | None = None) -> Image.Image:
    """Return a picture as 8-bit RGB, upright; values of a deeper file are scaled from `bits`.

    Raises InputError for a file that cannot be read, ValueError for what is no picture.
    """
    if isinstance(picture, str | Path):
        return read_picture(Path(picture)).rgb(bits)
    if isinstance(picture, np.ndarray):
        shape = picture.shape
        if picture.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or not picture.size:
            raise ValueError(f"an array must be RGB, uint8 (H, W, 3), not {picture.dtype} {shape}")
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise ValueError(f"a picture is a path, a PIL image or an array, not {type(picture)}")
    if picture.mode[0] in "IF":
        raise ValueError(f"give the path of an image deeper than 8 bits, not mode {picture.mode}")
    try:
        return upright(picture).convert("RGB")
    except OSError as error:  # PIL reads a file's pixels only now
        raise InputError(f"cannot read the image {picture}: {error}") from error

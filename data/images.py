"""The one preprocessing: decode, resize, normalise, augment.

Training, evaluation and export see an image through the same functions: RGB, PIL's antialiased
bilinear resize, ImageNet normalisation. (cv2's INTER_AREA differs from that resize by 3 grey
levels on average, a bilinear without antialiasing by 8.5.)
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from data.depth import read_picture
from data.image_files import Size, opened, upright_size, warn_of
from data.samples import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# What a detector's file says of this module, and is refused by where that changes.
PREPROCESSING = "RGB upright, PIL bilinear with antialiasing, ImageNet mean and std"

GREY = (0.2989, 0.587, 0.114)  # of red, green and blue; source: ITU-R BT.601, as in torchvision


def decode(path: Path, content: BinaryIO | None = None, bits: int | None = None) -> Image.Image:
    """Read an image file as 8-bit RGB; `content` is what it holds if it lies in an archive.

    Turned as its EXIF says; grayscale is repeated, a palette is looked up, alpha is dropped. Values
    deeper than 8 bits are scaled from `bits`, or from as many as hold those of this image.
    Raises InputError naming a file that is missing, cut short, too large or no image that we can
    show.
    """
    return read_picture(path, content).rgb(bits)


def image_size(path: Path) -> Size:
    """Return the (height, width) that an image file is shown in, reading its header alone.

    Raises InputError naming a file that is missing or no image.
    """
    with opened(path) as image:
        return upright_size(image)


def resize(
    image: Image.Image, size: Size, box: tuple[float, float, float, float] | None = None
) -> torch.Tensor:
    """Resize an RGB image to `size` (height, width): uint8 (3, H, W).

    Or only its part in a `box` (left, top, right, bottom), in pixels.
    """
    resized = image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def load_image(
    path: Path,
    size: Size,
    bits: int | None = None,
    deeper: list[Path] | None = None,
    content: BinaryIO | None = None,
) -> tuple[torch.Tensor, Size]:
    """Read one image: uint8 (3, H, W) at `size`, and the file's own (height, width).

    `bits` and `content` as in `decode`; adds the path to `deeper` if its values need more bits.
    """
    picture = read_picture(path, content)
    if deeper is not None and picture.bits > (bits or picture.bits):
        deeper.append(path)
    image = picture.rgb(bits)
    return resize(image, size), (image.height, image.width)


def warn_of_deeper(paths: list[Path], bits: int) -> None:
    """Warn of images with values above `bits`, once for all of them."""
    text = f"values of more than the {bits} bits of all training images; what is above is white"
    warn_of(paths, text)


def in_background(
    function: Callable, items: Iterable, workers: int, prompt: bool = False
) -> Iterator:
    """Yield `function(item)` in order while threads work a few items ahead.

    Unlike `ThreadPoolExecutor.map` it never holds more than a few results that nobody took. If
    `prompt`, what is done is yielded before more items are asked for, which may take long to come.
    """
    with ThreadPoolExecutor(max(1, workers)) as pool:
        pending = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                while len(pending) > 2 * max(1, workers) or (
                    prompt and pending and pending[0].done()
                ):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def load_images(paths: list[Path], size: Size, workers: int) -> torch.Tensor:
    """Decode and resize every image once: uint8 (N, 3, H, W), kept by the caller."""
    images = torch.empty((len(paths), 3, *size), dtype=torch.uint8)
    loaded = in_background(lambda path: load_image(path, size)[0], paths, workers)
    for slot, image in zip(images, loaded, strict=True):
        slot.copy_(image)
    return images


def image_batches(
    paths: Iterable[Path],
    size: Size,
    workers: int,
    batch_size: int,
    bits: int | None = None,
    unreadable: dict[Path, str] | None = None,
) -> Iterator[tuple[torch.Tensor, list[Size]]]:
    """Decode `paths` ahead of use; yield them in order: uint8 (N, 3, H, W), their files' sizes.

    `bits` as in `decode`; in the end warns of images whose values need more. One that cannot be
    read is an InputError; or it is left out, and noted in `unreadable`.
    """
    deeper: list[Path] = []

    def load(path: Path) -> tuple[torch.Tensor, Size] | None:
        try:
            return load_image(path, size, bits, deeper)
        except InputError as error:
            if unreadable is None:
                raise
            unreadable[path] = str(error)
            return None

    loaded = filter(None, in_background(load, paths, workers))
    while batch := list(islice(loaded, batch_size)):
        images, sizes = zip(*batch, strict=True)
        yield torch.stack(images), list(sizes)
    if bits is not None:
        warn_of_deeper(deeper, bits)


@lru_cache
def constants(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Return one value for each colour, (3, 1, 1), put on `device` once: a copy waits for it."""
    return torch.tensor(values, device=device).view(3, 1, 1)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Turn (N, 3, H, W) in [0, 255] into what the networks see: float32, ImageNet mean and std."""
    mean, std = (constants(values, images.device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images / 255 - mean) / std


def draw_jitter(number: int, rng: np.random.Generator, most: float) -> torch.Tensor:
    """Draw for each image a change of brightness, contrast or saturation, for `jitter`.

    Returns float32 (number, 3): a factor from U(1 - most, 1 + most), then how much of the image's
    mean grey and of each pixel's grey it blends with. Source: EfficientAD, appendix A.3.
    """
    changes = torch.zeros(number, 3)
    for change in changes:
        kind = rng.integers(3)
        change[0] = rng.uniform(1 - most, 1 + most)
        if kind > 0:  # contrast, saturation; brightness blends with black
            change[kind] = 1
    return changes


def jitter(images: torch.Tensor, changes: torch.Tensor) -> torch.Tensor:
    """Apply `draw_jitter`'s changes: (N, 3, H, W) in [0, 255] -> the same, float32, not rounded.

    All three changes are blends, image * factor + other * (1 - factor), so that one expression
    serves for every image, and a CUDA graph can hold it.
    """
    images = images.float()
    factor, contrast, saturation = changes.view(-1, 3, 1, 1, 1).unbind(1)
    grey = (images * constants(GREY, images.device)).sum(1, keepdim=True)
    other = contrast * grey.mean((2, 3), keepdim=True) + saturation * grey
    return (images * factor + other * (1 - factor)).clamp(0, 255)

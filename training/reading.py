"""Read every image and mask of a category once, before anything is computed."""

from collections import defaultdict
from pathlib import Path

import torch

from data.depth import read_picture
from data.image_files import warn_of
from data.images import Size, in_background, load_image, resize, warn_of_deeper
from data.mask_values import Odd, warn_of_odd
from data.masks import UnlistedValue, regions
from data.samples import Category, InputError, Sample, noted
from utils.progress import progress

# Nothing tells their true depth: what the test images hold must not be learnt from.
DEEP = "deeper than 8 bits, as no training image is; its values are taken for 16 bits"


def read_images(
    category: Category, size: Size | None, workers: int
) -> tuple[torch.Tensor | None, int | None, list[str]]:
    """Decode every image, and compare every mask with its image and the table of defects.

    Returns the training images at `size` (height, width), uint8 (N, 3, H, W), if one is given, the
    depth in bits that holds the values of all that are deeper than 8, None if none is, and a fault
    for each file that cannot be used, but one for each value of masks that the table of defects
    lacks. The other images are read to be dropped again: a bad one is to be named now, not after
    hours of training.
    """
    number, samples = len(category.train), category.samples
    images = None if size is None else torch.empty((number, 3, *size), dtype=torch.uint8)
    depths: dict[Path, int] = {}
    odd: Odd = []
    unlisted: dict[int, list[Path]] = defaultdict(list)  # value -> masks

    def look(index: int) -> list[str]:
        faults, sample = [], samples[index]
        with noted(faults):
            picture = read_picture(sample.image)
            if picture.is_deep:
                depths[sample.image] = picture.bits
            image = picture.rgb()
            faults += mask_faults(sample, (image.height, image.width), category, odd, unlisted)
            if images is not None and index < number:
                images[index] = resize(image, size)
        return faults

    looked = in_background(look, range(len(samples)), workers)
    bar = progress("reading images", len(samples), "img", looked)
    faults = [fault for faults in bar for fault in faults]
    faults += [str(UnlistedValue(masks, value)) for value, masks in sorted(unlisted.items())]
    bits = max((depths[s.image] for s in category.train if s.image in depths), default=None)
    if images is not None and bits and not faults:
        bring_to_depth(bits, images, category.train, depths, workers)
    later = [s.image for s in samples[number:] if s.image in depths]
    if bits is None:
        warn_of(later, DEEP)
    else:
        warn_of_deeper([path for path in later if depths[path] > bits], bits)
    warn_of_odd(odd)
    return images, bits, faults


def bring_to_depth(
    bits: int, images: torch.Tensor, samples: list[Sample], depths: dict[Path, int], workers: int
) -> None:
    """Read those of `images` again that were scaled from fewer bits: dark ones among deep ones."""
    size = tuple(images.shape[-2:])
    dark = [index for index, sample in enumerate(samples) if depths.get(sample.image, bits) < bits]
    paths = [samples[index].image for index in dark]
    loaded = in_background(lambda path: load_image(path, size, bits)[0], paths, workers)
    for index, image in zip(dark, loaded, strict=True):
        images[index] = image


def mask_faults(
    sample: Sample,
    size: Size,
    category: Category,
    odd: Odd,
    unlisted: dict[int, list[Path]],
) -> list[str]:
    """Return a fault for each mask that cannot be that of an image of `size`.

    Adds to `odd` what is odd about the masks, and to `unlisted` those with a value that the table
    of defects lacks.
    """
    faults: list[str] = []
    for mask in sample.masks:
        try:
            regions((mask,), size, category.defects_config, odd)
        except UnlistedValue as error:
            unlisted[error.value].append(mask)
        except InputError as error:
            faults += error.args
    return faults

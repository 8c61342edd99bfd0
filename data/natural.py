"""Natural images, decoded by background workers: for the penalty and for distillation."""

import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from data.images import Size, decode, resize
from data.samples import InputError, is_image

PENALTY_GRAYSCALE = 0.3  # probabilities; source: EfficientAD, appendix A.3
DISTILLATION_GRAYSCALE = 0.1
STREAM = 1  # tells these random numbers from those of the product's images
ATTEMPTS = 20  # unreadable files in a row before giving up


def list_natural_images(folder: Path) -> list[Path]:
    """Return every image below `folder`, sorted. Raises InputError when there is none."""
    if not folder.is_dir():
        raise InputError(f"--imagenet_train_path {folder} does not exist: name a folder of images")
    paths = sorted(path for path in folder.rglob("*") if is_image(path))
    if not paths:
        raise InputError(f"--imagenet_train_path {folder} holds no image: name a folder of images")
    return paths


def penalty_view(image: Image.Image, size: Size, rng: np.random.Generator) -> torch.Tensor:
    """Resize to twice `size`, sometimes to grey, and cut the centre: uint8 (3, H, W)."""
    height, width = size
    if rng.random() < PENALTY_GRAYSCALE:
        image = image.convert("L").convert("RGB")
    top, left = height // 2, width // 2
    return resize(image, (2 * height, 2 * width))[:, top : top + height, left : left + width]


def distillation_view(
    image: Image.Image, size: Size, rng: np.random.Generator, mirror: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same image for the backbone and the PDN: uint8 (3, 2H, 2W) and (3, H, W)."""
    if rng.random() < DISTILLATION_GRAYSCALE:
        image = image.convert("L").convert("RGB")
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return resize(image, (2 * size[0], 2 * size[1])), resize(image, size)


class NaturalImages(Dataset):
    """An endless stream of views; item i depends on (paths, seed, i) alone, so it can resume."""

    def __init__(self, paths: list[Path], size: Size, seed: int, view: Callable):
        self.paths, self.size, self.seed, self.view = paths, size, seed, view

    def __getitem__(self, position: int):
        rng = np.random.default_rng((self.seed, STREAM, position))
        for _ in range(ATTEMPTS):
            path = self.paths[rng.integers(len(self.paths))]
            try:
                return self.view(decode(path), self.size, rng)
            except InputError as error:  # one bad file of a million must not end a long run
                warnings.warn(f"skipped: {error}", stacklevel=1)
        raise InputError(f"{ATTEMPTS} natural images in a row could not be read, last {path}")


def load_batches(images: NaturalImages, batch_size: int, steps: range, workers: int) -> Iterator:
    """Yield one batch of views for each of `steps`, decoded by `workers` processes ahead of use.

    Takes nothing from the global random generator. Raises InputError as a worker does.
    """
    with warnings.catch_warnings():
        # more workers than cores slow nothing down: they wait while the batches ahead last
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader = DataLoader(
            images,
            batch_size=batch_size,
            sampler=range(steps.start * batch_size, steps.stop * batch_size),
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=leave_interrupts_to_parent,
            generator=torch.Generator(),
        )
        batches = iter(loader)
    try:
        yield from batches
    except InputError as error:  # from a worker it comes with the worker's traceback
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from None


def leave_interrupts_to_parent(worker: int) -> None:
    """Ignore Ctrl-C in a worker: the training loop still needs its batch to stop cleanly."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

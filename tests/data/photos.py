"""What tests of natural images share: small photographs, and a stream of them."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from data.natural import NaturalImages, find_natural_images, penalty_view

SIZE = (24, 32)  # height, width
VIEW = partial(penalty_view, grey=0.3)  # the published one


class FixedDraw:
    """Stand in for a generator whose every draw is `value`."""

    def __init__(self, value: float):
        self.value = value

    def random(self) -> float:
        return self.value


def photo(seed: int, size: tuple[int, int] = (40, 60)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def stream(folder: Path, seed: int = 4) -> NaturalImages:
    return NaturalImages(find_natural_images(folder), SIZE, seed, VIEW)

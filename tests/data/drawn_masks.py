"""What tests of masks share: masks drawn by hand or at random, and what their regions hold."""

from pathlib import Path

import numpy as np
from PIL import Image

from data.masks import Region

SIZE = (12, 17)  # height, width


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def random_mask(seed: int, density: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).random(size) < density


def square(value: int, dtype: type = np.uint8) -> np.ndarray:
    """Draw a square of 3 x 4 pixels with `value` in it, 0 around it."""
    pixels = np.zeros(SIZE, dtype)
    pixels[2:5, 3:7] = value
    return pixels


SQUARE = set(np.flatnonzero(square(1)).tolist())


def pixels_of(regions: list[Region]) -> list[set[int]]:
    found = [set(pixels.tolist()) for pixels, _ in regions]
    assert [len(pixels) for pixels, _ in regions] == [len(pixels) for pixels in found]
    return found


def entry(value: int, threshold: float, relative: bool) -> dict:
    return {
        "defect_name": f"defect {value}",
        "pixel_value": value,
        "saturation_threshold": threshold,
        "relative_saturation": relative,
    }

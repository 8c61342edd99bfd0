"""What tests of images share: coloured waves, as an array and as a file."""

from pathlib import Path

import numpy as np
from PIL import Image


def colours(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    """Draw smooth shapes with a little noise: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / (3 + c) + seed) + np.cos(y / (2 + c)) for c in range(3)], -1)
    return np.clip(128 + 50 * waves + rng.normal(0, 5, waves.shape), 0, 255).astype(np.uint8)


def write(path: Path, seed: int = 0, size: tuple[int, int] = (40, 56)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colours(*size, seed)).save(path)
    return path

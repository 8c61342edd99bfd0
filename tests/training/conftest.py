"""A few natural images, and the kinds of detectors whose steps are compared."""

import numpy as np
import pytest
from PIL import Image

from data.natural import Files
from tests.training.stepping import KINDS


@pytest.fixture(scope="module", params=KINDS, ids=str)
def kind(request) -> tuple[str, str]:
    return request.param


@pytest.fixture
def natural(tmp_path) -> Files:
    """Make a few natural images."""
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 50, 3), "uint8")).save(path)
    return Files(paths)

"""What a training draws at random: one seed gives each use numbers of its own."""

from enum import IntEnum
from functools import lru_cache

import numpy as np

DRAWS = 2  # the version of all this, stored in checkpoints


class Draw(IntEnum):
    """What numbers are drawn for: without it, step 3's jitter would repeat epoch 3's order."""

    NATURAL = 1
    ORDER = 2
    JITTER = 3
    SHARD_ORDER = 4
    SHARD_START = 5
    PLACES = 6


def generator(seed: int, draw: Draw, *place: int) -> np.random.Generator:
    """Return the random generator of one place in a stream, such as a step or an epoch."""
    return np.random.default_rng((seed, draw, *place))


@lru_cache(maxsize=2)  # a batch may lie in two epochs
def permutation(seed: int, draw: Draw, epoch: int, count: int) -> np.ndarray:
    """Return the order of an epoch's images, or of whatever else there are `count`."""
    return generator(seed, draw, epoch).permutation(count)

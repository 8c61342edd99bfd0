"""Score image files: threads decode ahead of the detector, and others may write behind it."""

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from data.images import Size, image_batches
from scoring.scorer import Scorer
from utils.devices import synchronise
from utils.files import written_aside

WRITERS = 4  # threads at most that write maps: each holds some, as large as images


class Scored(NamedTuple):
    """What a detector gives an image."""

    path: Path | None
    scores: dict[str, float]  # see `Found.scored`
    anomaly_map: torch.Tensor  # (height, width) of the image's file, float32, on the device
    seconds: float  # its part of the time that its batch took, without decoding


# Gives what was scored of each path, in order, by so many threads that decode ahead; what cannot be
# read is left out, and noted in the last.
ScoreFiles = Callable[[list[Path], int, dict[Path, str]], Iterator[Scored]]


def score_files(
    scorer: Scorer, size: Size, paths: list[Path], workers: int, unreadable: dict[Path, str]
) -> Iterator[Scored]:
    """Yield what the detector gives each image, which it sees at `size`; see `ScoreFiles`."""
    compute, bits = scorer.compute, int(scorer.detector.bits)
    readable = (path for path in paths if path not in unreadable)  # asked as they are scored
    count = compute.scoring_batch_size
    for batch, sizes in image_batches(paths, size, workers, count, bits, unreadable):
        begun = time.perf_counter()
        found = scorer.look(batch)
        scores, maps = scorer.resized(found, sizes)
        synchronise(compute.device)
        seconds = (time.perf_counter() - begun) / len(batch)
        for of_image, anomaly_map in zip(found.scored(scores), maps, strict=True):
            yield Scored(next(readable), of_image, anomaly_map, seconds)


def write_map(path: Path, anomaly_map: np.ndarray) -> None:
    """Write an anomaly map (H, W) as float32 TIFF."""
    import tifffile  # here, so that a command that writes none starts sooner

    content = io.BytesIO()  # tifffile's own error does not say that a disk is full
    tifffile.imwrite(content, anomaly_map)
    with written_aside(path, durable=False) as aside:
        aside.write_bytes(content.getbuffer())

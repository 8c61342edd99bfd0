"""What is said of a picture, and by what: a detector in PyTorch, or an exported file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from data.images import Size
from data.pictures import Picture
from data.samples import ANOMALOUS, GOOD
from scoring.scorer import SCORE
from scoring.stream import Scored
from scoring.thresholds import is_anomalous, p_values


class Region(NamedTuple):
    """Connected pixels above the map's threshold, around the highest one."""

    left: int  # pixels of the image, as are the others
    top: int
    right: int  # the first column beside it
    bottom: int
    area: int


@dataclass(frozen=True)
class Prediction:
    """What a detector says of one picture."""

    path: Path | None  # None for one that is no file; of a frame what it is called
    anomalous: bool  # its score is above the threshold
    score: float
    p_value: float | None  # None by a detector of an earlier version, which cannot tell
    threshold: float
    region: Region | None  # None where nothing is above the map's threshold
    anomaly_map: np.ndarray  # float32 (H, W) of the picture
    map_threshold: float
    experts: dict[str, float]  # each expert's own score
    seconds: float  # that the detector took, without decoding
    ignored: np.ndarray | None = None  # bool, of what the detector sees; None where nothing is
    drift: float | None = None  # see `prediction.changes`, where it is asked for

    @property
    def verdict(self) -> str:
        return ANOMALOUS if self.anomalous else GOOD


class Tally(NamedTuple):
    """How many pictures there were, and what became of them."""

    scored: int = 0
    anomalous: int = 0
    unreadable: int = 0

    @staticmethod
    def sum(tallies: "Iterable[Tally]") -> "Tally":
        return Tally(*map(sum, zip(Tally(), *tallies, strict=True)))

    @property
    def pictures(self) -> int:
        return self.scored + self.unreadable


def strongest_region(anomaly_map: np.ndarray, threshold: float) -> Region | None:
    """Return the region of the map's (H, W) highest pixel, neighbours at corners included."""
    row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
    if not anomaly_map[row, column] > threshold:
        return None
    import cv2  # here, so that a first picture that is good is there sooner

    above = (anomaly_map > threshold).astype(np.uint8)
    connected = 8  # neighbours, corners included
    area, _, _, (left, top, width, height) = cv2.floodFill(
        above, None, (int(column), int(row)), 2, flags=connected
    )
    return Region(left, top, left + width, top + height, area)


class Predictor:
    """What gives predictions: see `prediction.predictor.load_detector`."""

    about: dict  # what the file says of itself
    size: Size  # height, width of what the networks see, in pixels
    bits: int  # from which images deeper than 8 bits are scaled
    experts: tuple[str, ...]  # whose own scores each prediction has
    good_scores: torch.Tensor  # (n,), rising, of held-out good images, on the CPU
    threshold: float
    map_threshold: float
    false_alarm_rate: float | None  # that the threshold keeps; None by an earlier version
    ignored: np.ndarray | None = None  # see `Prediction`
    batch_size = 1  # pictures at once

    def predict(self, images: Picture | list[Picture]) -> Prediction | list[Prediction]:
        """Return what the detector says of a picture, or of each in a list.

        A picture is a file's path, a PIL image, or an array, RGB uint8 (H, W, 3). Raises InputError
        for a file that cannot be read, ValueError for what is no picture.
        """
        raise NotImplementedError

    def score_files(
        self, paths: list[Path], workers: int, unreadable: dict[Path, str]
    ) -> Iterator[Scored]:
        """Yield what `judge` takes of each file; see `scoring.stream.ScoreFiles`."""
        raise NotImplementedError

    def judge(self, scored: Scored) -> Prediction:
        """Return the prediction of what was scored; any thread may do this."""
        score, anomaly_map = scored.scores[SCORE], scored.anomaly_map.cpu().numpy()
        p = p_values(self.good_scores, torch.tensor([score]))
        return Prediction(
            scored.path,
            is_anomalous(score, self.threshold),
            score,
            p if p is None else p.item(),
            self.threshold,
            strongest_region(anomaly_map, self.map_threshold),
            anomaly_map,
            self.map_threshold,
            {name: own for name, own in scored.scores.items() if name != SCORE},
            scored.seconds,
            self.ignored,
        )

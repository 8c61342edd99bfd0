"""Whether an exported file says what its detector does, image by image."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deployment.description import spread_of
from deployment.exported import Exported
from prediction.verdicts import Predictor
from utils.progress import progress


class Goals(NamedTuple):
    """How large `Agreement`'s differences may be."""

    score: float
    anomaly_map: float  # one of 200 places of good maps is above 0.1
    verdicts: float = math.inf  # a score that is close changes only those at the threshold


# By the precision of networks. Below fp32 they are round numbers, chosen before any test image:
# half of what good images differ by among themselves.
GOALS = {"fp32": Goals(1e-3, 1e-3, 0), "bf16": Goals(0.5, 0.05), "int8": Goals(0.5, 0.1)}


class Agreement(NamedTuple):
    """The largest differences over some images."""

    images: int
    score: float  # in standard deviations of good images, as a part of what is above one
    anomaly_map: float  # of a pixel, as a part of what it is where that is above 1
    verdicts: int  # images with another one

    def is_close(self, goals: Goals) -> bool:
        return all(found <= goal for found, goal in zip(self[1:], goals, strict=True))


def compare(predictor: Predictor, exported: Exported, paths: list[Path]) -> Agreement:
    """Compare what a detector and its exported file say of image files."""
    scores, maps, verdicts = [], [], 0
    spread = spread_of(exported.description.good_scores)
    for path in progress("comparing", len(paths), "image", paths):
        ours, theirs = exported.predict(path), predictor.predict(path)
        scores.append(abs(ours.score - theirs.score) / max(spread, abs(theirs.score)))
        off = np.abs(ours.anomaly_map - theirs.anomaly_map)
        maps.append((off / np.maximum(1, np.abs(theirs.anomaly_map))).max())
        verdicts += ours.anomalous != theirs.anomalous
    return Agreement(len(paths), float(max(scores)), float(max(maps)), verdicts)

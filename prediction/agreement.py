"""Whether an exported file says what its detector does, image by image."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from deployment.exported import Exported
from prediction.verdicts import Predictor
from utils.progress import progress

SCORE_GOAL = 1e-3  # of the standard deviation of good images' scores
MAP_GOAL = 1e-3  # one of 200 places of good maps is above 0.1


class Agreement(NamedTuple):
    """The largest differences over some images."""

    images: int
    score: float  # in standard deviations of good images' scores
    anomaly_map: float  # of a pixel, as a part of what it is where that is above 1
    verdicts: int  # images with another one

    @property
    def is_close(self) -> bool:
        return self.score <= SCORE_GOAL and self.anomaly_map <= MAP_GOAL and not self.verdicts


def compare(predictor: Predictor, exported: Exported, paths: list[Path]) -> Agreement:
    """Compare what a detector and its exported file say of image files."""
    scores, maps, verdicts = [], [], 0
    for path in progress("comparing", len(paths), "image", paths):
        ours, theirs = exported.predict(path), predictor.predict(path)
        scores.append(abs(ours.score - theirs.score))
        off = np.abs(ours.anomaly_map - theirs.anomaly_map)
        maps.append((off / np.maximum(1, np.abs(theirs.anomaly_map))).max())
        verdicts += ours.anomalous != theirs.anomalous
    good = exported.description.good_scores
    spread = np.std(good) or abs(good[0])  # a single image has none
    return Agreement(len(paths), float(max(scores) / spread), float(max(maps)), verdicts)

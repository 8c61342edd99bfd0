"""A trained detector for new pictures: `load_detector`, then `predict`. See docs/python.md."""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from data.images import Size, resize
from data.pictures import Picture, rgb_of
from data.samples import ANOMALOUS, GOOD, InputError, report_faults
from models.experts import COMBINED
from scoring.scorer import SCORE, Scorer
from scoring.stream import Scored, score_files
from scoring.thresholds import is_anomalous, map_threshold, p_values, set_thresholds
from utils.detectors import Trained, find_detector, read_detector
from utils.devices import PRECISIONS, Compute, as_trained, pick_compute, synchronise
from utils.ignoring import ignore_more
from utils.options import check_positive


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
    """A detector that was read from its file, and how it is to compute.

    `false_alarm_rate` is the one that its thresholds keep, None for a detector of an earlier
    version.
    """

    def __init__(self, trained: Trained, compute: Compute, rate: float | None, source: str):
        self.about, self.size = trained.about, trained.size
        rate = rate or trained.about.get("false_alarm_rate")
        self.false_alarm_rate = rate and set_thresholds(trained.detector, rate, source)
        self.threshold = trained.detector.threshold.item()
        self.map_threshold = map_threshold(trained.detector)
        ignored = trained.detector.view.unseen.cpu().numpy()
        self.ignored = ignored if ignored.size else None
        self.scorer, self.batch_size = Scorer(trained.detector, compute), compute.scoring_batch_size
        self.detector = self.scorer.detector
        self.detector.good_scores = self.detector.good_scores.cpu()  # verdicts wait for no GPU

    def predict(self, images: Picture | list[Picture]) -> Prediction | list[Prediction]:
        """Return what the detector says of a picture, or of each in a list.

        A picture is a file's path, a PIL image, or an array, RGB uint8 (H, W, 3). Raises InputError
        for a file that cannot be read, ValueError for what is no picture.
        """
        if not isinstance(images, list):
            return self.predict([images])[0]
        count = self.scorer.compute.scoring_batch_size
        batches = (images[start : start + count] for start in range(0, len(images), count))
        return [found for batch in batches for found in self._predict_batch(batch)]

    def _predict_batch(self, images: list[Picture]) -> list[Prediction]:
        seen, sizes = zip(*map(self._load, images), strict=True)
        begun = time.perf_counter()
        found = self.scorer.look(torch.stack(seen))
        scores, maps = self.scorer.resized(found, sizes)
        synchronise(self.scorer.compute.device)
        seconds = (time.perf_counter() - begun) / len(images)
        rows = found.scored(scores)
        paths = [Path(i) if isinstance(i, str | Path) else None for i in images]
        scored = map(Scored, paths, rows, maps, [seconds] * len(images))
        return [self.judge(one) for one in scored]

    def _load(self, image: Picture) -> tuple[torch.Tensor, Size]:
        """Return what the detector is to see, uint8 (3, H, W), and the picture's own size."""
        rgb = rgb_of(image, int(self.detector.bits))
        return resize(rgb, self.size), (rgb.height, rgb.width)

    def score_files(
        self, paths: list[Path], workers: int, unreadable: dict[Path, str]
    ) -> Iterator[Scored]:
        """Yield what `judge` takes of each file, in order, decoded ahead in threads.

        One that cannot be read is left out, and noted in `unreadable`.
        """
        return score_files(self.scorer, paths, self.size, workers, unreadable)

    def judge(self, scored: Scored) -> Prediction:
        """Return the prediction of what was scored; any thread may do this."""
        score, anomaly_map = scored.scores[SCORE], scored.anomaly_map.cpu().numpy()
        p = p_values(self.detector, COMBINED, torch.tensor([score]))
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


def load_detector(
    path: str | Path,
    device: str = "auto",
    precision: str = "auto",
    false_alarm_rate: float | None = None,
    scoring_batch_size: int | None = None,
    ignore: str | Path | None = None,
    **more,
) -> Predictor:
    """Read a detector: its file, a run's folder, or an output folder with one run.

    `device` and `precision` as in the options of predict.py, whose defaults are the same, as
    `scoring_batch_size`, images at once, `ignore`, a picture that is white where nobody is to look,
    and `more` of them. Raises InputError when the detector or that picture cannot be read, or the
    machine lacks what is asked for.
    """
    if false_alarm_rate is not None and not 0 < false_alarm_rate < 1:
        raise InputError(f"false_alarm_rate must be above 0 and below 1, not {false_alarm_rate}")
    own = {"device": device, "precision": precision, "scoring_batch_size": scoring_batch_size}
    asked = argparse.Namespace(**{"device_gpu": None, "compile": "auto"} | own | more)
    faults = check_positive(asked, "scoring_batch_size")
    if precision not in ("auto", *PRECISIONS):
        faults.append(f"precision must be auto or one of {', '.join(PRECISIONS)}, not {precision}")
    report_faults(faults)
    compute, file = pick_compute(asked), find_detector(Path(path))
    trained = read_detector(file, compute.device)
    if ignore is not None:
        ignore_more(trained, Path(ignore))
    compute = as_trained(compute, precision, trained.precision)
    return Predictor(trained, compute, false_alarm_rate, str(file))

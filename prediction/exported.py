"""An exported file in a detector's place: predictions as those of `Predictor`."""

import argparse
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from data.images import in_background
from data.pictures import Picture
from data.samples import InputError
from deployment.description import Description
from deployment.exported import Exported
from deployment.runtimes import USUAL, load_exported
from models.experts import COMBINED
from prediction.predictor import Prediction, Predictor
from scoring.scorer import SCORE
from scoring.stream import Scored
from scoring.thresholds import set_thresholds


class Verdicts:
    """What verdicts go by, named as in `Detector`, of what an exported file says of itself."""

    rated = (COMBINED,)

    def __init__(self, description: Description):
        self.bits, self.experts = description.bits, description.experts
        self.statistics = bool(self.experts)  # by them alone experts have scores in one unit
        self.good_scores = torch.tensor([description.good_scores])
        self.threshold = torch.tensor(description.threshold)


class ExportedPredictor(Predictor):
    """An exported file in a runtime; a `rate` of None is the one that it was exported for."""

    batch_size, ignored = 1, None  # a region that is ignored is in the graph

    def __init__(self, exported: Exported, rate: float | None):
        said = exported.description
        self.exported, self.about, self.size = exported, said._asdict(), said.image_size
        self.detector, self.false_alarm_rate = Verdicts(said), said.false_alarm_rate
        if rate is not None:
            self.false_alarm_rate = set_thresholds(self.detector, rate, str(exported.path))
        self.threshold, self.map_threshold = self.detector.threshold.item(), said.map_threshold

    def predict(self, images: Picture | list[Picture]) -> Prediction | list[Prediction]:
        """Return what the detector says of a picture, or of each in a list; see `Predictor`."""
        if isinstance(images, list):
            return [self.predict(image) for image in images]
        path = Path(images) if isinstance(images, str | Path) else None
        return self.judge(self.scored(path, self.exported.read(images)))

    def score_files(
        self, paths: list[Path], workers: int, unreadable: dict[Path, str]
    ) -> Iterator[Scored]:
        """Yield what `judge` takes of each file, in order; see `Predictor`."""
        decoded = in_background(partial(self.decoded, unreadable), paths, workers)
        for path, image in zip(paths, decoded, strict=True):
            if image:
                yield self.scored(path, image)

    def decoded(self, unreadable: dict[Path, str], path: Path) -> Image.Image | None:
        """Return a file's RGB image; None, noted in `unreadable`, where it cannot be read."""
        try:
            return self.exported.read(path)
        except InputError as error:
            unreadable[path] = str(error)
            return None

    def scored(self, path: Path | None, image: Image.Image) -> Scored:
        """Return what the detector gives an RGB image."""
        begun = time.perf_counter()
        found = self.exported.look(image)
        seconds = time.perf_counter() - begun
        return Scored(
            path, {SCORE: found.score} | found.experts, torch.tensor(found.anomaly_map), seconds
        )


def is_exported(path: Path) -> bool:
    """Tell whether a file is one of export.py, by its name."""
    return path.suffix in USUAL


def load_exported_detector(path: Path, options: argparse.Namespace) -> ExportedPredictor:
    """Open an exported file by the options of predict.py; raises as `load_exported`.

    Only its `device`, `trusted` and `false_alarm_rate` matter: all else was settled when it was
    written.
    """
    if options.ignore:
        raise InputError(f"--ignore: {path} has its region in it: export one with calibrate.py's")
    device = "cpu" if options.device == "auto" else options.device
    exported = load_exported(path, device=device, trusted=options.trusted)
    return ExportedPredictor(exported, options.false_alarm_rate)

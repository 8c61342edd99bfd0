"""An exported file in a detector's place: predictions as those of a detector in PyTorch."""

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
from deployment.exported import Exported
from deployment.runtimes import load_exported
from prediction.verdicts import Prediction, Predictor
from scoring.scorer import SCORE
from scoring.stream import Scored
from scoring.thresholds import thresholds_of


class ExportedPredictor(Predictor):
    """An exported file in a runtime; a `rate` of None is the one that it was exported for."""

    def __init__(self, exported: Exported, rate: float | None):
        self.exported, said = exported, exported.description
        self.about, self.size, self.bits = said._asdict(), said.image_size, said.bits
        self.experts, self.good_scores = said.experts, torch.tensor(said.good_scores)
        self.threshold, self.false_alarm_rate = said.threshold, said.false_alarm_rate
        self.map_threshold = said.map_threshold
        if rate is not None:
            threshold, self.false_alarm_rate = thresholds_of(
                self.good_scores, rate, str(exported.path)
            )
            self.threshold = threshold.item()

    def predict(self, images: Picture | list[Picture]) -> Prediction | list[Prediction]:
        """Return what the detector says of a picture, or of each in a list; see `Predictor`."""
        if isinstance(images, list):
            return [self.predict(image) for image in images]
        path = Path(images) if isinstance(images, str | Path) else None
        return self.judge(self.scored(path, self.exported.read(images)))

    def score_files(
        self, paths: list[Path], workers: int, unreadable: dict[Path, str]
    ) -> Iterator[Scored]:
        """Yield what `judge` takes of each file; see `Predictor`."""
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


def load_exported_detector(path: Path, options: argparse.Namespace) -> ExportedPredictor:
    """Open an exported file by the options of predict.py; raises as `load_exported`.

    Its `runtime`, `device`, `precision`, `trusted` and `false_alarm_rate` matter: all else was
    settled when it was written.
    """
    asked = {name: getattr(options, name) for name in ("device", "precision")}
    asked = {name: value for name, value in asked.items() if value != "auto"}
    exported = load_exported(path, options.runtime, trusted=options.trusted, **asked)
    return ExportedPredictor(exported, options.false_alarm_rate)

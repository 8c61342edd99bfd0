"""A trained detector for new pictures: `load_detector`, then `predict`. See docs/python.md."""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from data.images import Size, resize
from data.pictures import Picture, rgb_of
from data.samples import InputError, report_faults
from prediction.exported import load_exported_detector
from prediction.exported_files import is_exported
from prediction.verdicts import Prediction, Predictor
from scoring.scorer import Scorer
from scoring.stream import Scored, score_files
from scoring.thresholds import good_scores, map_threshold, set_thresholds
from utils.detectors import Trained, find_detector, read_detector
from utils.devices import DTYPES, Compute, as_trained, pick_compute, synchronise
from utils.ignoring import ignore_more
from utils.options import check_positive


class TrainedPredictor(Predictor):
    """A detector that was read from its file, and how it is to compute."""

    def __init__(self, trained: Trained, compute: Compute, rate: float | None, source: str):
        self.about, self.size = trained.about, trained.size
        rate = rate or trained.about.get("false_alarm_rate")
        self.false_alarm_rate = rate and set_thresholds(trained.detector, rate, source)
        self.threshold = trained.detector.threshold.item()
        self.map_threshold = map_threshold(trained.detector)
        ignored = trained.detector.view.unseen.cpu().numpy()
        self.ignored = ignored if ignored.size else None
        self.scorer, self.batch_size = Scorer(trained.detector, compute), compute.scoring_batch_size
        self.detector, self.bits = self.scorer.detector, int(trained.detector.bits)
        self.experts = self.detector.experts if self.detector.statistics else ()
        self.good_scores = good_scores(self.detector).cpu()  # verdicts wait for no GPU

    def predict(self, images: Picture | list[Picture]) -> Prediction | list[Prediction]:
        """Return what the detector says of a picture, or of each in a list; see `Predictor`."""
        if not isinstance(images, list):
            return self.predict([images])[0]
        count = self.scorer.compute.scoring_batch_size
        batches = (images[start : start + count] for start in range(0, len(images), count))
        return [found for batch in batches for found in self._predict_batch(batch)]

    def _predict_batch(self, images: list[Picture]) -> list[Prediction]:
        seen, sizes = zip(*map(self._load, images), strict=True)
        paths = [Path(i) if isinstance(i, str | Path) else None for i in images]
        return self.predict_loaded(torch.stack(seen), sizes, paths)

    def predict_loaded(
        self, images: torch.Tensor, sizes: Sequence[Size], paths: Sequence[Path | None] = ()
    ) -> list[Prediction]:
        """Return what the detector says of images that it is to see as they are.

        uint8 (N, 3, H, W), at most `batch_size`; `sizes` are the pictures' own (height, width).
        """
        begun = time.perf_counter()
        found = self.scorer.look(images)
        scores, maps = self.scorer.resized(found, sizes)
        synchronise(self.scorer.compute.device)
        seconds = [(time.perf_counter() - begun) / len(images)] * len(images)
        paths = paths or [None] * len(images)
        scored = map(Scored, paths, found.scored(scores), maps, seconds)
        return [self.judge(one) for one in scored]

    def _load(self, image: Picture) -> tuple[torch.Tensor, Size]:
        """Return what the detector is to see, uint8 (3, H, W), and the picture's own size."""
        rgb = rgb_of(image, self.bits)
        return resize(rgb, self.size), (rgb.height, rgb.width)

    def score_files(
        self, paths: list[Path], workers: int, unreadable: dict[Path, str]
    ) -> Iterator[Scored]:
        """Yield what `judge` takes of each file; see `Predictor`."""
        return score_files(self.scorer, self.size, paths, workers, unreadable)


def load_detector(
    path: str | Path,
    device: str = "auto",
    precision: str = "auto",
    false_alarm_rate: float | None = None,
    scoring_batch_size: int | None = None,
    ignore: str | Path | None = None,
    runtime: str | None = None,
    trusted: bool = False,
    **more,
) -> Predictor:
    """Read a detector: its file, a run's folder, an output folder with one run, or an exported one.

    `device` and `precision` as in the options of predict.py, whose defaults are the same, as
    `scoring_batch_size`, images at once, `ignore`, a picture that is white where nobody is to look,
    and `more` of them. An exported file takes a `runtime`, its `device` and its `precision`, and
    not `ignore` nor the rest, which it has settled; one of PyTorch, which is a program, must be
    `trusted`. Raises InputError when the detector or that picture cannot be read, or the machine
    lacks what is asked for.
    """
    if false_alarm_rate is not None and not 0 < false_alarm_rate < 1:
        raise InputError(f"false_alarm_rate must be above 0 and below 1, not {false_alarm_rate}")
    own = {"device": device, "precision": precision, "scoring_batch_size": scoring_batch_size}
    own |= {"false_alarm_rate": false_alarm_rate, "ignore": ignore}
    own |= {"runtime": runtime, "trusted": trusted}
    asked = argparse.Namespace(**{"device_gpu": None, "compile": "auto"} | own | more)
    report_faults(check_asked(Path(path), asked))
    if is_exported(Path(path)):
        return load_exported_detector(Path(path), asked)
    compute, file = pick_compute(asked), find_detector(Path(path))
    trained = read_detector(file, compute.device)
    if ignore is not None:
        ignore_more(trained, Path(ignore))
    compute = as_trained(compute, precision, trained.precision)
    return TrainedPredictor(trained, compute, false_alarm_rate, str(file))


def check_asked(path: Path, asked: argparse.Namespace) -> list[str]:
    """Return every fault of what `load_detector` is asked for."""
    faults, precision = check_positive(asked, "scoring_batch_size"), asked.precision
    if precision not in ("auto", *DTYPES):
        faults.append(f"precision must be auto or one of {', '.join(DTYPES)}, not {precision}")
    exported = is_exported(path)
    if asked.runtime and not exported:
        faults.append(f"--runtime {asked.runtime}: {path} is no exported file")
    if asked.ignore is not None and exported:
        faults.append(f"--ignore: {path} has its region in it: export one with calibrate.py's")
    if asked.device_gpu is not None and exported:
        faults.append(f"--device_gpu: name the device of {path} by --device")
    return faults

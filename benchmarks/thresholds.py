"""Benchmark of the thresholds: of good images, how many alarm that should not, against the promise.

Good images are split at random: some calibrate, the others are new. Either their held-out scores
are split, as a run has kept them, or the images, and the statistics are fitted anew to some.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest

from data.catalog import find_root, read_category
from data.images import load_images, normalise
from data.samples import GOOD, InputError
from evaluation.results import read_results_file
from models.building import build_detector
from models.detector import SEEN_BY, Detector
from models.experts import COMBINED, STATISTICS, chosen
from scoring.calibration import calibrate
from scoring.fitting import fit_statistics
from scoring.good_images import CHUNK, GoodImages
from scoring.thresholds import rank
from utils.detectors import Trained, read_detector
from utils.devices import Compute
from utils.progress import progress
from utils.runs import Run, find_runs

CONFIDENCE = 0.95
NEW = 100  # images at most that a refitted detector scores


def promised(count: int, rate: float) -> float:
    """Return what the threshold of `count` good images promises: the next place below the rate.

    Above it, where there are too few images.
    """
    return (count + 1 - rank(count, rate)) / (count + 1)


def alarms(good: np.ndarray, new: np.ndarray, rate: float) -> tuple[float, float]:
    """Return the part of the `new` scores above our threshold of `good` ones, and a quantile's."""
    ours = np.sort(good)[rank(len(good), rate) - 1]
    return float((new > ours).mean()), float((new > np.quantile(good, 1 - rate)).mean())


def row(name: str, how: str, count: int, rate: float, found: list[tuple[float, float]]) -> dict:
    """Return one row of the table, of what `alarms` found in each split."""
    ours, plain = np.array(found).T
    low, high = np.quantile(ours, [0.05, 0.95])
    return {
        "category": name,
        "how": how,
        "good_images": count,
        "splits": len(found),
        "rate": rate,
        "promised": promised(count, rate),
        "found": float(ours.mean()),
        "found_error": float(ours.std() / len(found) ** 0.5),
        "found_5": float(low),
        "found_95": float(high),
        "plain_quantile": float(plain.mean()),
    }


def split_scores(run: Run, detector: Detector, options: argparse.Namespace) -> list[dict]:
    """Return the rows of random splits of the scores that a detector has kept."""
    scores, rows = detector.good_scores[detector.rated.index(COMBINED)].numpy(), []
    for count in [count for count in options.good_images if count < len(scores)]:
        rng, splits = np.random.default_rng(options.seed), []
        for _ in range(options.splits):
            shuffled = rng.permutation(scores)
            splits.append((shuffled[:count], shuffled[count:]))
        for rate in options.rates:
            found = [alarms(good, new, rate) for good, new in splits]
            rows.append(row(run.subdataset, "scores", count, rate, found))
    return rows


@torch.no_grad()
def refit(run: Run, trained: Trained, options: argparse.Namespace) -> list[dict]:
    """Return the rows of random splits of the images, the statistics fitted anew to some."""
    detector, compute = trained.detector, Compute(torch.device("cpu"))
    config = run.read_config()
    stored = config.get(f"{run.dataset}_path")
    root = find_root(run.dataset, stored and Path(stored))
    category = read_category(run.dataset, root, run.subdataset, config["seed"])
    paths = [sample.image for sample in (*category.train, *category.validation)]
    images, rows = detector.view.filled(load_images(paths, trained.size, options.workers)), []
    own = [detector.teacher(normalise(chunk)) for chunk in images.split(CHUNK)]
    own = torch.cat(own).permute(0, 2, 3, 1)
    for count in [count for count in options.good_images if count < len(images)]:
        rng, splits = np.random.default_rng(options.seed), []
        for _ in progress(f"refits to {count}", options.refits, "fit", range(options.refits)):
            order = torch.from_numpy(rng.permutation(len(images)))
            some, new = order[:count], order[count : count + NEW]
            fresh = unfitted(trained)
            held_out = fit_statistics(
                fresh, GoodImages(fresh, compute, [(images[some], own[some])])
            )
            calibrate(fresh, [], trained.size, options.workers, compute, held_out)
            splits.append((fresh.good_scores[0].numpy(), scores_of(fresh, own[new])))
        for rate in options.rates:
            found = [alarms(good, new, rate) for good, new in splits]
            rows.append(row(run.subdataset, "refits", count, rate, found))
    return rows


def unfitted(trained: Trained) -> Detector:
    """Return a detector of the statistics alone, which have seen nothing yet."""
    like, experts = trained.detector, chosen(STATISTICS, trained.detector.experts)
    what = (trained.about["model"], trained.about["model_size"], trained.size, like.teacher)
    fresh = build_detector(*what, experts=experts).eval()
    for name in SEEN_BY:
        setattr(fresh, name, getattr(like, name))
    return fresh


def scores_of(detector: Detector, features: torch.Tensor) -> np.ndarray:
    """Return the combined scores (N,) of the teacher's own features (N, h, w, C)."""
    found = []
    for chunk in features.split(CHUNK):
        described = detector.imputed(detector.normalise_features(chunk.permute(0, 3, 1, 2)))
        raw = {name: statistic(described) for name, statistic in detector.statistics.items()}
        shown = detector.hidden({name: raw[name] for name in detector.experts})
        found.append(detector.scores(shown)[COMBINED])
    return torch.cat(found).numpy()


def test_alarms(run: Run, detector: Detector, rates: list[float]) -> list[dict]:
    """Return the false alarms among a run's good test images, with their binomial intervals."""
    if not run.results_file.is_file():
        return []
    scores = [r.score for r in read_results_file(run.results_file) if r.defect == GOOD]
    good, rows = detector.good_scores[detector.rated.index(COMBINED)].numpy(), []
    for rate in rates if scores else []:
        number = int((np.array(scores) > good[rank(len(good), rate) - 1]).sum())
        interval = binomtest(number, len(scores)).proportion_ci(CONFIDENCE)
        rows.append(
            {
                "category": run.subdataset,
                "good_images": len(good),
                "rate": rate,
                "promised": promised(len(good), rate),
                "alarms": number,
                "test_images": len(scores),
                "low": interval.low,
                "high": interval.high,
            }
        )
    return rows


def benchmark_thresholds(options: argparse.Namespace) -> dict:
    """Return promised and found false alarms of every run in the output folders."""
    splits, tests = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each fit to few images says that they are few
        for run in [run for output in options.outputs for run in find_runs(output)]:
            trained = read_detector(run.detector_file, torch.device("cpu"))
            if not trained.detector.good_scores.numel():
                raise InputError(f"{run.detector_file} is of an earlier version: train it again")
            splits += split_scores(run, trained.detector, options)
            if options.refits and trained.detector.statistics:
                splits += refit(run, trained, options)
            tests += test_alarms(run, trained.detector, options.rates)
    return {"benchmark": "thresholds", "splits": splits, "tests": tests}

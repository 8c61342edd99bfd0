"""Score a test set: maps on disk, metrics, timings."""

import argparse
import json
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tifffile
import torch
import torchvision
from PIL import Image

from data.images import Size, image_batches, normalise
from data.samples import GOOD, Category, InputError, Sample
from models.detector import Detector
from utils import metrics
from utils.devices import synchronise
from utils.files import written_aside
from utils.localization import (
    PRO_LIMIT,
    SPRO_LIMITS,
    PixelScores,
    area_under,
    channels,
    components,
    pixel_auroc,
    spro_curve,
)
from utils.runs import Run

LOCO_SUBSETS = ("logical_anomalies", "structural_anomalies")

Scored = tuple[Sample, float, np.ndarray]  # sample, image score, map float32 (H, W)


def map_path(folder: Path, sample: Sample) -> Path:
    """Return where a sample's anomaly map lies, in the layout of MVTec's evaluation scripts."""
    return folder / "test" / sample.defect / f"{sample.image.stem}.tiff"


def score_test_set(
    detector: Detector,
    category: Category,
    size: Size,
    device: torch.device,
    workers: int,
    seconds: list[float],
) -> Iterator[Scored]:
    """Score every test image; append to `seconds` what the detector took for each batch."""
    detector.eval()
    samples = iter(category.test)
    paths = [sample.image for sample in category.test]
    for batch, original in image_batches(paths, size, workers, f"scoring {category.name}"):
        begun = time.perf_counter()
        scores, maps = detector.score(normalise(batch.to(device)), original)
        synchronise(device)
        seconds.append(time.perf_counter() - begun)
        maps = maps.cpu().numpy()
        yield from zip((next(samples) for _ in maps), scores.tolist(), maps, strict=True)


def write_maps(scored: Iterable[Scored], folder: Path) -> Iterator[Scored]:
    """Pass on what is scored after writing its map as float32 TIFF."""
    for sample, score, scores in scored:
        with written_aside(map_path(folder, sample)) as aside:
            tifffile.imwrite(aside, scores)
        yield sample, score, scores


def read_maps(category: Category, folder: Path) -> Iterator[Scored]:
    """Read maps that somebody else made, of the images' size; the score is the maximum.

    Raises InputError naming a map that is missing, unreadable or of another size.
    """
    for sample in category.test:
        path = map_path(folder, sample)
        path = path if path.exists() else path.with_suffix(".tif")
        with Image.open(sample.image) as image:
            size = (image.height, image.width)
        try:
            scores = tifffile.imread(path).astype(np.float32, copy=False)
        except FileNotFoundError as error:
            raise InputError(f"there is no map {path.with_suffix('.tiff')}") from error
        except (OSError, ValueError, tifffile.TiffFileError) as error:
            raise InputError(f"cannot read the map {path}: {error}") from error
        if scores.shape != size:
            raise InputError(f"the map {path} is {scores.shape} but its image is {size}")
        if not np.isfinite(scores).all():
            raise InputError(f"the map {path} holds values that are not finite numbers")
        yield sample, float(scores.max()), scores


def measure(category: Category, scored: Iterable[Scored]) -> dict:
    """Return a category's metrics: the nested dict of DESIGN's metrics file, without timings.

    With a defects_config it is LOCO's, by sPRO; otherwise MVTec AD's, by AU-PRO.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    pixels: dict[str, PixelScores] = defaultdict(PixelScores)
    has_masks = any(sample.masks for sample in category.test)
    for sample, score, anomaly_map in scored:
        scores[sample.defect].append(score)
        if has_masks:
            pixels[sample.defect].add(anomaly_map, regions_of(sample, anomaly_map.shape, category))
    common = common_metrics(scores, pixels)
    if category.defects_config is None:
        au_pro = area_under(spro_curve(PixelScores.merged(pixels.values())), PRO_LIMIT)
        return {"classification_au_roc": common["auroc_pooled"], "au_pro": au_pro, "glae": common}
    return loco_metrics(scores, pixels) | {"glae": common}


def regions_of(sample: Sample, size: Size, category: Category) -> list:
    """Return the regions that PRO, or with a defects_config sPRO, averages over."""
    if category.defects_config is None:
        return components(sample.masks, size)
    return channels(sample.masks, size, category.defects_config)


def common_metrics(scores: dict[str, list[float]], pixels: dict[str, PixelScores]) -> dict:
    """Return the metrics that every dataset has; the anomalies of all kinds are pooled."""
    labels = [int(defect != GOOD) for defect in scores for _ in scores[defect]]
    values = [score for group in scores.values() for score in group]
    defects = sorted(defect for defect in scores if defect != GOOD)
    return {
        "auroc_pooled": metrics.auroc(labels, values),
        "average_precision": metrics.average_precision(labels, values),
        "f1_max": metrics.f1_max(labels, values),
        "pixel_auroc": pixel_auroc(PixelScores.merged(pixels.values())),
        "auroc_by_defect": {defect: against_good(scores, defect) for defect in defects},
    }


def against_good(scores: dict[str, list[float]], defect: str) -> float | None:
    """Return the AUROC of one kind of defect against all good images; None without either."""
    good, bad = scores.get(GOOD, []), scores.get(defect, [])
    return metrics.auroc([0] * len(good) + [1] * len(bad), good + bad)


def loco_metrics(scores: dict[str, list[float]], pixels: dict[str, PixelScores]) -> dict:
    """Return LOCO's metrics under the key names of its own evaluation script."""
    classification, localization = {}, {}
    for subset in LOCO_SUBSETS:
        classification[subset] = against_good(scores, subset)
        groups = [pixels[name] for name in (GOOD, subset) if name in pixels]
        curve = spro_curve(PixelScores.merged(groups)) if subset in pixels else None
        localization[subset] = {str(limit): area_under(curve, limit) for limit in SPRO_LIMITS}
    classification["mean"] = metrics.mean([classification[subset] for subset in LOCO_SUBSETS])
    localization["mean"] = {
        str(limit): metrics.mean([localization[subset][str(limit)] for subset in LOCO_SUBSETS])
        for limit in SPRO_LIMITS
    }
    return {
        "classification": {"auc_roc": classification},
        "localization": {"auc_spro": localization},
    }


def evaluate(
    run: Run,
    detector: Detector,
    category: Category,
    size: Size,
    device: torch.device,
    options: argparse.Namespace,
    save_maps: bool = True,
) -> dict:
    """Score the test set, write its maps and the metrics file; return the metrics.

    `options` are the run's `seed` and how many `workers` decode. Raises InputError for a bad image
    or mask.
    """
    begun, seconds = time.perf_counter(), []
    scored = score_test_set(detector, category, size, device, options.workers, seconds)
    result = measure(category, write_maps(scored, run.maps_folder) if save_maps else scored)
    splits = {"train": category.train, "validation": category.validation, "test": category.test}
    result["glae"] |= {
        "counts": {name: len(samples) for name, samples in splits.items()},
        "threshold": detector.threshold.item(),
        "seconds": {
            "training": run.read_training_seconds(),
            "evaluation": time.perf_counter() - begun,
            "scoring_per_image": sum(seconds) / len(category.test),
        },
        "versions": versions(),
        "seed": options.seed,
    }
    with written_aside(run.metrics_file) as aside:
        aside.write_text(json.dumps(result, indent=2) + "\n")
    return result


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
    }

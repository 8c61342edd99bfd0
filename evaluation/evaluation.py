"""Score a test set: maps on disk, metrics, timings."""

import contextlib
import json
import platform
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from data.fingerprints import digest_of
from data.images import Size, image_size, in_background
from data.mask_values import Odd, warn_of_odd
from data.masks import Region, regions
from data.samples import GOOD, Category, InputError, Sample
from evaluation.image_metrics import auroc, average_precision, f1_max, mean
from evaluation.localization import CURVE_ERROR, Localization, localize
from evaluation.maps import Scores, read_map, remove_stale_maps, warmed_up, write_maps
from evaluation.protocol import LOCO_SUBSETS, PRO_LIMIT, SPRO_LIMITS
from evaluation.results import write_results
from evaluation.verdicts import image_results, tell_verdicts, verdicts
from models.detector import THRESHOLDS, Detector
from models.experts import COMBINED, EXPERTS
from scoring.scorer import SCORE, Scorer
from scoring.stream import ScoreFiles
from scoring.thresholds import good_scores, map_threshold, promised_rate
from utils.commands import printable, say
from utils.devices import Compute, device_name
from utils.files import written_aside
from utils.options import deciding
from utils.runs import Run
from utils.teachers import weights_hash
from utils.version import project_version

POOLED = None  # the subset of all images: a name could be a defect's

Pixels = dict[str | None, Localization | None]  # subset -> its pixel metrics


def with_readable_masks(category: Category, workers: int, unreadable: dict[Path, str]) -> Category:
    """Return the category with the test images alone that can be measured; note the others."""

    def look(sample: Sample) -> None:
        try:
            regions_of(sample, category)
        except InputError as error:
            unreadable[sample.image] = str(error)

    sound = [sample for sample in category.test if sample.image not in unreadable]
    for _ in in_background(look, sound, workers):
        pass
    sound = [sample for sample in sound if sample.image not in unreadable]
    unlabelled = [sample for sample in category.unlabelled if sample.image not in unreadable]
    if not (sound or unlabelled):
        raise InputError(*unreadable.values())
    return replace(category, test=sound, unlabelled=unlabelled)


def measure(category: Category, folder: Path, workers: int, scores: Scores | None = None) -> dict:
    """Return the metrics of the maps in `folder`, as in the metrics file but without timings.

    With a defects_config they are LOCO's, by sPRO, otherwise MVTec AD's, by AU-PRO. Without
    `scores` an image's is its map's maximum. Raises InputError for a bad map or mask.
    """
    samples, loco = category.test, category.defects_config is not None
    maxima, odd = [0.0] * len(samples), []

    def read(index: int) -> np.ndarray:
        anomaly_map = read_map(folder, samples[index])
        maxima[index] = float(anomaly_map.max())
        return anomaly_map

    def truth(index: int) -> list[Region]:
        return regions_of(samples[index], category, odd)

    groups = [sample.defect for sample in samples]
    defects = sorted(set(groups) - {GOOD})
    subsets = {defect: (GOOD, defect) for defect in defects} | {POOLED: (GOOD, *defects)}
    limits = SPRO_LIMITS if loco else (PRO_LIMIT,)
    what = f"measuring {category.name}"
    pixels = localize(read, truth, groups, subsets, limits, workers, what)
    warn_of_odd(odd)
    if scores is not None:
        maxima = [scores[sample.image].scores[SCORE] for sample in samples]
    by_group = defaultdict(list)
    for group, maximum in zip(groups, maxima, strict=True):
        by_group[group].append(maximum)
    common = common_metrics(by_group, pixels)
    if loco:
        return loco_metrics(by_group, pixels) | {"glae": common}
    areas = {subset: area_of(pixels, subset, PRO_LIMIT) for subset in subsets}
    main = {"classification_au_roc": common["auroc_pooled"], "au_pro": areas.pop(POOLED)}
    return main | {"glae": common | {"au_pro_by_defect": areas}}


def regions_of(sample: Sample, category: Category, odd: Odd | None = None) -> list[Region]:
    """Return the regions that PRO, or with a defects_config sPRO, averages over; see `regions`."""
    if not sample.masks:
        return []
    return regions(sample.masks, image_size(sample.image), category.defects_config, odd)


def area_of(pixels: Pixels, subset: str | None, limit: float) -> float | None:
    """Return a subset's area under (s)PRO up to `limit`; None when it has none."""
    found = pixels.get(subset)
    return found and found.areas[limit]


def common_metrics(scores: dict[str, list[float]], pixels: Pixels) -> dict:
    """Return the metrics that every dataset has; the anomalies of all kinds are pooled."""
    labels = [int(defect != GOOD) for defect in scores for _ in scores[defect]]
    values = [score for group in scores.values() for score in group]
    defects = sorted(defect for defect in scores if defect != GOOD)
    aurocs = {subset: found and found.pixel_auroc for subset, found in pixels.items()}
    curves = {subset: found and found.curve for subset, found in pixels.items()}
    return {
        "auroc_pooled": auroc(labels, values),
        "average_precision": average_precision(labels, values),
        "f1_max": f1_max(labels, values),
        "pixel_auroc": aurocs.pop(POOLED),
        "auroc_by_defect": {defect: against_good(scores, defect) for defect in defects},
        "pixel_auroc_by_defect": aurocs,
        "curve": curves.pop(POOLED),
        "curve_by_defect": curves,
        "curve_error": CURVE_ERROR,
    }


def against_good(scores: dict[str, list[float]], defect: str) -> float | None:
    """Return the AUROC of one kind of defect against all good images; None without either."""
    good, bad = scores.get(GOOD, []), scores.get(defect, [])
    return auroc([0] * len(good) + [1] * len(bad), good + bad)


def loco_metrics(scores: dict[str, list[float]], pixels: Pixels) -> dict:
    """Return LOCO's metrics under the key names of its own evaluation script."""
    classification = {subset: against_good(scores, subset) for subset in LOCO_SUBSETS}
    localization = {
        subset: {str(limit): area_of(pixels, subset, limit) for limit in SPRO_LIMITS}
        for subset in LOCO_SUBSETS
    }
    classification["mean"] = mean([classification[subset] for subset in LOCO_SUBSETS])
    localization["mean"] = {
        str(limit): mean([localization[subset][str(limit)] for subset in LOCO_SUBSETS])
        for limit in SPRO_LIMITS
    }
    return {
        "classification": {"auc_roc": classification},
        "localization": {"auc_spro": localization},
    }


def tell_result(category: Category, run: Run, metrics: dict, maps: bool = True) -> None:
    """Say how many images are called anomalous, and what is there of those that no metric is of.

    `maps` tells whether they were written.
    """
    tell_verdicts(f"{category.name} in {run.output}", metrics)
    if len(labels := {sample.label for sample in category.test}) < 2:
        lacks = {(0,): "defects", (1,): "good ones"}.get((*labels,), "labels")
        line = f"{category.name}: no {lacks} among the test images, so that there is no AUROC"
        say(printable(f"{line}: verdicts are in {run.results_file}"))
    if maps and category.unlabelled:
        test, number = run.maps_folder / "test", len(category.unlabelled)
        names = sorted({sample.folder for sample in category.unlabelled})
        where = ", ".join(str(test / name) for name in names)
        line = f"{category.name}: wrote {number} anomaly maps of images without a label to {where}"
        say(printable(line))


def measure_scored(
    score: ScoreFiles,
    category: Category,
    workers: int,
    folder: Path,
    unreadable: dict[Path, str],
    scores: Scores,
) -> tuple[dict, Category, float]:
    """Score the test set, its maps into `folder`; return its metrics, what they are of, the time.

    The time is of an image, in seconds; see `measure`, `with_readable_masks` and `write_maps`.
    """
    write_maps(score, category, workers, folder, unreadable, scores)
    seconds = statistics.median(scored.seconds for scored in scores.values())
    remove_stale_maps(folder, [s for s in category.scored if s.image not in unreadable])
    measured = with_readable_masks(category, workers, unreadable)
    return measure(measured, folder, workers, scores), measured, seconds


def evaluate(
    run: Run,
    detector: Detector,
    category: Category,
    size: Size,
    workers: int,
    seed: int,
    compute: Compute,
    save_maps: bool = True,
    shown: str = COMBINED,
    keep: bool = True,
) -> dict:
    """Score the test set, write its maps, results and metrics; return the metrics.

    `seed` is of the training, `shown` what counts, "combined" or one of the detector's experts, of
    which nothing is kept. Without `keep` nothing is, without `save_maps` no maps. What cannot be
    read is left out, and listed as "unreadable"; raises InputError when nothing can be.
    """
    begun, unreadable, scores = time.perf_counter(), {}, {}
    keep = keep and shown == COMBINED
    with contextlib.nullcontext(run.maps_folder) if keep and save_maps else run.scratch() as maps:
        score = warmed_up(Scorer(detector, compute, shown), size)
        result, measured, seconds = measure_scored(
            score, category, workers, maps, unreadable, scores
        )
    threshold, good = getattr(detector, THRESHOLDS[shown]).item(), good_scores(detector)
    splits = {"train": category.train, "validation": category.validation, "test": measured.test}
    if measured.unlabelled:
        splits["unlabelled"] = measured.unlabelled
    result["glae"] |= {
        "unreadable": sorted(unreadable.values()),
        "counts": {name: len(samples) for name, samples in splits.items()},
        "threshold": threshold,
        "map_threshold": map_threshold(detector),
        "false_alarm_rate": promised_rate(good, threshold) if shown == COMBINED else None,
        "held_out": len(good),
        "verdicts": verdicts(measured, scores, threshold),
        "experts": errors_of_experts(detector),
        "seconds": {
            "training": run.read_training_seconds(),
            "evaluation": time.perf_counter() - begun,
            "scoring_per_image": seconds,
        },
        "device": device_name(compute.device),
        "precision": compute.precision,
        "versions": versions(),
        "seed": seed,
        "options": deciding(run.read_config() if run.config_file.exists() else {})
        | {"teacher": weights_hash(detector.teacher)[:8]},
    }
    if images := run.read_images():
        result["glae"]["images"] = digest_of(images)
    if keep:
        write_results(run.results_file, image_results(measured, scores, detector))
        with written_aside(run.metrics_file) as aside:
            aside.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def errors_of_experts(detector: Detector) -> dict[str, dict[str, float]]:
    """Return each expert's errors on made defects, by which it counts; {} of networks alone."""
    if not detector.statistics:
        return {}
    rows = {name: detector.errors[EXPERTS.index(name)].tolist() for name in detector.experts}
    return {name: {"score_error": row[0], "map_error": row[1]} for name, row in rows.items()}


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    return {
        "project": project_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": metadata.version("torchvision"),
        "numpy": np.__version__,
    }

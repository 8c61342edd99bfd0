"""Score a test set: maps on disk, metrics, timings."""

import contextlib
import io
import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import tifffile
import torch

from data.images import Size, image_batches, image_size, in_background
from data.masks import Region, regions
from data.samples import GOOD, Category, InputError, Sample
from evaluation.image_metrics import auroc, average_precision, f1_max, mean
from evaluation.localization import CURVE_ERROR, PRO_LIMIT, SPRO_LIMITS, Localization, localize
from models.detector import Detector
from scoring.scorer import Scorer
from utils.devices import Compute, synchronise
from utils.files import written_aside
from utils.progress import progress
from utils.runs import Run

LOCO_SUBSETS = ("logical_anomalies", "structural_anomalies")

POOLED = "all"  # the subset of all images
WRITERS = 4  # threads at most that write maps: each holds some, as large as images

Pixels = dict[str, Localization | None]  # subset -> its pixel metrics


def map_path(folder: Path, sample: Sample) -> Path:
    """Return where a sample's anomaly map lies, in the layout of MVTec's evaluation scripts."""
    return folder / "test" / sample.defect / f"{sample.image.stem}.tiff"


def write_maps(scorer: Scorer, category: Category, size: Size, workers: int, folder: Path) -> float:
    """Write the map of every test image, float32 TIFF at the image's size, into `folder`.

    Threads decode images ahead and write maps behind. Returns the seconds that the detector takes
    for an image, the median over the batches.
    """
    seconds, samples = [], iter(category.test)
    paths = [sample.image for sample in category.test]
    compute = scorer.compute
    scorer.warm_up(size)

    def scored() -> Iterator[tuple[Path, torch.Tensor]]:
        for batch, sizes in image_batches(paths, size, workers, compute.scoring_batch_size):
            begun = time.perf_counter()
            _, maps = scorer.score(batch, sizes)
            synchronise(compute.device)
            if len(batch) == compute.scoring_batch_size or not seconds:  # a smaller one is new
                seconds.append((time.perf_counter() - begun) / len(batch))
            yield from ((map_path(folder, next(samples)), scores) for scores in maps)

    def write(pair: tuple[Path, torch.Tensor]) -> None:
        path, scores = pair
        content = io.BytesIO()  # tifffile's own error does not say that a disk is full
        tifffile.imwrite(content, scores.cpu().numpy())
        with written_aside(path, durable=False) as aside:
            aside.write_bytes(content.getbuffer())

    written = in_background(write, scored(), min(workers, WRITERS))
    for _ in progress(f"scoring {category.name}", len(paths), "img", written):
        pass
    return statistics.median(seconds)


def read_map(folder: Path, sample: Sample) -> np.ndarray:
    """Read a sample's map, float32 (H, W), as large as its image.

    Raises InputError naming a map that is missing, unreadable, of another size, or not finite.
    """
    path = map_path(folder, sample)
    path = path if path.exists() else path.with_suffix(".tif")
    if not path.is_file():
        raise InputError(f"there is no map {path.with_suffix('.tiff')}")
    size = image_size(sample.image)
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first  # all pages of a damaged file may have no end
            found = page.shape if is_single(file) else "several images"
            scores = page.asarray() if found == size else None  # no memory at its word
    except Exception as error:  # a damaged file fails in any way
        raise InputError(f"cannot read the map {path}: {error}") from error
    if scores is None:
        raise InputError(f"the map {path} is {found} but its image is {size}")
    if scores.dtype.kind not in "fiu":
        raise InputError(f"the map {path} holds {scores.dtype}, not numbers")
    scores = scores.astype(np.float32, copy=False)
    if not np.isfinite(scores).all():
        raise InputError(f"the map {path} holds values that are not finite numbers")
    return scores


def is_single(file: tifffile.TiffFile) -> bool:
    """Tell whether a TIFF has one page only."""
    try:
        return not file.pages[1]
    except IndexError:
        return True


def check_maps(category: Category, folder: Path) -> None:
    """Raise InputError naming a map without its image: then the maps are of another test set."""
    known = {map_path(folder, sample).with_suffix("") for sample in category.test}
    for path in sorted((folder / "test").glob("*/*.tif*")):
        if path.with_suffix("") not in known:
            raise InputError(f"{path} is the map of no test image of {category.name}: remove it")


def measure(category: Category, folder: Path, workers: int) -> dict:
    """Return the metrics of the maps in `folder`, as in the metrics file but without timings.

    With a defects_config they are LOCO's, by sPRO, otherwise MVTec AD's, by AU-PRO. An image's
    score is its map's maximum. Raises InputError for a bad map or mask.
    """
    samples, loco = category.test, category.defects_config is not None
    maxima = [0.0] * len(samples)

    def read(index: int) -> np.ndarray:
        anomaly_map = read_map(folder, samples[index])
        maxima[index] = float(anomaly_map.max())
        return anomaly_map

    def truth(index: int) -> list[Region]:
        return regions_of(samples[index], category)

    groups = [sample.defect for sample in samples]
    defects = sorted(set(groups) - {GOOD})
    subsets = {defect: (GOOD, defect) for defect in defects} | {POOLED: (GOOD, *defects)}
    limits = SPRO_LIMITS if loco else (PRO_LIMIT,)
    what = f"measuring {category.name}"
    pixels = localize(read, truth, groups, subsets, limits, workers, what)
    scores = defaultdict(list)
    for group, maximum in zip(groups, maxima, strict=True):
        scores[group].append(maximum)
    common = common_metrics(scores, pixels)
    if loco:
        return loco_metrics(scores, pixels) | {"glae": common}
    areas = {subset: area_of(pixels, subset, PRO_LIMIT) for subset in subsets}
    main = {"classification_au_roc": common["auroc_pooled"], "au_pro": areas.pop(POOLED)}
    return main | {"glae": common | {"au_pro_by_defect": areas}}


def regions_of(sample: Sample, category: Category) -> list[Region]:
    """Return the regions that PRO, or with a defects_config sPRO, averages over."""
    if not sample.masks:
        return []
    return regions(sample.masks, image_size(sample.image), category.defects_config)


def area_of(pixels: Pixels, subset: str, limit: float) -> float | None:
    """Return a subset's area under (s)PRO up to `limit`; None when it has none."""
    found = pixels.get(subset)
    return found and found.areas[limit]


def common_metrics(scores: dict[str, list[float]], pixels: Pixels) -> dict:
    """Return the metrics that every dataset has; the anomalies of all kinds are pooled."""
    labels = [int(defect != GOOD) for defect in scores for _ in scores[defect]]
    values = [score for group in scores.values() for score in group]
    defects = sorted(defect for defect in scores if defect != GOOD)
    aurocs = {subset: found and found.pixel_auroc for subset, found in pixels.items()}
    return {
        "auroc_pooled": auroc(labels, values),
        "average_precision": average_precision(labels, values),
        "f1_max": f1_max(labels, values),
        "pixel_auroc": aurocs.pop(POOLED),
        "auroc_by_defect": {defect: against_good(scores, defect) for defect in defects},
        "pixel_auroc_by_defect": aurocs,
        "curves": {subset: found and found.curve for subset, found in pixels.items()},
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


def evaluate(
    run: Run,
    detector: Detector,
    category: Category,
    size: Size,
    workers: int,
    seed: int,
    compute: Compute,
    save_maps: bool = True,
) -> dict:
    """Score the test set, write its maps and the metrics file; return the metrics.

    `seed` is of the training. Raises InputError for a bad image or mask.
    """
    begun = time.perf_counter()
    with contextlib.nullcontext(run.maps_folder) if save_maps else run.scratch() as maps:
        seconds = write_maps(Scorer(detector, compute), category, size, workers, maps)
        result = measure(category, maps, workers)
    splits = {"train": category.train, "validation": category.validation, "test": category.test}
    result["glae"] |= {
        "counts": {name: len(samples) for name, samples in splits.items()},
        "threshold": detector.threshold.item(),
        "seconds": {
            "training": run.read_training_seconds(),
            "evaluation": time.perf_counter() - begun,
            "scoring_per_image": seconds,
        },
        "precision": compute.precision,
        "versions": versions(),
        "seed": seed,
    }
    with written_aside(run.metrics_file) as aside:
        aside.write_text(json.dumps(result, indent=2) + "\n")
    return result


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": metadata.version("torchvision"),
        "numpy": np.__version__,
    }

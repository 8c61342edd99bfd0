"""Thumbnails for a page: an image, its ground truth, its anomaly maps, each expert's too."""

import argparse
import base64
import io
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from data.images import decode, image_batches, in_background
from data.mask_values import read_defect
from data.samples import Sample, noted
from evaluation.maps import read_map
from evaluation.pictures import heat
from models.experts import COMBINED
from scoring.scorer import Scorer
from utils.devices import Compute, as_trained
from utils.progress import progress
from utils.runs import Run

SIDE = 400  # pixels of the longer side
QUALITY = 75  # of WebP, in percent
LEAST_DETAIL = 0.5  # pixels of a thumbnail that an outline may be off by

Maps = dict[str, np.ndarray]  # "combined" or an expert -> its map, float32 (h, w)


class Thumbnail(NamedTuple):
    """What a page shows of an image; pictures are WebP in base64."""

    size: tuple[int, int]  # width, height in pixels, in which the outlines are
    image: str
    maps: dict[str, str]  # "combined" or an expert -> its map in colours
    truth: str  # outlines as an SVG path; "" where there is no defect
    contour: str  # of the combined map at its threshold


def webp(pixels: Image.Image) -> str:
    """Return an RGB image as WebP in base64."""
    content = io.BytesIO()
    pixels.save(content, format="WEBP", quality=QUALITY)
    return base64.b64encode(content.getvalue()).decode()


def outline_path(region: np.ndarray, size: tuple[int, int]) -> str:
    """Return the outlines of a region, bool (H, W), as an SVG path in a picture of `size`."""
    scale = np.array(size) / region.shape[::-1]
    found, _ = cv2.findContours(region.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    lines = [cv2.approxPolyDP(line, LEAST_DETAIL / scale.max(), True)[:, 0] for line in found]
    points = [((line + 0.5) * scale).round(1).tolist() for line in lines]
    return "".join(f"M{'L'.join(f'{x:g} {y:g}' for x, y in line)}Z" for line in points)


def resized(shown: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a map (H, W) in a picture's `size`: before it is coloured, for colours have an end."""
    larger = shown.shape[1] > size[0]
    return cv2.resize(shown, size, interpolation=cv2.INTER_AREA if larger else cv2.INTER_LINEAR)


def thumbnail(
    sample: Sample, maps: Maps, threshold: float | None, bits: int | None, faults: list[str]
) -> Thumbnail:
    """Return what a page shows of an image and its maps.

    Calibration has brought all maps to one scale, on which the combined one's `threshold` is: their
    colours compare. Without a threshold each map's end at its maximum, and there is no contour.
    `bits` as in `decode`. A mask that cannot be read is among the `faults`; raises InputError for
    such an image.
    """
    image = decode(sample.image, bits=bits)
    scale = min(1, SIDE / max(image.size))
    size = tuple(max(1, round(scale * side)) for side in image.size)
    defect = np.zeros(image.size[::-1], bool)
    for path in sample.masks:
        with noted(faults):
            defect |= read_defect(path, defect.shape)
    shown = {name: resized(of, size) for name, of in maps.items()}
    coloured, contour = {}, ""
    for name, of in shown.items():
        middle = of.max() / 2 if threshold is None else threshold  # of the colours
        coloured[name] = webp(Image.fromarray(heat(of, middle)))
    if COMBINED in shown and threshold is not None:
        contour = outline_path(shown[COMBINED] > threshold, size)
    return Thumbnail(size, webp(image.resize(size)), coloured, outline_path(defect, size), contour)


def looked_at(
    scorer: Scorer, size: tuple[int, int], samples: list[Sample], workers: int, faults: list[str]
) -> Iterator[tuple[Sample, Maps]]:
    """Yield each image with its maps by a detector, which sees it at `size`; the unreadable not."""
    unreadable: dict[Path, str] = {}
    readable = (sample for sample in samples if sample.image not in unreadable)  # when it is asked
    paths, bits = [sample.image for sample in samples], int(scorer.detector.bits)
    count = scorer.compute.scoring_batch_size
    for batch, _ in image_batches(paths, size, workers, count, bits, unreadable):
        maps = {name: of.cpu().numpy() for name, of in scorer.look(batch).maps.items()}
        for index in range(len(batch)):
            yield next(readable), {name: of[index, 0] for name, of in maps.items()}
    faults += unreadable.values()


def load_scorer(
    run: Run, options: argparse.Namespace, compute: Compute
) -> tuple[Scorer, tuple[int, int]]:
    """Return what scores images by a run's detector, and the (height, width) that it sees.

    Raises InputError when the detector cannot be read.
    """
    detector, size, precision = run.load_detector(compute.device)
    return Scorer(detector, as_trained(compute, options.precision, precision)), size


def thumbnails(
    run: Run,
    samples: list[Sample],
    threshold: float | None,
    options: argparse.Namespace,
    compute: Compute,
    faults: list[str],
) -> Iterator[tuple[Sample, Thumbnail]]:
    """Yield the thumbnails of a run's images, in order; what cannot be had is among the `faults`.

    The combined map is the one on disk, where maps were written. The detector gives the experts',
    unless --no_expert_maps leaves them out, and stands in for maps that are not there.
    """
    bits, on_disk = None, (run.maps_folder / "test").is_dir()
    found: Iterator[tuple[Sample, Maps]] = zip(samples, repeat({}), strict=False)
    if not (on_disk and options.no_expert_maps):
        with noted(faults):
            scorer, size = load_scorer(run, options, compute)
            bits = int(scorer.detector.bits)
            found = looked_at(scorer, size, samples, options.workers, faults)

    def draw(looked: tuple[Sample, Maps]) -> tuple[Sample, Thumbnail] | None:
        sample, maps = looked
        if options.no_expert_maps:
            maps = {name: of for name, of in maps.items() if name == COMBINED}
        with noted(faults):
            if on_disk:
                maps = maps | {COMBINED: read_map(run.maps_folder, sample)}
        with noted(faults):
            return sample, thumbnail(sample, maps, threshold, bits, faults)
        return None

    drawn = in_background(draw, found, options.workers)
    what = f"thumbnails of {run.subdataset}"
    yield from filter(None, progress(what, len(samples), "img", drawn))

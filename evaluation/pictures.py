"""Draw what the detector sees: image, ground truth and anomaly map side by side."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from data.images import decode
from data.mask_values import read_defect
from data.samples import Category, Sample, noted
from evaluation.maps import read_map
from evaluation.results import read_results_file
from utils.files import written_aside

HEIGHT = 160  # pixels of one picture
CAPTION = 18
TINY = 1e-6  # instead of a threshold of 0
CASES = {"good": 1, "logical_anomalies": 6, "structural_anomalies": 3}


def pick(category: Category) -> list[Sample]:
    """Return a handful of test images, evenly spaced over each group."""
    picked = []
    for defect, most in CASES.items():
        group = [sample for sample in category.test if sample.defect == defect]
        count = min(most, len(group))
        picked += [group[i * len(group) // count] for i in range(count)]
    return picked


def heat(anomaly_map: np.ndarray, threshold: float) -> np.ndarray:
    """Colour a map (H, W): dark is normal, yellow is twice the threshold. Returns RGB uint8.

    Matplotlib's inferno: even steps of lightness, which colour-blind people see as well. Source:
    Smith and van der Walt, *A Better Default Colormap for Matplotlib*, SciPy 2015.
    """
    scaled = np.clip(anomaly_map / (2 * max(threshold, TINY)), 0, 1)
    return cv2.applyColorMap((255 * scaled).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]


def column(sample: Sample, maps_folder: Path, verdict: str, threshold: float) -> Image.Image:
    """Draw one case: its kind and verdict, the image, the mask, the map, from top to bottom."""
    image = decode(sample.image)
    mask = np.zeros((image.height, image.width), bool)
    for path in sample.masks:
        mask |= read_defect(path, mask.shape)
    anomaly_map = read_map(maps_folder, sample)
    size = (round(image.width * HEIGHT / image.height), HEIGHT)
    pictures = (image, Image.fromarray(mask), Image.fromarray(heat(anomaly_map, threshold)))
    drawn = Image.new("RGB", (size[0] + 2, CAPTION + 3 * (HEIGHT + 2)), "white")
    caption = f"{sample.defect.removesuffix('_anomalies')}: called {verdict}"
    ImageDraw.Draw(drawn).text((3, 3), caption, fill="black")
    for row, picture in enumerate(pictures):
        drawn.paste(picture.convert("RGB").resize(size), (0, CAPTION + row * (HEIGHT + 2)))
    return drawn


def draw_cases(
    category: Category, maps_folder: Path, results: Path, threshold: float, path: Path
) -> None:
    """Write a picture of a handful of test cases, from the maps and the results on disk.

    `threshold` is the map's.
    """
    columns, verdicts = [], {r.image: r.verdict for r in read_results_file(results)}
    for sample in pick(category):
        with noted([]):  # what cannot be read is named by the evaluation
            verdict = verdicts.get(sample.place.as_posix(), "unreadable")
            columns.append(column(sample, maps_folder, verdict, threshold))
    if not columns:
        return
    drawn = Image.new("RGB", (sum(c.width for c in columns), columns[0].height), "white")
    left = 0
    for picture in columns:
        drawn.paste(picture, (left, 0))
        left += picture.width
    with written_aside(path) as aside:
        drawn.save(aside, format="PNG")

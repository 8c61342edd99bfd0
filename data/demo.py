"""The embedded demo: a procedurally drawn category in MVTec LOCO's own layout.

Each image shows a kit: a bottle with one of two drinks, filled to a mark and labelled with the
drink's colour, beside a tray that holds two nuts and two bolts. Every image is a function of the
seed and its place alone, so the same seed always draws the same files.
"""

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from data.demo_scene import (
    BOTTLE,
    FINE,
    HEIGHT,
    LABEL,
    PLACES,
    WIDTH,
    Part,
    Scene,
    box,
    disc,
    draw_part,
    normal_scene,
    photograph,
    points,
    render,
)
from data.mvtec import read_mvtec_loco
from data.samples import Category

CATEGORY = "kit"
COUNTS = {"train/good": 80, "validation/good": 24, "test/good": 24}
EACH_DEFECT = 5  # test images for every defect below

Mask = np.ndarray  # uint8 (H, W), above 0 where the defect is


def find_categories(root: Path) -> list[str]:
    """Return the demo's one category, which need not be drawn yet."""
    return [CATEGORY]


def read_demo(root: Path, name: str, seed: int) -> Category:
    """Read the demo category, drawing it first if it is not there. `seed` is of the run: unused."""
    if not (root / name).is_dir():
        draw_category(root / name)
    return read_mvtec_loco(root, name, seed)


def draw_category(folder: Path, seed: int = 0) -> None:
    """Draw the whole category into `folder`, beside it first so that it is never half there."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _draw_into(aside, seed)
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process drew the same files meanwhile
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _draw_into(folder: Path, seed: int) -> None:
    for split, count in COUNTS.items():
        for index in range(count):
            rng = np.random.default_rng((seed, *split.encode(), index))
            canvas = render(normal_scene(rng), rng)
            save(folder / split / f"{index:03}.png", photograph(canvas, rng))
    entries, drawn = [], Counter()
    for value, (name, defect) in zip(range(255, 0, -1), DEFECTS.items(), strict=False):
        entries.append({"defect_name": name, "pixel_value": value, **defect.saturation})
        for _ in range(EACH_DEFECT):
            stem = f"{drawn[defect.kind]:03}"
            drawn[defect.kind] += 1
            rng = np.random.default_rng((seed, *name.encode(), int(stem)))
            image, mask = defect.draw(normal_scene(rng), rng)
            save(folder / "test" / defect.kind / f"{stem}.png", image)
            truth = folder / "ground_truth" / defect.kind / stem / "000.png"
            save(truth, np.where(mask > 0, value, 0).astype(np.uint8))
    (folder / "defects_config.json").write_text(json.dumps(entries, indent=2), encoding="utf-8")


def save(path: Path, image: np.ndarray) -> None:
    """Write uint8 RGB (H, W, 3) or grey (H, W) as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), image):
        raise OSError(f"cannot write {path}: is the disk full?")


def blank() -> np.ndarray:
    """Return an empty mask on the fine canvas."""
    return np.zeros((HEIGHT * FINE, WIDTH * FINE), np.uint8)


def shrink(mask: np.ndarray) -> Mask:
    """Average a fine mask down; a pixel counts when at least half of it does."""
    small = cv2.resize(mask, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return (small >= 128).astype(np.uint8)


# Defects: each takes a good scene and returns the photograph and its mask.


def missing_part(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, Mask]:
    index = int(rng.integers(len(scene.parts)))
    mask = blank()
    draw_part(mask, scene.parts[index], 255)
    parts = scene.parts[:index] + scene.parts[index + 1 :]
    return photograph(render(replace(scene, parts=parts), rng), rng), shrink(mask)


def extra_part(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, Mask]:
    kind = ("nut", "bolt")[rng.integers(2)]
    extra = Part(kind, 218 + rng.uniform(-4, 4), rng.choice((84, 131, 178)), rng.uniform(0, 6))
    mask = blank()
    draw_part(mask, extra, 255)
    parts = (*scene.parts, extra)
    return photograph(render(replace(scene, parts=parts), rng), rng), shrink(mask)


def swapped_part(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, Mask]:
    index = int(rng.integers(len(scene.parts)))
    old = scene.parts[index]
    new = replace(old, kind="nut" if old.kind == "bolt" else "bolt")
    mask = blank()
    draw_part(mask, new, 255)
    parts = tuple(new if part is old else part for part in scene.parts)
    return photograph(render(replace(scene, parts=parts), rng), rng), shrink(mask)


def wrong_fill(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, Mask]:
    level = scene.fill_top + rng.choice((-1, 1)) * rng.uniform(18, 30)
    mask = blank()
    low, high = sorted((level, scene.fill_top))
    box(mask, (BOTTLE[0] + 4, low, BOTTLE[2] - 4, high), 255)
    return photograph(render(replace(scene, fill_top=level), rng), rng), shrink(mask)


def wrong_label(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, Mask]:
    mask = blank()
    box(mask, LABEL, 255)
    return photograph(render(replace(scene, label=1 - scene.drink), rng), rng), shrink(mask)


def missing_label(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, Mask]:
    mask = blank()
    box(mask, LABEL, 255)
    return photograph(render(replace(scene, label=None), rng), rng), shrink(mask)


def walk(rng: np.random.Generator, start: tuple[float, float], steps: int, stride: float):
    """Return the corners of a crooked line."""
    angles = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0, 0.35, steps))
    moves = stride * np.stack((np.cos(angles), np.sin(angles)), 1)
    return points(*(np.array(start) + np.cumsum(moves, 0)))


def anywhere(rng: np.random.Generator) -> tuple[float, float]:
    """Return a place on the bottle or on one of the parts."""
    if rng.random() < 0.5:
        return rng.uniform(50, 98), rng.uniform(84, 218)
    x, y = PLACES[rng.integers(len(PLACES))]
    return x + rng.uniform(-14, 14), y + rng.uniform(-14, 14)


def scratch(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, Mask]:
    canvas, mask = render(scene, rng), blank()
    line = walk(rng, anywhere(rng), 9, 4.0)
    shade = (250, 250, 250) if rng.random() < 0.5 else (24, 24, 28)
    cv2.polylines(canvas, [line], False, shade, round(1.8 * FINE))
    cv2.polylines(mask, [line], False, 255, 4 * FINE)
    return photograph(canvas, rng), shrink(mask)


def stain(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, Mask]:
    canvas, mask = render(scene, rng), blank()
    x, y = anywhere(rng)
    radii = rng.uniform(6, 12) * (1 + 0.3 * rng.normal(size=12)).clip(0.5, 1.6)
    angles = np.arange(12) * math.pi / 6
    blob = points(*zip(x + radii * np.cos(angles), y + radii * np.sin(angles), strict=True))
    cv2.fillPoly(mask, [blob], 255)
    colour = np.array(((62, 44, 26), (36, 92, 40), (20, 22, 26))[rng.integers(3)], np.float32)
    inside = mask > 0
    canvas[inside] = (0.2 * canvas[inside] + 0.8 * colour).astype(np.uint8)
    return photograph(canvas, rng), shrink(mask)


def broken_part(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, Mask]:
    canvas, mask = render(scene, rng), blank()
    part = scene.parts[rng.integers(len(scene.parts))]
    bite = (part.x + 14 * math.cos(part.angle + 0.3), part.y + 14 * math.sin(part.angle + 0.3))
    whole = blank()
    draw_part(whole, part, 255)
    disc(mask, *bite, 10, 255)
    mask &= whole
    canvas[mask > 0] = (52, 58, 64)
    return photograph(canvas, rng), shrink(mask)


@dataclass(frozen=True)
class Defect:
    kind: str
    draw: Callable[[Scene, np.random.Generator], tuple[np.ndarray, Mask]]
    threshold: float = 1.0
    relative: bool = True

    @property
    def saturation(self) -> dict:
        """Return how much of the mask must be found: a share of it, or a number of pixels."""
        return {"saturation_threshold": self.threshold, "relative_saturation": self.relative}


LOGICAL, STRUCTURAL = "logical_anomalies", "structural_anomalies"
DEFECTS = {
    "missing_part": Defect(LOGICAL, missing_part, 600, relative=False),
    "extra_part": Defect(LOGICAL, extra_part, 600, relative=False),
    "swapped_part": Defect(LOGICAL, swapped_part, 600, relative=False),
    "wrong_fill": Defect(LOGICAL, wrong_fill),
    "wrong_label": Defect(LOGICAL, wrong_label, 1200, relative=False),
    "missing_label": Defect(LOGICAL, missing_label, 0.5),
    "scratch": Defect(STRUCTURAL, scratch),
    "stain": Defect(STRUCTURAL, stain),
    "broken_part": Defect(STRUCTURAL, broken_part),
}

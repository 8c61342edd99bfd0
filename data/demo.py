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

from data.mvtec import read_mvtec_loco
from data.samples import Category

CATEGORY = "kit"
HEIGHT, WIDTH = 256, 320  # pixels
FINE = 4  # drawn this many times larger and averaged down, so that edges are smooth
COUNTS = {"train/good": 80, "validation/good": 24, "test/good": 24}
EACH_DEFECT = 5  # test images for every defect below

DRINKS = ((226, 148, 36), (176, 38, 60))  # RGB: orange, cherry
STEEL, BRASS = (168, 172, 178), (196, 162, 84)
BOTTLE = (34, 70, 114, 232)  # left, top, right, bottom, in pixels
LABEL = (44, 150, 104, 204)
FILL_TOP = 108  # the mark, in pixels from the top
PLACES = ((178, 84), (258, 84), (178, 178), (258, 178))  # of the four parts: x, y
PART_RADIUS = 24

Mask = np.ndarray  # uint8 (H, W), above 0 where the defect is


@dataclass(frozen=True)
class Part:
    kind: str  # "nut" or "bolt"
    x: float
    y: float
    angle: float  # radians


@dataclass(frozen=True)
class Scene:
    drink: int
    label: int | None  # the drink it names
    fill_top: float
    parts: tuple[Part, ...]


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
    (folder / "defects_config.json").write_text(json.dumps(entries, indent=2))


def save(path: Path, image: np.ndarray) -> None:
    """Write uint8 RGB (H, W, 3) or grey (H, W) as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), image):
        raise OSError(f"cannot write {path}: is the disk full?")


def normal_scene(rng: np.random.Generator) -> Scene:
    """Return a good kit: which drink, and how exactly the parts lie, is left to chance."""
    drink = int(rng.integers(2))
    kinds = ("nut", "bolt", "bolt", "nut")
    parts = tuple(
        Part(kind, x + rng.uniform(-5, 5), y + rng.uniform(-5, 5), rng.uniform(0, 2 * math.pi))
        for kind, (x, y) in zip(kinds, PLACES, strict=True)
    )
    return Scene(drink, drink, FILL_TOP + rng.uniform(-2, 2), parts)


# Drawing. All coordinates are pixels of the finished image.


def points(*pairs: tuple[float, float]) -> np.ndarray:
    """Return polygon corners in the coordinates of the fine canvas."""
    return np.round(np.array(pairs) * FINE).astype(np.int32)


def box(canvas: np.ndarray, corners: tuple, colour: tuple | int) -> None:
    """Fill a rectangle (left, top, right, bottom)."""
    left, top, right, bottom = corners
    corners = points((left, top), (right, top), (right, bottom), (left, bottom))
    cv2.fillPoly(canvas, [corners], colour)


def disc(canvas: np.ndarray, x: float, y: float, radius: float, colour: tuple | int) -> None:
    """Fill a circle."""
    cv2.circle(canvas, tuple(points((x, y))[0].tolist()), round(radius * FINE), colour, -1)


def render(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw a scene: uint8 (FINE * H, FINE * W, 3)."""
    canvas = np.full((HEIGHT * FINE, WIDTH * FINE, 3), (74, 82, 92), np.uint8)
    box(canvas, (140, 36, 300, 226), (104, 112, 118))
    box(canvas, (146, 42, 294, 220), (52, 58, 64))
    left, top, right, bottom = BOTTLE
    box(canvas, (left + 24, 30, right - 24, top), (206, 216, 220))
    box(canvas, (left + 20, 20, right - 20, 36), (40, 60, 110))
    box(canvas, BOTTLE, (206, 216, 220))
    box(canvas, (left + 4, scene.fill_top, right - 4, bottom - 4), DRINKS[scene.drink])
    box(canvas, (left + 8, top + 4, left + 12, bottom - 8), (236, 240, 240))  # a reflection
    if scene.label is not None:
        draw_label(canvas, scene.label)
    for part in scene.parts:
        draw_part(canvas, part)
    return canvas


def draw_label(canvas: np.ndarray, drink: int) -> None:
    """Stick on the label: a disc for orange, two cherries for cherry, and lines of print."""
    left, top, right, _ = LABEL
    box(canvas, LABEL, (240, 238, 228))
    middle = (left + right) / 2
    if drink == 0:
        disc(canvas, middle, top + 20, 13, DRINKS[0])
    else:
        disc(canvas, middle - 9, top + 22, 9, DRINKS[1])
        disc(canvas, middle + 9, top + 22, 9, DRINKS[1])
    for line in (38, 44):
        box(canvas, (left + 8, top + line, right - 8, top + line + 2), (90, 90, 96))


def hexagon(part: Part, radius: float) -> np.ndarray:
    """Return the corners of a part's hexagon."""
    angles = part.angle + np.arange(6) * math.pi / 3
    return points(
        *zip(part.x + radius * np.cos(angles), part.y + radius * np.sin(angles), strict=True)
    )


def shaft(part: Part) -> np.ndarray:
    """Return the corners of a bolt's shaft, from its head outwards."""
    along = np.array((math.cos(part.angle), math.sin(part.angle)))
    across = np.array((-along[1], along[0])) * 6
    start, end = np.array((part.x, part.y)) - 10 * along, np.array((part.x, part.y)) + 24 * along
    return points(start + across, end + across, end - across, start - across)


def draw_part(canvas: np.ndarray, part: Part, colour: tuple | int | None = None) -> None:
    """Draw a nut or a bolt; in one `colour`, holes and threads left out, for a mask."""
    if part.kind == "nut":
        cv2.fillPoly(canvas, [hexagon(part, PART_RADIUS - 4)], colour or BRASS)
        if colour is None:
            disc(canvas, part.x, part.y, 10, (52, 58, 64))
        return
    cv2.fillPoly(canvas, [shaft(part)], colour or STEEL)
    back = -14
    head = replace(
        part, x=part.x + back * math.cos(part.angle), y=part.y + back * math.sin(part.angle)
    )
    cv2.fillPoly(canvas, [hexagon(head, 13)], colour or (142, 146, 154))
    if colour is None:
        for at in (6, 12, 18):
            x, y = part.x + at * math.cos(part.angle), part.y + at * math.sin(part.angle)
            dx, dy = -6 * math.sin(part.angle), 6 * math.cos(part.angle)
            ends = points((x - dx, y - dy), (x + dx, y + dy)).tolist()
            cv2.line(canvas, ends[0], ends[1], (110, 114, 120), FINE)


def photograph(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Average down, light unevenly, add sensor noise: uint8 (H, W, 3)."""
    image = cv2.resize(canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32)
    x, y = np.linspace(-1, 1, WIDTH)[None, :, None], np.linspace(-1, 1, HEIGHT)[:, None, None]
    slope = rng.uniform(-0.04, 0.04, 2)
    image *= rng.uniform(0.96, 1.04) + slope[0] * x + slope[1] * y
    return np.clip(np.round(image + rng.normal(0, 2, image.shape)), 0, 255).astype(np.uint8)


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

"""The demo's scene: what a good kit is, and how it is drawn and photographed.

All coordinates are pixels of the finished image.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

HEIGHT, WIDTH = 256, 320  # pixels
FINE = 4  # drawn this many times larger and averaged down, so that edges are smooth

DRINKS = ((226, 148, 36), (176, 38, 60))  # RGB: orange, cherry
STEEL, BRASS = (168, 172, 178), (196, 162, 84)
BOTTLE = (34, 70, 114, 232)  # left, top, right, bottom, in pixels
LABEL = (44, 150, 104, 204)
FILL_TOP = 108  # the mark, in pixels from the top
PLACES = ((178, 84), (258, 84), (178, 178), (258, 178))  # of the four parts: x, y
PART_RADIUS = 24


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


def normal_scene(rng: np.random.Generator) -> Scene:
    """Return a good kit: which drink, and how exactly the parts lie, is left to chance."""
    drink = int(rng.integers(2))
    kinds = ("nut", "bolt", "bolt", "nut")
    parts = tuple(
        Part(kind, x + rng.uniform(-5, 5), y + rng.uniform(-5, 5), rng.uniform(0, 2 * math.pi))
        for kind, (x, y) in zip(kinds, PLACES, strict=True)
    )
    return Scene(drink, drink, FILL_TOP + rng.uniform(-2, 2), parts)


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

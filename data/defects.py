"""Defects made on good images, to measure what can be seen on a product without a real defect."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch

STRUCTURAL, LOGICAL = "structural", "logical"
Image = np.ndarray  # uint8 (H, W, 3)
Region = np.ndarray  # bool (H, W)
SMALL, LARGE = (0.001, 0.02), (0.01, 0.08)  # least and most of an image's area
VISIBLE = 10  # grey levels that a pixel must change by


class Defects(NamedTuple):
    """Images with one defect each, uint8 (N, 3, H, W); `masks` are bool (N, H, W)."""

    images: torch.Tensor
    masks: torch.Tensor
    kinds: list[str]  # STRUCTURAL or LOGICAL
    sources: list[int]  # the index of the good image below


def blob(rng: np.random.Generator, size: tuple[int, int], areas: tuple[float, float]) -> Region:
    """Draw a smooth, turned region, whose part of the image is between `areas`."""
    height, width = size
    area = np.exp(rng.uniform(*np.log(areas))) * height * width
    stretch = np.exp(rng.uniform(-0.7, 0.7))
    radii = np.sqrt(area / np.pi * stretch), np.sqrt(area / np.pi / stretch)
    middle = [
        rng.uniform(min(r, s / 2), max(s - r, s / 2)) for r, s in zip(radii, size, strict=True)
    ]
    y, x = np.mgrid[:height, :width] - np.reshape(middle, (2, 1, 1))
    turn = rng.uniform(0, np.pi)
    u, v = y * np.cos(turn) + x * np.sin(turn), x * np.cos(turn) - y * np.sin(turn)
    wave = np.sin(3 * np.arctan2(v, u) + rng.uniform(0, 2 * np.pi))
    return (u / radii[0]) ** 2 + (v / radii[1]) ** 2 < (1 + 0.25 * rng.uniform() * wave) ** 2


def shift(rng: np.random.Generator, size: tuple[int, int]) -> tuple[int, int]:
    """Draw by how many rows and columns something is moved."""
    return tuple(int(rng.integers(-side // 2, side // 2)) for side in size)


def foreign_patch(image: Image, other: Image, rng: np.random.Generator) -> Image:
    """Paste a piece of another good image, from elsewhere, half of them upside down."""
    region = blob(rng, image.shape[:2], SMALL)
    moved = np.roll(other, shift(rng, image.shape[:2]), (0, 1))
    moved = moved[::-1, ::-1] if rng.integers(2) else moved
    return np.where(region[..., None], moved, image)


def scratch(image: Image, other: Image, rng: np.random.Generator) -> Image:
    """Draw a thin crooked line, brighter or darker."""
    height, width = image.shape[:2]
    place, turn = rng.uniform(0.1, 0.9, 2) * (width, height), rng.uniform(0, 2 * np.pi)
    points = [place]
    for bend in rng.uniform(-0.4, 0.4, rng.integers(8, 25)):
        turn += bend
        points.append(
            points[-1] + np.array([np.cos(turn), np.sin(turn)]) * min(image.shape[:2]) / 128
        )
    line = np.zeros(image.shape[:2], np.uint8)
    cv2.polylines(line, [np.int32(points)], False, 1, int(rng.integers(1, 3)))
    change = rng.uniform(30, 90) * rng.choice([-1, 1])
    return np.clip(image + change * line[..., None], 0, 255).astype(np.uint8)


def blur(image: Image, other: Image, rng: np.random.Generator) -> Image:
    """Blur a small region."""
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(2, 5))
    return np.where(blob(rng, image.shape[:2], SMALL)[..., None], blurred, image)


def stain(image: Image, other: Image, rng: np.random.Generator) -> Image:
    """Blend a small region with a colour."""
    strength, colour = rng.uniform(0.2, 0.5), rng.uniform(0, 255, 3)
    stained = (image * (1 - strength) + colour * strength).astype(np.uint8)
    return np.where(blob(rng, image.shape[:2], SMALL)[..., None], stained, image)


def missing(image: Image, other: Image, rng: np.random.Generator) -> Image:
    """Paint a region over with its surroundings."""
    region = blob(rng, image.shape[:2], LARGE)
    return cv2.inpaint(np.ascontiguousarray(image), region.astype(np.uint8), 5, cv2.INPAINT_TELEA)


def doubled(image: Image, other: Image, rng: np.random.Generator) -> Image:
    """Copy a region to another place."""
    region = blob(rng, image.shape[:2], LARGE)
    return np.where(region[..., None], np.roll(image, shift(rng, image.shape[:2]), (0, 1)), image)


def swapped(image: Image, other: Image, rng: np.random.Generator) -> Image:
    """Exchange two regions of the same shape; where they overlap, one of them wins."""
    region, move = blob(rng, image.shape[:2], LARGE), shift(rng, image.shape[:2])
    there = np.roll(region, [-step for step in move], (0, 1))
    changed = np.where(there[..., None], np.roll(image, [-step for step in move], (0, 1)), image)
    return np.where(region[..., None], np.roll(image, move, (0, 1)), changed)


KINDS: dict[Callable, str] = {
    foreign_patch: STRUCTURAL,
    missing: LOGICAL,
    scratch: STRUCTURAL,
    doubled: LOGICAL,
    blur: STRUCTURAL,
    swapped: LOGICAL,
    stain: STRUCTURAL,
}


def make_defects(
    images: torch.Tensor,
    ignored: torch.Tensor | None = None,
    least: int = 70,
    most: int = 140,
    seed: int = 0,
) -> Defects:
    """Make `least` to `most` defects, evenly spaced over good images, uint8 (N, 3, H, W).

    All kinds are made as often; those that cannot be seen then are left out, and those of which
    most pixels are `ignored`, bool (H, W) or empty. The same images and seed give the same defects.
    """
    looked_at = np.ones(images.shape[-2:], bool)
    if ignored is not None and ignored.numel():
        looked_at = ~ignored.cpu().numpy()
    rng = np.random.default_rng(seed)
    number = min(max(len(images), least), most)
    makers = list(KINDS)
    rounds = [rng.permutation(len(makers)) for _ in range(-(-number // len(makers)))]
    order = np.concatenate(rounds)  # so that an image is not given one kind alone
    changed, masks, kinds, sources = [], [], [], []
    for index in range(number):
        source = index * len(images) // number if number < len(images) else index % len(images)
        image, other = (
            images[i].permute(1, 2, 0).cpu().numpy()
            for i in (source, int(rng.integers(len(images))))
        )
        maker = makers[order[index]]
        defect = maker(image, other, rng)
        visible = np.abs(defect.astype(int) - image).max(2) > VISIBLE
        shown = visible & looked_at
        if visible.any() and 2 * shown.sum() >= visible.sum():
            changed.append(torch.from_numpy(np.ascontiguousarray(defect.transpose(2, 0, 1))))
            masks.append(torch.from_numpy(shown))
            kinds.append(KINDS[maker])
            sources.append(source)
    if not changed:  # images so small or so plain that nothing shows
        empty = images[:0].cpu()
        return Defects(empty, empty[:, 0].bool(), [], [])
    return Defects(torch.stack(changed), torch.stack(masks), kinds, sources)

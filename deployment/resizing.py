"""Images made smaller as PIL does it, and maps larger, by products, which every runtime has."""

from typing import NamedTuple

import torch

from data.images import Size

BASE = 2**11  # of PIL's weights of 22 bits are two digits, with which float32 (and TF32) is exact
BLOCK = 32  # lines of a resized image that one product gives: each needs few of the image's


class Taps(NamedTuple):
    """What lines of a resized image are made of, in BLOCKs of them."""

    wanted: int  # lines in all; the last block may have more
    places: torch.Tensor  # int32 (blocks, pixels): lines of the image
    digits: list[torch.Tensor]  # of the weight of each, float32 (blocks, BLOCK, pixels)


def taps(size: Size, wanted: Size, digits: int) -> tuple[Taps, Taps]:
    """Return what makes images of `size` (height, width) those of the `wanted` one.

    With two `digits` bit for bit as PIL does; with one in half the time, and some pixels are a grey
    level beside.
    """
    down, across = (taps_of_side(*sides, digits) for sides in zip(size, wanted, strict=True))
    return down, across


def taps_of_side(side: int, wanted: int, digits: int) -> Taps:
    """Return what makes `side` lines the `wanted` ones; see `taps`."""
    places, triangle = triangles(side, wanted)
    whole = triangle.sum(2, keepdim=True, dtype=torch.int32).clamp(min=1)  # none of a line too many
    if digits == 1:
        return Taps(wanted, places, [triangle / whole])
    high = BASE * triangle // whole
    low = ((BASE * triangle - high * whole) * (BASE / whole) + 0.5).floor()
    return Taps(wanted, places, [high.float(), low])


def triangles(side: int, wanted: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which of `side` pixels each BLOCK of `wanted` is made of, and how much of each.

    Whole numbers: int32 (blocks, pixels) and (blocks, BLOCK, pixels), their sum to be made 1. A
    triangle is as wide as there are pixels for each that is wanted; distances are in
    1 / (2 `wanted`) pixels, so that they are whole numbers, too.
    """
    reach, count = 2 * torch.sym_max(side, wanted), -(-wanted // BLOCK)
    centres = (2 * torch.arange(count * BLOCK, dtype=torch.int32) + 1).view(count, BLOCK, 1) * side
    first = (centres[:, 0] - reach) // (2 * wanted)
    pixels = ((BLOCK - 1) * side + reach) // wanted + 2
    places = first + torch.arange(pixels, dtype=torch.int32)
    off = (2 * places + 1)[:, None] * wanted - centres
    inside = ((places >= 0) & (places < side))[:, None]
    return places.clamp(0, side - 1), (reach - off.abs()).clamp(min=0) * inside


def resized(image: torch.Tensor, by: tuple[Taps, Taps]) -> torch.Tensor:
    """Resize images, uint8 (N, H, W, 3), by their `taps`: grey levels, float32 (N, 3, h, w).

    PIL's antialiased bilinear resize: rows first, both ways rounded. Source: PIL, Resample.c. With
    one digit columns come first, since then the large image need not be turned.
    """
    down, across = by
    if len(down.digits) == 1:
        rows = resized_side(image.flatten(2), down)  # (N, h, W * 3)
        by_column = rows.unflatten(2, (-1, 3)).transpose(1, 2).flatten(2)  # (N, W, h * 3)
        levels = rounded(resized_side(by_column, across))
        return levels.unflatten(2, (-1, 3)).permute(0, 3, 2, 1)
    by_column = image.flatten(2).mT.unflatten(1, (-1, 3)).flatten(2)  # (N, W, 3 * H)
    columns = rounded(resized_side(by_column, across))
    by_row = columns.unflatten(2, (3, -1)).flatten(1, 2).mT  # (N, H, w * 3)
    return rounded(resized_side(by_row, down)).unflatten(2, (-1, 3)).permute(0, 3, 1, 2)


def resized_side(lines: torch.Tensor, by: Taps) -> torch.Tensor:
    """Return (N, wanted, values of each) of lines (N, lines, values of each)."""
    near = lines.index_select(1, by.places.flatten()).unflatten(1, by.places.shape).float()
    levels = by.digits[0] @ near
    for low in by.digits[1:]:
        levels = (levels + (low @ near / BASE).floor()) / BASE
    return levels.flatten(1, 2)[:, : by.wanted]


def rounded(levels: torch.Tensor) -> torch.Tensor:
    """Round as PIL does: halves upwards."""
    return (levels + 0.5).floor()


def enlarged(maps: torch.Tensor, size: Size) -> torch.Tensor:
    """Resize maps (N, h, w) to `size` (height, width) bilinearly, as `score_maps` does.

    This takes a tenth of the time of OpenVINO's own interpolation.
    """
    rows, columns = (shares(*sides) for sides in zip(maps.shape[1:], size, strict=True))
    return rows @ (maps @ columns.mT)


def shares(side: int, wanted: int) -> torch.Tensor:
    """Return what each of `side` pixels adds to each of `wanted`, (wanted, side), between two."""
    centres = ((torch.arange(wanted) + 0.5) * (side / wanted) - 0.5).clamp(0, side - 1)
    return (1 - (centres[:, None] - torch.arange(side)).abs()).clamp(min=0)

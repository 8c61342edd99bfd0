"""The graph that an exported file holds: from the bytes of images to scores, verdicts and maps."""

import torch
from torch import nn

from data.images import Size
from models.detector import Detector
from models.experts import COMBINED
from scoring.scorer import look

BASE = 2**11  # of PIL's weights of 22 bits are two digits, with which float32 (and TF32) is exact
BLOCK = 32  # lines of a resized image that one product gives: each needs few of the image's


class ScoringGraph(nn.Module):
    """Scores images as `Scorer` does, beginning with their bytes: nothing is left to the caller.

    Images of any size are resized to `size` (height, width), as PIL does; not if `resizes` is
    false, then they have it; `digits` as in `resized`. It is traced, so no size may decide what is
    computed.
    """

    def __init__(self, detector: Detector, size: Size, resizes: bool = True, digits: int = 2):
        super().__init__()
        self.detector = detector.for_scoring()
        self.size, self.resizes, self.digits = size, resizes, digits

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return `description.OUTPUTS` of images, uint8 (N, H, W, 3), RGB."""
        detector, size = self.detector, tuple(image.shape[1:3])
        if self.resizes:
            seen = resized(image, self.size, self.digits)
        else:
            seen = image.permute(0, 3, 1, 2).float()
        found = look(detector, seen)
        maps = enlarged(found.maps[COMBINED][:, 0], size)
        score = found.scores.get(COMBINED, maps.amax((1, 2)))
        good = detector.good_scores[detector.rated.index(COMBINED)]
        as_high = (good >= score[:, None]).sum(1)
        outputs = {
            "score": score,
            "p_value": (1 + as_high) / (len(good) + 1),
            "anomalous": ~(score <= detector.threshold),  # nor is what is no number good
            "anomaly_map": maps,
        }
        if found.scores:
            outputs["experts"] = torch.stack([found.scores[n] for n in detector.experts], 1)
        return outputs


def enlarged(maps: torch.Tensor, size: Size) -> torch.Tensor:
    """Resize maps (N, h, w) to `size` (height, width) bilinearly, as `score_maps` does.

    As matrix products, which take a tenth of the time of OpenVINO's own interpolation.
    """
    rows, columns = (shares(*sides) for sides in zip(maps.shape[1:], size, strict=True))
    return rows @ (maps @ columns.mT)


def shares(side: int, wanted: int) -> torch.Tensor:
    """Return what each of `side` pixels adds to each of `wanted`, (wanted, side), between two."""
    centres = ((torch.arange(wanted) + 0.5) * (side / wanted) - 0.5).clamp(0, side - 1)
    return (1 - (centres[:, None] - torch.arange(side)).abs()).clamp(min=0)


def resized(image: torch.Tensor, size: Size, digits: int = 2) -> torch.Tensor:
    """Resize images, uint8 (N, H, W, 3), to `size` (height, width): grey levels, (N, 3, h, w).

    PIL's antialiased bilinear resize, as matrix products, which every runtime has: rows first, both
    ways rounded; float32. Bit for bit with two `digits`; with one in half the time, and some pixels
    in 100 000 are a grey level beside. Source: PIL, Resample.c.
    """
    by_column = image.flatten(2).mT.unflatten(1, (-1, 3)).flatten(2)  # (N, W, 3 * H)
    columns = resized_side(by_column, size[1], digits)
    rows = columns.unflatten(2, (3, -1)).flatten(1, 2).mT  # (N, H, w * 3)
    return resized_side(rows, size[0], digits).unflatten(2, (-1, 3)).permute(0, 3, 1, 2)


def resized_side(lines: torch.Tensor, wanted: int, digits: int) -> torch.Tensor:
    """Return `wanted` lines for those of images, (N, lines, values of each): grey levels."""
    places, triangle = triangles(lines.shape[1], wanted)
    near = lines.index_select(1, places.flatten()).unflatten(1, places.shape).float()
    whole = triangle.sum(2, keepdim=True, dtype=torch.int32).clamp(min=1)  # none of a line too many
    if digits == 1:
        levels = triangle / whole @ near
    else:
        high = BASE * triangle // whole
        low = ((BASE * triangle - high * whole) * (BASE / whole) + 0.5).floor()
        levels = (high.float() @ near + (low @ near / BASE).floor()) / BASE
    return (levels + 0.5).floor().flatten(1, 2)[:, :wanted]  # halves are rounded up, as PIL does


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

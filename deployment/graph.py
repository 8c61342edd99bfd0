"""The graph that an exported file holds: from the bytes of images to scores, verdicts and maps."""

import torch
from torch import nn

from data.images import Size
from deployment.compact import compact
from models.detector import Detector
from models.experts import COMBINED, score_maps
from scoring.scorer import look

BASE = 2**11  # of PIL's weights of 22 bits are two digits, with which float32 (and TF32) is exact


class ScoringGraph(nn.Module):
    """Scores images as `Scorer` does, beginning with their bytes: nothing is left to the caller.

    Images of any size are resized to `size` (height, width), as PIL does; not if `resizes` is
    false, then they have it. It is traced, so no size may decide what is computed. Statistics are
    `compact` for a `precision` of the networks below fp32, which is not theirs here yet.
    """

    def __init__(
        self, detector: Detector, size: Size, resizes: bool = True, precision: str = "fp32"
    ):
        super().__init__()
        self.detector = detector.for_scoring()
        compact(self.detector, size, precision)
        self.size, self.resizes = size, resizes

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return `description.OUTPUTS` of images, uint8 (N, H, W, 3), RGB."""
        detector, size = self.detector, tuple(image.shape[1:3])
        image = image.permute(0, 3, 1, 2).float()
        found = look(detector, resized(image, self.size) if self.resizes else image)
        maxima, maps = score_maps(found.maps[COMBINED], size)
        score = found.scores.get(COMBINED, maxima)
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


def resized(image: torch.Tensor, size: Size) -> torch.Tensor:
    """Resize images (N, 3, H, W) in [0, 255] to `size` (height, width): grey levels, float32.

    Bit for bit PIL's antialiased bilinear resize, as matrix products, which every runtime has: rows
    first, both ways rounded. Source: PIL, Resample.c.
    """
    height, width = size
    high, low = weights(image.shape[3], width)
    rows = levels(image @ high.mT, image @ low.mT)
    high, low = weights(image.shape[2], height)
    return levels(high @ rows, low @ rows)


def weights(side: int, wanted: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each of `side` pixels adds to each of `wanted`: two digits of base BASE.

    Whole numbers, float32 (wanted, side). A triangle, as wide as there are pixels for each that is
    wanted; distances are in 1 / (2 `wanted`) pixels, so that they are whole numbers, too.
    """
    places, centres = (2 * torch.arange(n, dtype=torch.int32) + 1 for n in (side, wanted))
    reach = 2 * torch.sym_max(side, wanted)
    triangle = (reach - (places * wanted - centres[:, None] * side).abs()).clamp(min=0)
    whole = triangle.sum(1, keepdim=True, dtype=torch.int32)
    high = BASE * triangle // whole
    low = ((BASE * triangle - high * whole) * (BASE / whole) + 0.5).floor()
    return high.float(), low


def levels(high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """Return the grey levels of sums of both digits: halves are rounded up, as PIL does."""
    return ((high + (low / BASE).floor()) / BASE + 0.5).floor()

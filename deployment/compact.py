"""Statistics in few bytes, for files of low precision: near the fitted ones."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from data.images import Size
from models.detector import Detector
from models.pdn import output_side, places_of
from models.statistics import (
    LEAST_DEVIATION,
    RIDGE,
    Composition,
    Position,
    eigen,
    inverse_root,
)

# Places of a map that share no covariances, at most, by the precision of the networks. At 256 x 256
# there are 3136: the position takes 8.3 MB or, as 2 x 2 of them share one, 2.3 of 52. INT8 leaves
# a file no more.
MOST_ALONE = {"bf16": math.inf, "int8": 1000}
STEP = 8  # columns of a triangle that are held with the rows of the longest: a tenth is zeros
MOST = 127  # of int8, either way


class Columns(nn.Module):
    """A matrix (..., rows, columns) in int8, and what its columns are to be multiplied by.

    A product is scaled afterwards: OpenVINO 2026.4 gets that of a transposed matrix wrong where
    each column has a scale. It is made of bytes where it is used, and what is multiplied, as here,
    converters take for compressed weights, which they leave as they are.
    """

    def __init__(self, matrix: torch.Tensor):
        super().__init__()
        scale = matrix.abs().amax(-2).clamp(min=1e-30)
        digits = (matrix / scale[..., None, :] * MOST).round().to(torch.int8)
        self.register_buffer("digits", digits)
        self.register_buffer("scale", scale.float())  # (..., columns)

    def forward(self) -> torch.Tensor:
        """Return the matrix without its scale, within -1 and 1, float32."""
        return self.digits.float() * (1 / MOST)


class CompactPosition(nn.Module):
    """`Position` whose neighbouring places share the mean of their covariances.

    A place keeps its mean, and by a factor what a good image's distance is expected to be there.
    """

    def __init__(self, position: Position, ignored: torch.Tensor, side: int):
        """Let `side` x `side` places share; `ignored` ones, bool (h, w), are imputed."""
        super().__init__()
        self.triangle = nn.ModuleList()  # its columns from left to right, without rows of zeros
        if position.own:
            covariance = position.moments().shrunk_to_pooled()
            together = blocks(tuple(ignored.shape), side)
            whitening = inverse_root(covariance[together].mean(1))  # (blocks, d, d)
            for first in range(0, whitening.shape[-1], STEP):
                end = first + STEP
                self.triangle.append(Columns(whitening[:, :end, first:end]))
            found = torch.empty(ignored.numel(), dtype=torch.int64)
            found[together.flatten()] = torch.arange(together.numel())
            shared = whitening[found // side**2]
            variances = (shared * (covariance @ shared + RIDGE * shared)).sum(1)
            self.register_buffer("factor", 1 / variances.mean(-1, keepdim=True))  # (places, 1)
            self.register_buffer("together", together)
            self.register_buffer("found", found)  # where, of `together`, each place is
            self.projection = Columns(position.basis)
        else:
            self.projection = Columns(position.factors(False)[0])
        mean = position.mean.mT[None, :, :, None]  # (1, C, places, 1)
        self.projected = Columns(self.projections(mean)[0, ..., 0].mT)
        self.register_buffer("imputed", ignored.flatten().nonzero()[:, 0])
        self.typical = Columns(position.mean[self.imputed].mT)

    def projections(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, C, h, w) in the directions of covariances, (N, d, h, w)."""
        # a convolution's weights, so that features need not be laid out anew
        weights = self.projection().mT[..., None, None]
        return F.conv2d(features, weights) * self.projection.scale[:, None, None]

    def impute(self, features: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        """Return features (N, C, h, w) with good images' mean ones at ignored places."""
        typical = (self.typical() * self.typical.scale).expand(features.shape[0], -1, -1)
        imputed = features.flatten(2).index_copy(2, self.imputed, typical)
        return imputed.unflatten(2, features.shape[2:])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the squared distance of each place, (N, 1, h, w), of features (N, C, h, w)."""
        n, _, h, w = features.shape
        projected = self.projected() * self.projected.scale
        off = self.projections(features).flatten(2).permute(2, 0, 1) - projected[:, None]
        if not self.triangle:
            distance = off.square().sum(-1)  # (places, N)
        else:
            off = off[self.together].flatten(1, 2)  # (blocks, places of each x N, d)
            white = [off[..., : c.digits.shape[-2]] @ c() * c.scale[:, None] for c in self.triangle]
            squares = sum(part.square().sum(-1) for part in white)
            distance = squares.view(-1, n)[self.found] * self.factor
        return distance.mT.reshape(n, 1, h, w)


def blocks(size: Size, side: int) -> torch.Tensor:
    """Return places of a map of `size` (h, w) in squares of `side`, (blocks, side²).

    At its lower and right ends the last place fills a square up.
    """
    rows, columns = (
        torch.arange(-(-n // side) * side).clamp(max=n - 1).view(-1, side) for n in size
    )
    return (rows[:, None, :, None] * size[1] + columns[None, :, None]).reshape(-1, side**2)


class CompactComposition(nn.Module):
    """`Composition` whose covariance has its directions in int8.

    Rounding one that is narrow, which weighs much, does not show in the others.
    """

    def __init__(self, composition: Composition):
        super().__init__()
        self.register_buffer("units", composition.units)
        self.register_buffer("mean", composition.mean)
        values, vectors = eigen(composition.inverse())
        self.directions = Columns(vectors.float())
        self.register_buffer("weight", values.float() * self.directions.scale.square())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return what each place adds, (N, 1, h, w), of features (N, C, h, w): as `Composition`.

        They stay as they are laid out.
        """
        around = features - features.mean((2, 3), keepdim=True)
        std = around.square().mean((2, 3), keepdim=True).clamp(min=LEAST_DEVIATION**2).sqrt()
        summary = torch.cat([features.mean((2, 3)), std.flatten(1)], 1)  # (N, 2 C)
        off, directions = summary / self.units - self.mean, self.directions()
        pull = off @ directions * self.weight @ directions.mT
        by_mean, by_std = (pull / self.units)[..., None, None].chunk(2, 1)
        by_place = (around * (around * (by_std / std) + by_mean)).sum(1, keepdim=True)
        distance = (off * pull).sum(1) - (by_std * std).sum((1, 2, 3))
        return (by_place + distance[:, None, None, None]) / (features[0, 0].numel())


def compact(detector: Detector, size: Size, precision: str) -> None:
    """Make the statistics small of a detector that is to score alone images of `size`, in place.

    `precision` is that of the networks, below fp32. Deterministic; it takes seconds at 256 x 256.
    """
    for name, statistic in detector.statistics.items():
        if name == "position":
            ignored = places_of(detector.view.ignored, tuple(map(output_side, size)))
            side = 1 if ignored.numel() <= MOST_ALONE[precision] else 2
            small = CompactPosition(statistic, ignored, side)
        else:
            small = CompactComposition(statistic)
        detector.statistics[name] = small.requires_grad_(False)

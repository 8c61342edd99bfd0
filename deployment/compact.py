"""Statistics in a twentieth of the bytes, for files of low precision: near the fitted ones."""

import torch
from torch import nn

from data.images import Size
from models.detector import Detector
from models.pdn import output_side, places_of
from models.statistics import RIDGE, Composition, Position, eigen, inverse_root

# Directions in which places keep variances of their own, of all places together, by the precision
# of the networks: 31 and 8 a place at 256 x 256, in 6 and 2 MB. INT8 leaves a file no more.
DIRECTIONS = {"bf16": 100_000, "int8": 26_000}
MOST_EACH = 32  # of a place's 64: of more, what is rounded outweighs what is gained
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
    """`Position` with little more of each place than the directions in which it is special.

    Where the mean covariance of all places is the identity, a place's own is mostly near a multiple
    of it: kept are a few directions in which it is the widest or the narrowest, and of the others
    the mean variance. A good image's expected distance stays what it was. Where places have no
    covariance of their own, nothing is left out. Source: Welling, Agakov and Williams, *Extreme
    components analysis*, NIPS 2003.
    """

    def __init__(self, position: Position, directions: int, ignored: torch.Tensor):
        """Keep `directions` of each place; `ignored` ones, bool (h, w), are imputed."""
        super().__init__()
        self.directions = None
        if position.own:
            covariance = position.moments().shrunk_to_pooled()
            white = inverse_root(covariance.mean(0, keepdim=True))[0]
            covariance.diagonal(dim1=-2, dim2=-1).add_(RIDGE)
            common, more, columns = extremes(white.mT @ covariance @ white, directions)
            self.directions = Columns(columns)
            self.register_buffer("more", more * self.directions.scale.square())
            self.register_buffer("common", common)
            projection = position.basis @ white
        else:
            projection = position.factors(False)[0]
        self.register_buffer("projection", projection.half())
        self.means = Columns(position.mean @ self.projection.float())
        self.register_buffer("imputed", ignored.flatten().nonzero()[:, 0])
        self.register_buffer("typical", position.mean[self.imputed].mT.half())

    def impute(self, features: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        """Return features (N, C, h, w) with good images' mean ones at ignored places."""
        typical = self.typical.float().expand(len(features), -1, -1)
        return features.flatten(2).index_copy(2, self.imputed, typical).view_as(features)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the squared distance of each place, (N, 1, h, w), of features (N, C, h, w)."""
        n, _, h, w = features.shape
        mean = self.means() * self.means.scale
        off = features.flatten(2).mT @ self.projection.float() - mean  # (N, places, d)
        distance = off.square().sum(-1)
        if self.directions is not None:
            along = (off.transpose(0, 1) @ self.directions()).transpose(0, 1)
            more = (along.square() * self.more).sum(-1)
            distance = (distance * self.common + more).clamp(min=0)  # what is rounded may be less
        return distance.view(n, 1, h, w)


def extremes(
    covariance: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return parts of the inverses of covariances (places, d, d), nearly g I + V diag(c) Vᵀ.

    They are g (places,), c (places, count) and V (places, d, count). The variances that become one
    are neighbours, and those for which that is the likeliest. Source: as `CompactPosition`.
    """
    variances, vectors = torch.linalg.eigh(covariance)  # rising
    places, d = variances.shape
    count = min(count, d - 1)
    runs = variances.unfold(1, d - count, 1)  # (places, count + 1, d - count)
    first = (runs.mean(-1).log() - runs.log().mean(-1)).argmin(1, keepdim=True)
    common = 1 / runs.mean(-1).gather(1, first)  # (places, 1)
    kept = torch.arange(count).expand(places, -1)
    kept = torch.where(kept < first, kept, kept + d - count)
    more = 1 / variances.gather(1, kept) - common
    return common[:, 0], more, vectors.gather(2, kept[:, None].expand(-1, d, -1))


class CompactComposition(Composition):
    """`Composition` whose covariance has its directions in int8.

    Rounding one that is narrow, which weighs much, does not show in the others.
    """

    def __init__(self, composition: Composition):
        super().__init__(len(composition.units) // 2)
        self.load_state_dict(composition.state_dict())
        values, vectors = eigen(composition.inverse())
        self.directions = Columns(vectors.float())
        self.register_buffer("weight", values.float() * self.directions.scale.square())

    def weigh(self, off: torch.Tensor) -> torch.Tensor:
        directions = self.directions()
        return off @ directions * self.weight @ directions.mT


def compact(detector: Detector, size: Size, precision: str) -> None:
    """Make the statistics small of a detector that is to score alone images of `size`, in place.

    `precision` is that of the networks: beside fp32 they stay as they are. Deterministic; it takes
    seconds at 256 x 256.
    """
    if precision not in DIRECTIONS:
        return
    for name, statistic in detector.statistics.items():
        if name == "position":
            ignored = places_of(detector.view.ignored, tuple(map(output_side, size)))
            each = max(1, min(MOST_EACH, DIRECTIONS[precision] // ignored.numel()))
            small = CompactPosition(statistic, each, ignored)
        else:
            small = CompactComposition(statistic)
        detector.statistics[name] = small.requires_grad_(False)

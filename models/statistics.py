"""Two statistics of the teacher's features: what a place looks like, what an image is made of."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from models.moments import Moments, packed, unpacked
from models.pdn import TEACHER_CHANNELS

DIRECTIONS = 64  # in which a place has a covariance of its own; more find hardly more
RIDGE = 0.01  # added to variances of channels that were brought to 1. Source: PaDiM, section 3.2
EVERY = 5  # of the places serve the covariance of all; most maps' sides are no multiples of it
LEAST_DEVIATION = 1e-6  # of an image's channel, by which something is divided
LEAST_UNIT = 1e-3  # of good images' means, or standard deviations, in units of features
LEAST_VARIANCE = 1e-6  # in units of that spread, where good images are all the same

BLOCK = 128  # places whose covariances are inverted at once: they stay in a processor's cache
MOST_THREADS = 4  # at once: each has a team of OpenMP of its own
FACTORS = ("projection", "projected", "whitening")  # of a Position, as its `factors` returns them

# A projection (C, d), the means of places by it, (places, d), and one matrix for each place,
# (places, d, d), or None.
Factors = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


class Position(nn.Module):
    """How far each place's feature is from what good images have there.

    The squared Mahalanobis distance by either of two covariances: the place's own, in directions in
    which good images vary most, shrunk towards that of all places; or, where places do not matter
    (a texture, a part that lies at any angle), that of all places in all channels. Source: PaDiM
    (Defard et al., ICPR 2021), section 3.
    """

    def __init__(self, places: int, channels: int = TEACHER_CHANNELS, directions: int = DIRECTIONS):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))  # good images
        self.register_buffer("own", torch.tensor(True))  # each place has its own covariance
        self.register_buffer("mean", torch.zeros(places, channels))
        self.register_buffer("scatter", torch.zeros(channels, channels))  # of every EVERYth place
        self.register_buffer("basis", torch.zeros(channels, directions))
        triangle = directions * (directions + 1) // 2
        self.register_buffer("products", torch.zeros(places, triangle))  # as in `Moments`, packed
        self.register_buffer("cubes", torch.zeros(places, directions))
        self.register_buffer("fourths", torch.zeros(places))
        for name in FACTORS:
            self.register_buffer(name, None, persistent=False)
        self.register_load_state_dict_post_hook(lambda loaded, _: loaded.forget())

    def store(self, moments: Moments) -> None:
        """Store the moments of features less `mean`, in the directions of `basis`."""
        self.forget()
        self.count.fill_(moments.count)
        self.products.copy_(packed(moments.products))
        self.cubes.copy_(moments.cubes)
        self.fourths.copy_(moments.fourths)

    def moments(self) -> Moments:
        """Return the sums in `directions`, about the mean of each place."""
        products = unpacked(self.products, self.cubes.shape[-1])
        mean = torch.zeros_like(self.cubes)
        return Moments(int(self.count), mean, products, self.cubes, self.fourths)

    def merge(self, other: "Position") -> None:
        """Take in the good images of another fit with the same basis, without the images."""
        ours, theirs = self.moments(), other.moments()
        shift = other.mean - self.mean
        theirs.mean = shift @ self.basis
        moments = ours.merged(theirs)
        weight = ours.count * theirs.count / moments.count
        some = shift[::EVERY]
        self.scatter += other.scatter + weight * some.mT @ some
        self.mean += theirs.count / moments.count * shift
        self.store(moments)
        self.projection = self.projected = self.whitening = None  # they were of fewer images

    def like(self, features: torch.Tensor) -> "Position":
        """Return a fit to other good images, features (N, C, h, w), with the same basis."""
        flat = features.flatten(2).mT  # (N, places, C)
        fit = Position(*self.mean.shape, self.basis.shape[1]).to(features.device)
        fit.own.copy_(self.own)
        fit.basis.copy_(self.basis)
        fit.mean.copy_(flat.mean(0))
        off = flat - fit.mean
        some = off[:, ::EVERY].flatten(0, 1)
        fit.scatter.copy_(some.mT @ some)
        moments = Moments.none(fit.mean @ fit.basis)
        moments.add(off @ fit.basis)
        fit.store(moments)
        return fit

    def impute(self, features: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return features (N, C, h, w) with good images' mean ones at `places`, bool (h, w)."""
        return torch.where(places, self.mean.mT.view(1, -1, *places.shape), features)

    def factors(self, own: bool) -> Factors:
        """Return what turns a feature less its place's mean into one of covariance 1.

        By each place's `own` covariance or that of all places.
        """
        if own:
            covariance = self.moments().shrunk_to_pooled()
            # LAPACK takes matrix after matrix; a GPU's library wants no threads, and needs none
            workers = min(torch.get_num_threads(), MOST_THREADS)
            workers = workers if covariance.device.type == "cpu" else 1
            with ThreadPoolExecutor(workers) as pool:
                whitening = torch.cat([*pool.map(inverse_root, covariance.split(BLOCK))])
            return self.basis, self.mean @ self.basis, whitening
        varying = int((self.fourths[::EVERY] > 0).sum())  # an ignored place is always the same
        samples = max(int(self.count) - 1, 1) * max(varying, 1)
        values, vectors = eigen(self.scatter / samples)
        projection = (vectors / (values + RIDGE).sqrt()).to(self.mean)
        return projection, self.mean @ projection, None

    def prepare(self) -> None:
        """Compute the factors once, to score with."""
        if self.projection is None:
            self.projection, self.projected, self.whitening = self.factors(bool(self.own))

    def forget(self) -> None:
        """Forget the factors: they are of another fit."""
        self.projection = self.projected = self.whitening = None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the squared distance of each place, (N, 1, h, w), of features (N, C, h, w)."""
        if self.projection is None:
            return distances(features, *self.factors(bool(self.own)))
        return distances(features, self.projection, self.projected, self.whitening)


def inverse_root(covariance: torch.Tensor) -> torch.Tensor:
    """Return W (places, d, d) that turns rows x of a covariance and the ridge into x W of 1."""
    eye = torch.eye(covariance.shape[-1], device=covariance.device)
    root, failed = torch.linalg.cholesky_ex(covariance + RIDGE * eye)
    if failed.any():  # of features far larger than any teacher's that was seen
        wide = covariance.cpu().double() + RIDGE * eye.cpu().double()
        root = torch.linalg.cholesky(wide).to(covariance)
    return torch.linalg.solve_triangular(root, eye.expand_as(root), upper=False).mT


def distances(
    features: torch.Tensor,
    projection: torch.Tensor,
    projected: torch.Tensor,
    whitening: torch.Tensor | None,
) -> torch.Tensor:
    """Return the squared distance of each place, (N, 1, h, w), by `Position.factors`."""
    n, _, h, w = features.shape
    off = features.flatten(2).mT @ projection - projected  # (N, places, d)
    if whitening is not None:
        off = (off.transpose(0, 1) @ whitening).transpose(0, 1)
    return off.square().sum(-1).view(n, 1, h, w)


class Composition(nn.Module):
    """How far an image's own mean and standard deviation of each channel are from good images'.

    The squared Mahalanobis distance by Ledoit and Wolf's covariance, as a map that sums to it.
    Source: PUAD (Sugawara and Imamura, ICIP 2024), section 3, which takes the student's means.
    """

    def __init__(self, channels: int = TEACHER_CHANNELS):
        super().__init__()
        d = 2 * channels
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("units", torch.ones(d))  # that the others are in: good images' spread
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("products", torch.zeros(d * (d + 1) // 2))
        self.register_buffer("cubes", torch.zeros(d))
        self.register_buffer("fourths", torch.zeros(()))
        self.register_buffer("precision", None, persistent=False)
        self.register_load_state_dict_post_hook(lambda loaded, _: loaded.forget())

    def fit(self, found: torch.Tensor) -> None:
        """Store the units and the moments of good images' `summaries`, (N, 2 C)."""
        units = found.std(0, correction=0).clamp(min=LEAST_UNIT)
        self.units.copy_(units)
        self.store(Moments.of(found / units))

    def store(self, moments: Moments) -> None:
        """Store the moments of good images' `summaries` in `units`."""
        self.forget()
        self.count.fill_(moments.count)
        self.mean.copy_(moments.mean)
        self.products.copy_(packed(moments.products))
        self.cubes.copy_(moments.cubes)
        self.fourths.copy_(moments.fourths)

    def moments(self) -> Moments:
        """Return the sums that `store` was given."""
        products = unpacked(self.products, len(self.mean))
        return Moments(int(self.count), self.mean, products, self.cubes, self.fourths)

    def merge(self, other: "Composition") -> None:
        """Take in the good images of another fit in the same units, without the images."""
        self.store(self.moments().merged(other.moments()))
        self.precision = None  # it was of fewer images

    def like(self, features: torch.Tensor) -> "Composition":
        """Return a fit to other good images, features (N, C, h, w), in the same units."""
        fit = Composition(len(self.units) // 2).to(features.device)
        fit.units.copy_(self.units)
        fit.store(Moments.of(summaries(features) / self.units))
        return fit

    def inverse(self) -> torch.Tensor:
        """Return the inverse of the covariance, (2 C, 2 C) float32."""
        covariance = self.moments().shrunk().cpu().double()
        _, below = torch.linalg.cholesky_ex(
            covariance - LEAST_VARIANCE * torch.eye(len(covariance))
        )
        if not below:  # no variance is less: then there is a way five times as quick
            return torch.cholesky_inverse(torch.linalg.cholesky(covariance)).to(self.mean)
        values, vectors = eigen(covariance)
        return ((vectors / values.clamp(min=LEAST_VARIANCE)) @ vectors.mT).to(self.mean)

    def prepare(self) -> None:
        """Compute the inverse once, to score with. Raises ValueError for impossible units."""
        if not (self.units > 0).all():
            raise ValueError("its units are not above 0")
        if self.precision is None:
            self.precision = self.inverse()

    def forget(self) -> None:
        """Forget the inverse: it is of another fit."""
        self.precision = None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return what each place adds to the squared distance, (N, 1, h, w); it may be negative.

        `features` is (N, C, h, w). Exact, since an image's mean is the mean over its places of f,
        and its standard deviation that of (f - mean)² / std.
        """
        precision = self.inverse() if self.precision is None else self.precision
        summary = summaries(features)
        mean, std = summary.chunk(2, 1)  # (N, C)
        pull = (summary / self.units - self.mean) @ precision
        by_mean, by_std = (pull / self.units).chunk(2, 1)
        off = features.flatten(2).mT - mean[:, None]  # (N, places, C); their squares have mean std²
        by_place = off.square() @ (by_std / std)[..., None] + off @ by_mean[..., None]
        distance = ((summary / self.units - self.mean) * pull).sum(1)
        added = by_place + (distance - (by_std * std).sum(1))[:, None, None]
        return added.mT.reshape(-1, 1, *features.shape[2:]) / off.shape[1]


def summaries(features: torch.Tensor) -> torch.Tensor:
    """Return each channel's mean and standard deviation over an image's places.

    (N, C, h, w) -> (N, 2 C).
    """
    flat = features.flatten(2).mT  # as it lies in memory: then these are fast
    mean = flat.mean(1)
    variance = torch.linalg.vector_norm(flat, dim=1).square() / flat.shape[1] - mean.square()
    return torch.cat([mean, variance.clamp(min=LEAST_DEVIATION**2).sqrt()], 1)


def eigen(symmetric: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues, rising and at least 0, and eigenvectors, in float64 on the CPU.

    There it is deterministic, and an Apple GPU has no float64.
    """
    values, vectors = torch.linalg.eigh(symmetric.cpu().double())
    return values.clamp(min=0), vectors


def directions_of(scatter: torch.Tensor, count: int = DIRECTIONS) -> torch.Tensor:
    """Return the directions in which a scatter (C, C) is largest: orthonormal, (C, count)."""
    _, vectors = eigen(scatter)
    return vectors[:, -count:].to(scatter)

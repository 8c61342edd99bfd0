"""Fit the statistics several times, each time without one fold of the good images.

What a fit has seen it finds too usual by far: a good image is rated by the fit that has not.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from models.moments import Moments
from models.statistics import (
    EVERY,
    Composition,
    Factors,
    Position,
    directions_of,
    distances,
    summaries,
)
from scoring.good_images import GoodImages
from utils.devices import in_float64

FOLDS = 5
OWN, SHARED = "own", "shared"  # a place's covariance is its own, or that of all places


@dataclass
class Fit:
    """The statistics of the good images `seen`, bool (N,)."""

    seen: torch.Tensor
    position: Position
    composition: Composition
    ways: dict[str, Factors]  # OWN and SHARED

    def maps(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return raw maps of features (N, C, h, w): position both ways, composition."""
        maps = {way: distances(features, *self.ways[way]) for way in self.ways}
        return maps | {"composition": self.composition(features)}


@dataclass
class Sums:
    """What one pass adds up for each fold, in float64 on the CPU; the summaries of all images."""

    totals: torch.Tensor  # (folds, places, C)
    products: torch.Tensor  # (folds, C, C), over every EVERYth place
    summaries: torch.Tensor  # (N, 2 C)


def fold_numbers(count: int) -> torch.Tensor:
    """Return the fold (N,) of each of `count` good images, drawn alike for equal counts."""
    order = np.random.default_rng(0).permutation(count)
    return torch.from_numpy(order % min(FOLDS, count))


def fit_folds(good: GoodImages, numbers: torch.Tensor) -> list[Fit]:
    """Return a fit without each fold of `fold_numbers`, then the one to all images.

    A single image is seen by both: it has no other.
    """
    everything = torch.ones_like(numbers, dtype=torch.bool)
    seen = [numbers != fold for fold in range(int(numbers.max()) + 1)]
    seen = [mask if mask.any() else everything for mask in seen]
    sums = sum_up(good, numbers)
    fits = [begin(sums, numbers, mask, good.compute.device) for mask in (*seen, everything)]
    moments = [Moments.none(fit.position.mean @ fit.position.basis) for fit in fits]
    bases = torch.cat([fit.position.basis for fit in fits], 1)  # one product is faster than six
    for first, features in good.chunks("covariances"):
        turned = (features.flatten(2).mT @ bases).chunk(len(fits), -1)  # each (n, places, d)
        for fit, its, own in zip(fits, moments, turned, strict=True):
            rows = fit.seen[first : first + len(own)].to(own.device)
            its.add(own[rows] - its.mean)
    for fit in fits:
        fit.position.store(moments.pop(0))  # and free what is large
        fit.ways = {way: fit.position.factors(way == OWN) for way in (OWN, SHARED)}
        fit.composition.prepare()
    return fits


def begin(sums: Sums, numbers: torch.Tensor, seen: torch.Tensor, device: torch.device) -> Fit:
    """Return a fit to the images `seen`, but for the covariances of places."""
    _, places, channels = sums.totals.shape
    folds, count = numbers[seen].unique(), int(seen.sum())
    mean = sums.totals[folds].sum(0) / count
    some = mean[::EVERY]
    scatter = sums.products[folds].sum(0) - count * some.mT @ some
    position, composition = Position(places, channels), Composition(channels)
    position.mean.copy_(mean)
    position.scatter.copy_(scatter)
    position.basis.copy_(directions_of(scatter))
    composition.fit(sums.summaries[seen])
    return Fit(seen, position.to(device), composition.to(device), {})


def sum_up(good: GoodImages, numbers: torch.Tensor) -> Sums:
    """Add up the features of each fold, in one pass."""
    folds, found, totals, products = int(numbers.max()) + 1, [], None, None
    for first, features in good.chunks("means"):
        found.append(in_float64(summaries(features)).cpu())
        flat = features.flatten(2).mT
        if totals is None:
            _, places, channels = flat.shape
            totals = torch.zeros(folds, places, channels, dtype=torch.float64)
            products = torch.zeros(folds, channels, channels, dtype=torch.float64)
        of_chunk = numbers[first : first + len(flat)]
        for fold in of_chunk.unique().tolist():
            own = flat[(of_chunk == fold).to(flat.device)]
            totals[fold] += own.sum(0).cpu()
            some = own[:, ::EVERY].flatten(0, 1)
            products[fold] += (some.mT @ some).cpu()
    sums = Sums(totals, products, torch.cat(found))
    if not sums.summaries.isfinite().all():
        text = "the teacher's features are not finite numbers: --precision fp32, or other --weights"
        raise FloatingPointError(text)
    return sums


def held_out_maps(
    fits: list[Fit], numbers: torch.Tensor, chunks: Iterable[tuple[int, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Return `Fit.maps` of every image by the fit without its fold `numbers`, on the CPU."""
    maps: dict[str, torch.Tensor] = {}
    for first, features in chunks:
        of_chunk = numbers[first : first + len(features)]
        for fold in of_chunk.unique().tolist():
            rows = of_chunk == fold
            for name, found in fits[fold].maps(features[rows.to(features.device)]).items():
                if name not in maps:
                    maps[name] = torch.empty(len(numbers), *found.shape[1:])
                maps[name][first : first + len(of_chunk)][rows] = found.cpu()
    return maps

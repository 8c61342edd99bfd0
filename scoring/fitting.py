"""Fit a detector's statistics to good images; learn what they may count for from those alone."""

import warnings
from dataclasses import dataclass

import torch

from data.defects import Defects, make_defects
from models.detector import Detector
from models.fusion import raw_score
from scoring.folds import OWN, SHARED, fit_folds, fold_numbers, held_out_maps
from scoring.good_images import CHUNK, GoodImages, described
from scoring.guard import map_error, score_error

FEW = 10  # good images: a fit without a fold of fewer is too unlike the fit to all


@dataclass
class HeldOut:
    """What experts find in good images that they have not seen: raw maps (N, 1, h, w), errors."""

    maps: dict[str, torch.Tensor]  # on the CPU
    errors: dict[str, tuple[float, float]]  # on made defects, of scores and of maps

    def last(self, number: int) -> dict[str, torch.Tensor]:
        """Return the maps of the last images, which are the validation images."""
        return {name: maps[len(maps) - number :] for name, maps in self.maps.items()}


@torch.no_grad()
def fit_statistics(detector: Detector, good: GoodImages) -> HeldOut:
    """Set the detector's statistics; return what they find in the same images, held out.

    Made defects choose which covariance a place's distance goes by: nothing but good images is
    looked at.
    """
    images = good.images
    if len(images) < FEW:
        text = f"{len(images)} good images are few: below {FEW} verdicts of statistics say little"
        warnings.warn(text, stacklevel=2)
    numbers = fold_numbers(len(images))
    fits = fit_folds(good, numbers)
    maps = detector.hidden(held_out_maps(fits, numbers, good.chunks("held-out maps")))
    defects = make_defects(images, detector.view.ignored)
    starts = range(0, len(defects.images), CHUNK)
    parts = (defects.images[start : start + CHUNK] for start in starts)
    chunks = (
        (start, detector.imputed(described(detector, part, good.compute)))
        for start, part in zip(starts, parts, strict=True)
    )
    made = detector.hidden(held_out_maps(fits, numbers[defects.sources], chunks))
    errors = {
        name: errors_of(name, maps[name], made.get(name), defects, detector.view.unseen)
        for name in maps
    }
    way = min((OWN, SHARED), key=lambda name: errors[name][0])
    fits[-1].position.own.fill_(way == OWN)
    found = {"position": way, "composition": "composition"}
    for name, statistic in detector.statistics.items():
        statistic.load_state_dict(getattr(fits[-1], name).state_dict())
    return HeldOut(
        {name: maps[found[name]] for name in detector.statistics},
        {name: errors[found[name]] for name in detector.statistics},
    )


def errors_of(
    name: str,
    good: torch.Tensor,
    made: torch.Tensor | None,
    defects: Defects,
    ignored: torch.Tensor,
) -> tuple[float, float]:
    """Return an expert's errors on made defects, of scores and of maps, from raw maps.

    `good` are held-out good images' (N, 1, h, w), `made` those of the `defects`, None without any,
    `ignored` the detector's.
    """
    if made is None:
        return 0.5, 0.5
    error = score_error(raw_score(name, good), raw_score(name, made), defects.kinds)
    return error, map_error(made, defects, len(good), ignored)

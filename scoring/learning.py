"""Take more good images into a trained detector: no training, and no image that it has seen."""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import nn

from data.images import Size
from models.detector import Detector
from models.experts import COMBINED
from scoring.calibration import raw_maps, scores_of_maps, set_map_threshold
from scoring.folds import fold_numbers
from scoring.good_images import CHUNK, described
from scoring.scorer import Named, Scorer
from scoring.thresholds import keep_good_scores
from utils.devices import Compute
from utils.progress import progress

Statistics = dict[str, nn.Module]  # name -> its fit


class Learnt(NamedTuple):
    """The combined scores (N,) of new good images."""

    before: torch.Tensor  # by the detector as it was
    held_out: torch.Tensor  # by what it has become, less the fold that each image is in


@torch.no_grad()
def learn(
    detector: Detector, images: torch.Tensor, sizes: list[Size], rate: float, compute: Compute
) -> Learnt:
    """Take good images into a detector: its statistics, its good scores, its thresholds.

    `images` are uint8 (N, 3, H, W), `sizes` their files', `rate` is of false alarms. Statistics
    become what a fit to all images would be, old and new, with the old basis and units. What a fit
    has seen it finds too usual: each new image is scored by the old images and the other folds of
    new ones. The old images' scores are of fits to fewer, so a little high, and stay: they err
    towards fewer false alarms. So do scales, errors and quantiles of maps, which are the units of
    those scores: each row rises by itself, and what is fused could not be computed anew.
    The old maps are not kept: the map's threshold becomes the mean of the old and the new images',
    by their numbers. Networks stay: they have not seen the new images either.
    Raises FloatingPointError, with nothing changed, for scores that are no finite numbers.
    """
    raw = raw_maps(Scorer(detector, compute), images, "scoring")
    before = rated(detector, raw, sizes, compute)
    numbers = fold_numbers(len(images))
    folds = [images[numbers == fold] for fold in range(int(numbers.max()) + 1)]
    bar = progress("sums", len(folds), "fold", folds)
    fits = [fit_like(detector, of_fold, compute) for of_fold in bar]
    held_out = {name: maps.clone() for name, maps in raw.items()}
    seen = {**detector.statistics}  # the old images, then one fold more at a time
    for fold, of_fold in enumerate(progress("held-out maps", len(folds), "fold", folds)):
        others = merged(seen, fits[fold + 1 :])
        for name, maps in maps_of(detector, others, of_fold, compute).items():
            held_out[name][numbers == fold] = maps
        seen = merged(seen, [fits[fold]])
    after = rated(detector, held_out, sizes, compute)
    set_mean_map_threshold(detector, held_out, compute)
    rows = zip(detector.rated, detector.good_scores, strict=True)
    keep_good_scores(detector, {n: torch.cat([row, after[n].to(row)]) for n, row in rows}, rate)
    detector.statistics.update(seen)
    return Learnt(before[COMBINED], after[COMBINED])


def rated(detector: Detector, raw: Named, sizes: list[Size], compute: Compute) -> Named:
    """Return the scores (N,) of all that is rated, on the CPU, from raw maps (N, 1, h, w).

    Raises FloatingPointError for those that are no finite numbers.
    """
    if not detector.statistics:
        scores = scores_of_maps(detector, raw, sizes, compute)
    else:
        scores = detector.scores({name: maps.to(compute.device) for name, maps in raw.items()})
    if not all(of_images.isfinite().all() for of_images in scores.values()):
        raise FloatingPointError("scores of the images are not finite numbers: --precision fp32")
    return {name: of_images.cpu() for name, of_images in scores.items()}


def fit_like(detector: Detector, images: torch.Tensor, compute: Compute) -> Statistics:
    """Return the statistics of images alone, uint8 (N, 3, H, W), to be merged with the detector's.

    One chunk's are merged with the next one's, so that features are needed once.
    """
    fits: Statistics = {}
    for chunk in images.split(CHUNK) if detector.statistics else ():
        features = detector.imputed(described(detector, chunk, compute))
        for name, statistic in detector.statistics.items():
            fit = statistic.like(features)
            if name in fits:
                fits[name].merge(fit)
            else:
                fits[name] = fit
    return fits


def merged(statistics: Statistics, fits: list[Statistics]) -> Statistics:
    """Return the statistics of all images together."""
    together = {name: deepcopy(statistic) for name, statistic in statistics.items()}
    for name, statistic in together.items():
        for fit in fits:
            statistic.merge(fit[name])
    return together


def maps_of(
    detector: Detector, statistics: Statistics, images: torch.Tensor, compute: Compute
) -> Named:
    """Return raw maps (N, 1, h, w), on the CPU, of images by statistics that are not its own."""
    for statistic in statistics.values():
        statistic.prepare()
    found: dict[str, list[torch.Tensor]] = {name: [] for name in statistics}
    for chunk in images.split(CHUNK) if statistics else ():
        features = detector.imputed(described(detector, chunk, compute))
        for name, statistic in statistics.items():
            found[name].append(statistic(features).cpu())
    return detector.hidden({name: torch.cat(maps) for name, maps in found.items()})


def set_mean_map_threshold(detector: Detector, raw: Named, compute: Compute) -> None:
    """Set the map's threshold to the mean of the one it has and that of `raw`, by images."""
    old, former = detector.good_scores.shape[1], detector.map_threshold.clone()
    new = len(raw[detector.experts[0]])
    set_map_threshold(detector, raw, compute)
    detector.map_threshold.lerp_(former, old / (old + new))

"""Calibrate a detector on good images: teacher statistics, map quantiles, thresholds."""

from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch

from data.defects import make_defects
from data.images import Size, image_batches
from models.detector import Detector
from models.experts import COMBINED, EXPERTS, NETWORKS, chosen
from models.fusion import LEAST_SPREAD, LEAST_SPREAD_AT_ALL, MAP_PADDING, raw_score, score_maps
from scoring.fitting import HeldOut, errors_of
from scoring.scorer import Scorer
from scoring.thresholds import keep_good_scores
from utils.devices import Compute, in_float64
from utils.progress import progress

# The least standard deviation of a channel. Good images without contrast have none, and noise would
# become features; on the least contrasted product that was measured the least is 0.045.
LEAST_STD = 1e-3
TAIL = 0.99  # quantile of good images' scores that tells their spread
# Quantile of held-out good maps' places that is the map's threshold. Their maxima would leave most
# of a defect out, and all of one that is weaker than the oddest spot of the oddest good image.
PLACES = 0.999
SURE = 0.975  # quantile at which few images are less sure than many


@dataclass
class ChannelMoments:
    """Running mean and variance of features for each channel: one pass, any number of images.

    Sums are float64, where a sum of squares loses nothing that float32 statistics could show.
    """

    count: int = 0
    total: torch.Tensor | float = 0.0
    squares: torch.Tensor | float = 0.0

    def add(self, features: torch.Tensor) -> None:
        """Take in features (N, C, h, w)."""
        wide = in_float64(features)
        self.count += wide[:, 0].numel()
        self.total = self.total + wide.sum((0, 2, 3))
        self.squares = self.squares + wide.square().sum((0, 2, 3))

    def mean_std(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the channels' means and standard deviations, float32 (1, C, 1, 1)."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0)
        shape = (1, -1, 1, 1)
        return mean.float().view(shape), variance.sqrt().float().clamp(min=LEAST_STD).view(shape)


@torch.no_grad()
def calibrate(
    detector: Detector,
    paths: list[Path],
    size: Size,
    workers: int,
    compute: Compute,
    held_out: HeldOut | None = None,
) -> torch.Tensor:
    """Set what brings the experts to one scale, then the thresholds, from good images.

    The networks go by the validation images `paths`, the statistics by `held_out`. The scores of
    these held-out images are kept; thresholds are those of the recipe's false-alarm rate. Returns
    their combined scores (n,), in the order of the images.
    Source of the quantiles: EfficientAD, section 3.4.
    """
    raw: dict[str, torch.Tensor] = {}
    images, sizes = decode_images(paths, size, workers, int(detector.bits))
    networks = chosen(NETWORKS, detector.experts)
    if networks:
        scorer = Scorer(detector.eval(), compute)
        found = raw_maps(scorer, images, "calibrating")
        raw = {name: found[name] for name in networks}
    for name, maps in (raw | (held_out.maps if held_out else {})).items():
        places = detector.view.looked_at(maps).numpy()
        quantiles = np.quantile(places, detector.recipe.map_quantiles)
        getattr(detector, f"{name}_quantiles").copy_(torch.from_numpy(quantiles).float())
    if held_out is None:
        set_map_threshold(detector, raw, compute)
        good = scores_of_maps(detector, raw, sizes, compute)
        keep_good_scores(detector, good, detector.recipe.false_alarm_rate)
        return good[COMBINED]
    errors = dict(held_out.errors)
    if networks:
        defects = make_defects(detector.view.filled(images), detector.view.ignored)
        made = raw_maps(scorer, defects.images, "made defects")
        for name in networks:
            errors[name] = errors_of(name, raw[name], made.get(name), defects, detector.view.unseen)
    for name, maps in (raw | held_out.maps).items():
        row = EXPERTS.index(name)
        detector.scales[row] = torch.tensor(scale_of(raw_score(name, maps).double().numpy()))
        detector.errors[row] = torch.tensor(errors[name])
    both = raw | held_out.last(len(images)) if networks else held_out.maps
    set_map_threshold(detector, both, compute)
    on_device = {name: both[name].to(compute.device) for name in detector.experts}
    good = detector.scores(on_device)
    keep_good_scores(detector, good, detector.recipe.false_alarm_rate)
    return good[COMBINED]


def decode_images(
    paths: list[Path],
    size: Size,
    workers: int,
    bits: int | None,
    unreadable: dict[Path, str] | None = None,
) -> tuple[torch.Tensor, list[Size]]:
    """Return all images, uint8 (N, 3, H, W), and their files' sizes; (0, 3, H, W) without any.

    `unreadable` as in `image_batches`.
    """
    batches, sizes = [torch.empty(0, 3, *size, dtype=torch.uint8)], []
    for batch, originals in image_batches(paths, size, workers, 1, bits, unreadable):
        batches.append(batch)
        sizes += originals
    return torch.cat(batches), sizes


def raw_maps(scorer: Scorer, images: torch.Tensor, what: str) -> dict[str, torch.Tensor]:
    """Return each expert's raw maps of images, uint8 (N, 3, H, W), on the CPU; {} without any."""
    batches = images.split(scorer.compute.scoring_batch_size) if len(images) else ()
    found = [
        {name: maps.cpu() for name, maps in scorer.look(batch).raw.items()}
        for batch in progress(what, len(batches), "batch", batches)
    ]
    return {name: torch.cat([maps[name] for maps in found]) for name in (found or [{}])[0]}


def scale_of(scores: np.ndarray) -> tuple[float, float]:
    """Return the median of held-out good images' scores (n,), and one's spread about it.

    The spread is taken at the upper tail, where false alarms come from, as of a normal
    distribution; of few images it is as much wider as Student's prediction interval is.
    """
    from scipy.special import stdtrit  # slow to load, and a wrong option is told at once

    count, median, normal = len(scores), float(np.median(scores)), NormalDist().inv_cdf
    spread = (np.quantile(scores, TAIL) - median) / normal(TAIL)
    wider = stdtrit(max(count - 1, 1), SURE) / normal(SURE) * np.sqrt(1 + 1 / count)
    least = max(LEAST_SPREAD * abs(median), LEAST_SPREAD_AT_ALL)
    return median, max(float(spread * wider), least)


def scores_of_maps(
    detector: Detector, raw: dict[str, torch.Tensor], sizes: list[Size], compute: Compute
) -> dict[str, torch.Tensor]:
    """Return the scores (n,) where one is its map's maximum, at the size of the image's file."""
    scores = []  # of each image, (maps,)
    for index, original in enumerate(sizes):
        one = {name: maps[index : index + 1].to(compute.device) for name, maps in raw.items()}
        maps = detector.calibrated(one)
        scores.append(torch.cat([score_maps(shown, original)[0] for shown in maps.values()]))
    return dict(zip(maps, torch.stack(scores).T, strict=True))


def set_map_threshold(detector: Detector, raw: dict[str, torch.Tensor], compute: Compute) -> None:
    """Set the threshold of the combined map, from places that the networks describe."""
    inside = slice(MAP_PADDING, -MAP_PADDING)
    on_device = {name: raw[name].to(compute.device) for name in detector.experts}
    places = detector.view.looked_at(detector.calibrated(on_device)[COMBINED][..., inside, inside])
    detector.map_threshold.fill_(float(np.quantile(places.cpu().numpy(), PLACES)))

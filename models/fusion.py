"""How an expert's score is made of its map, and how one result is made of all experts'."""

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from models.experts import EXPERTS
from models.gfencoder import Size

LOW_VALUE, HIGH_VALUE = 0.0, 0.1  # what the two calibrated quantiles of a map become
UNCALIBRATED = (LOW_VALUE, HIGH_VALUE)  # quantiles that leave a map as it is
MAP_PADDING = 4  # outputs at each border that the unpadded PDN does not describe
# The least spread of two quantiles, of their level and at all: good images without any contrast
# have none, and what differs from them would be infinitely strange. Others have 100 times as much.
LEAST_SPREAD, LEAST_SPREAD_AT_ALL = 1e-3, 1e-6
STRANGEST = 0.005  # of a map's places: a score is their mean; steadier than the maximum
# Errors on made defects below which it is defects that nobody thought of that decide.
LEAST_ERROR = 0.02
LEAST_SKILL = 1e-6  # of an expert no better than a coin, so that there is a mean even of those
# In a combined score: that one expert is calmer still does not excuse another's alarm.
CALMEST = -3.0

Raw = Mapping[str, torch.Tensor]  # expert -> its map before calibration, (N, 1, h, w) float32


def raw_score(name: str, raw: torch.Tensor) -> torch.Tensor:
    """Return an expert's score of images (N,) from its raw maps (N, 1, h, w), squared distances.

    The root of the mean of the strangest places, but of the composition's the root of the sum,
    which is the distance itself.
    """
    places = raw.flatten(1)
    if name == "composition":
        return places.sum(1).clamp(min=0).sqrt()
    count = max(1, round(STRANGEST * places.shape[1]))
    return places.topk(count, 1, sorted=False).values.mean(1).sqrt()


def standardised(score: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return scores (N,) in units of good images, `scale` being their median and spread."""
    return (score - scale[0]) / scale[1]


def rows(buffer: torch.Tensor, name: str) -> torch.Tensor:
    """Return an expert's row of a buffer that has one for each of EXPERTS."""
    return buffer[EXPERTS.index(name)]


def weighted(of_experts: Raw, errors: torch.Tensor) -> torch.Tensor:
    """Return the mean of what experts give, weighted by their errors on made defects, (EXPERTS,).

    One that errs in every second case is a coin and counts nothing, one that errs half as often as
    another more than twice as much: none can drown what another one sees.
    """
    parts = {}
    for name in of_experts:
        error = rows(errors, name)
        parts[name] = (1 - 2 * error).clamp(min=LEAST_SKILL) / (error + LEAST_ERROR)
    return sum(parts[n] * given for n, given in of_experts.items()) / sum(parts.values())


def combine(maps: Raw, errors: torch.Tensor | None) -> torch.Tensor:
    """Return the combined map of calibrated maps, by `errors` (EXPERTS, 2) of detectors with them.

    Of networks alone it is the mean, as published. The composition's map only explains, where there
    is another.
    """
    if errors is None:
        return sum(maps.values()) / len(maps)
    places = {name: shown for name, shown in maps.items() if name != "composition"}
    return weighted(places or maps, errors[:, 1])


def score_maps(maps: torch.Tensor, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scores (N,) and the maps of `size`, (N, height, width), of maps (N, 1, h, w).

    A map is resized bilinearly; the score is its maximum.
    """
    resized = F.interpolate(maps, size, mode="bilinear", align_corners=False)[:, 0]
    return resized.amax((1, 2)), resized


def whole(raw: torch.Tensor) -> torch.Tensor:
    """Give distances (N, 1, h, w) the frame that they lack: (N, 1, h + 8, w + 8)."""
    return F.pad(raw, (MAP_PADDING,) * 4)


def calibrate_map(raw: torch.Tensor, quantiles: torch.Tensor) -> torch.Tensor:
    """Shift and scale a map so that its two calibrated quantiles become 0 and 0.1."""
    low, high = quantiles
    spread = torch.maximum(high - low, LEAST_SPREAD * high.abs()).clamp(min=LEAST_SPREAD_AT_ALL)
    return LOW_VALUE + (HIGH_VALUE - LOW_VALUE) * (raw - low) / spread

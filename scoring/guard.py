"""How well an expert tells made defects from untouched good images: what it may count for."""

import torch
from torch.nn import functional as F

from data.defects import LOGICAL, STRUCTURAL, Defects
from models.fusion import MAP_PADDING
from models.pdn import places_of

COVERED = 0.3  # of a place's pixels must be changed for it to count as defective


def score_error(good: torch.Tensor, made: torch.Tensor, kinds: list[str]) -> float:
    """Return how often an expert rates a good image above one with a defect, kinds alike.

    `good` are the scores (n,) of held-out good images, `made` (m,) of images with a defect of
    `kinds`. Half an error is added, so that few good images promise little.
    """
    areas = []
    for group in (STRUCTURAL, LOGICAL):
        of_group = torch.tensor([kind == group for kind in kinds], dtype=torch.bool)
        if of_group.any():
            areas.append(area(good, made[of_group]))
    return smoothed(areas, len(good))


def map_error(maps: torch.Tensor, defects: Defects, good: int, ignored: torch.Tensor) -> float:
    """Return how often an expert's map is higher at a sound place than at a defective one.

    `maps` are the raw ones (m, 1, h, w) of the defects' images, `good` the number of good images
    that the expert was calibrated on. Places that are `ignored`, see `places_of`, are neither.
    """
    _, _, h, w = maps.shape
    size = (h + 2 * MAP_PADDING, w + 2 * MAP_PADDING)
    changed = F.interpolate(defects.masks[:, None].float(), size, mode="area")
    described = slice(MAP_PADDING, -MAP_PADDING)
    looked_at = ~places_of(ignored, (h, w)).to(maps.device)
    inside = (changed[..., described, described] > COVERED) & looked_at
    seen = inside.flatten(1).any(1)
    defective, sound = maps[inside], maps[seen][(~inside & looked_at)[seen]]
    return smoothed([area(sound, defective)] if len(defective) and len(sound) else [], good)


def area(low: torch.Tensor, high: torch.Tensor) -> float:
    """Return the AUROC of telling `high` from `low`."""
    from sklearn.metrics import roc_auc_score  # slow to load, and a wrong option is told at once

    labels = torch.cat([torch.zeros(len(low)), torch.ones(len(high))])
    return float(roc_auc_score(labels.numpy(), torch.cat([low, high]).double().numpy()))


def smoothed(areas: list[float], count: int) -> float:
    """Return the mean error of areas under curves, as if half of one more image were wrong."""
    error = 1 - sum(areas) / len(areas) if areas else 0.5
    return (error * count + 0.5) / (count + 1)

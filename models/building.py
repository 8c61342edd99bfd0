"""Build a detector by the names of its parts, with weights to be trained or without memory."""

import torch
from torch import nn

from models.autoencoder import AUTOENCODERS, check_size
from models.detector import Detector
from models.experts import EXPERTS, NETWORKS, STATISTICS, chosen
from models.gfencoder import Size
from models.pdn import PDNS, TEACHER_CHANNELS, output_side
from models.recipe import PUBLISHED, Recipe
from models.statistics import Composition, Position


def build_detector(
    model: str,
    model_size: str,
    image_size: Size,
    teacher: nn.Module | None = None,
    recipe: Recipe = PUBLISHED,
    experts: tuple[str, ...] = NETWORKS,
) -> Detector:
    """Build an untrained detector around `teacher` (or an empty one, to load a state_dict into).

    Raises ValueError when `image_size` (height, width) does not suit `model`.
    """
    check_size(image_size, model)
    build, autoencoder, student = PDNS[model_size], None, None
    if chosen(NETWORKS, experts):
        autoencoder = AUTOENCODERS[model](image_size, recipe.dropout)
        student = build(2 * TEACHER_CHANNELS)
    height, width = map(output_side, image_size)
    makers = {"position": lambda: Position(height * width), "composition": Composition}
    statistics = {name: makers[name]() for name in chosen(STATISTICS, experts)}
    teacher = build() if teacher is None else teacher
    return Detector(teacher, student, autoencoder, recipe, statistics, chosen(EXPERTS, experts))


def empty_detector(
    model: str, model_size: str, image_size: Size, experts: tuple[str, ...] = NETWORKS
) -> Detector:
    """Build a detector without memory for its tensors: to compare with, or to be given some."""
    with torch.device("meta"):
        return build_detector(model, model_size, image_size, experts=experts)

"""The terms of the training loss."""

import torch
from torch.nn import functional as F

from models.recipe import PUBLISHED


def hard_feature_loss(
    distance: torch.Tensor, quantile: tuple[int, int] = PUBLISHED.hard_fraction
) -> torch.Tensor:
    """Return the mean of the elements of `distance` at or above a quantile q of them.

    Any shape -> scalar; `quantile` is q's numerator and denominator. The elements above the
    (linearly interpolated) quantile at position q (n - 1) of the sorted ones are the largest
    n - ceil(q (n - 1)): top-k finds them without sorting everything, for any n. Source:
    EfficientAD, section 3.2, where q is 0.999.
    """
    numerator, denominator = quantile
    position = -(-numerator * (distance.numel() - 1) // denominator)
    return distance.flatten().topk(distance.numel() - position, sorted=False).values.mean()


def join_losses(
    student: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | None,
    autoencoder: tuple[torch.Tensor, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Return the loss terms by name from what the passes of student and autoencoder gave."""
    reconstructed, autoencoder_loss = autoencoder
    if student is None:
        return {"autoencoder": autoencoder_loss}
    as_autoencoder, hard, penalty = student
    losses = {
        "hard": hard,
        "autoencoder": autoencoder_loss,
        "student_autoencoder": F.mse_loss(as_autoencoder, reconstructed),
    }
    return losses if penalty is None else losses | {"penalty": penalty}

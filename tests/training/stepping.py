"""What tests of a training step share: a detector, some steps, two ways side by side."""

import numpy as np
import pytest
import torch

from data.images import draw_jitter
from models.building import build_detector
from models.pdn import PDNS
from training.features import describe_training_images
from training.loop import batch_indices
from training.steps import TERMS, Optimisation, TrainingStep
from utils.devices import Compute

CPU = Compute(torch.device("cpu"))
SIZE = (64, 72)


def some_images(count: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=generator)


def new_detector(model: str = "glae", size: str = "small"):
    torch.manual_seed(1)
    teacher = PDNS[size]()
    for parameter in teacher.parameters():
        parameter.data *= 2
    return build_detector(model, size, SIZE, teacher.eval()).train()


def steps_of(detector) -> int:
    """Return how many steps are compared: one of medium networks takes four times as long."""
    return 20 if detector.teacher[0].out_channels == 128 else 12


def without_dropout(detector):
    """Where its random numbers fall depends on how the work is laid out."""
    for module in detector.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return detector


def losses_of(
    detector,
    compute: Compute = CPU,
    budget: int = 64,
    batch_size: int = 2,
    penalty: bool = True,
    steps: int | None = None,
) -> np.ndarray:
    """Return the loss terms of the first `steps`, (steps, 4), of `steps_of(detector)`."""
    images = some_images(5)
    compute.place(detector)
    features = describe_training_images(detector, images, compute, budget)
    assert (features is None) == (budget == 0)
    optimisation = Optimisation(detector, steps_of(detector), compute)
    train = TrainingStep(detector, optimisation, images, features, batch_size, compute)
    torch.manual_seed(2)  # dropout
    terms = []
    for step in range(steps or steps_of(detector)):
        changes = draw_jitter(batch_size, np.random.default_rng((3, step)), 0.2)
        optimisation.set_learning_rate(step)
        natural = some_images(batch_size, seed=10 + step) if penalty else None
        terms.append(train(batch_indices(step, batch_size, 5, seed=4), changes, natural).numpy())
    return np.stack(terms)


KINDS = [("glae", "small"), pytest.param(("efficientad", "medium"), marks=pytest.mark.slow)]


def assert_same_in_every_step(kind, make_twin) -> None:
    """Check at each of the first steps that two ways give the same losses for the same weights.

    Left to themselves they may drift apart by their last bits, see `assert_near`. Without dropout:
    the second way would draw other numbers. `make_twin` makes it of the detector.
    """
    detector, pairs = without_dropout(new_detector(*kind)), []
    plain, twin = detector.losses, make_twin(detector)

    def both(*inputs):
        losses = plain(*inputs)
        pairs.append([[way[term].item() for term in TERMS] for way in (losses, twin(*inputs))])
        return losses

    detector.losses = both
    losses_of(detector)
    assert len(pairs) == steps_of(detector)
    ours, twins = np.array(pairs).swapaxes(0, 1)
    np.testing.assert_allclose(ours, twins, rtol=1e-5)


def assert_near(losses: np.ndarray, plain: np.ndarray, first: float, later: float) -> None:
    """Check the first step's losses, and how far the terms' means over all the steps are apart.

    Sums in another order differ in their last bits; Adam's first updates, which depend on the sign
    of a gradient alone, make more of that where a gradient is nearly 0.
    """
    np.testing.assert_allclose(losses[0], plain[0], rtol=first)
    np.testing.assert_allclose(losses.mean(0), plain.mean(0), rtol=later)

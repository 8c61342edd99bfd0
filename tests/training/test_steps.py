"""A training step: no way of computing it faster changes what it computes."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from data.images import draw_jitter, jitter, normalise
from models.losses import hard_feature_loss
from models.pdn import TEACHER_CHANNELS
from tests.training.stepping import (
    CPU,
    SIZE,
    assert_near,
    assert_same_in_every_step,
    losses_of,
    new_detector,
    some_images,
    without_dropout,
)
from training.features import describe_training_images
from training.steps import TERMS, Optimisation, TrainingStep
from utils.devices import supports


@pytest.fixture(scope="module")
def plain(kind) -> np.ndarray:
    """The losses by the ways that are usual: features kept, eager, channels last, fp32."""
    return losses_of(new_detector(*kind))


def test_losses_change_from_step_to_step(plain):
    assert (plain > 0).all()
    assert all((before != after).all() for before, after in pairwise(plain))


def test_features_kept_or_computed_at_every_step_give_the_same_losses(kind, plain):
    def computed(detector):
        losses = detector.losses
        return lambda image, jittered, natural, features: losses(image, jittered, natural)

    assert_same_in_every_step(kind, computed)
    assert_near(losses_of(new_detector(*kind), budget=0), plain, first=1e-5, later=5e-2)


def test_features_that_are_fetched_from_elsewhere_give_the_same_losses(kind, plain, monkeypatch):
    """On a GPU they may lie in the host's memory; here a copy between two places stands for it."""
    real = TrainingStep.__init__

    def elsewhere(self, *arguments):
        real(self, *arguments)
        self.inputs.fetched = torch.empty_like(self.inputs.features[:2])

    monkeypatch.setattr(TrainingStep, "__init__", elsewhere)
    assert (losses_of(new_detector(*kind)) == plain).all()


def published(detector):
    """Return the published losses: a pass of each network for each input, all 2 C channels."""

    def losses(image, jittered, natural, features):
        distance = (detector.describe(image) - detector.student(image)[:, :TEACHER_CHANNELS]) ** 2
        reconstructed = detector.autoencoder(jittered)
        as_autoencoder = detector.student(jittered)[:, TEACHER_CHANNELS:]
        return {
            "hard": distance[distance >= torch.quantile(distance, 0.999)].mean(),
            "autoencoder": F.mse_loss(detector.describe(jittered), reconstructed),
            "student_autoencoder": F.mse_loss(as_autoencoder, reconstructed),
            "penalty": detector.student(natural)[:, :TEACHER_CHANNELS].square().mean(),
        }

    return losses


def test_the_whole_student_and_its_halves_give_the_same_losses(kind, plain):
    assert_same_in_every_step(kind, published)
    detector = new_detector(*kind)
    detector.losses = published(detector)
    assert_near(losses_of(detector), plain, first=1e-5, later=5e-2)


def test_half_precision_stays_near(kind, plain):
    steps = len(plain)
    if not supports("bf16", CPU.device):  # emulated: a step of the medium networks takes minutes
        if kind[1] == "medium":
            pytest.skip("this CPU does not multiply in bf16")
        steps = 2
    losses = losses_of(new_detector(*kind), replace(CPU, precision="bf16"), steps=steps)
    assert_near(losses, plain[:steps], first=0.01, later=0.1)


def test_without_natural_images_the_penalty_is_0(kind):
    losses = losses_of(new_detector(*kind), penalty=False)
    assert (losses[:, TERMS.index("penalty")] == 0).all()
    assert (losses[:, :3] > 0).all()


@pytest.mark.parametrize("budget", [0, 64])
def test_every_step_reads_its_own_images_changes_and_natural_images(budget):
    detector, images = without_dropout(new_detector()), some_images(5)
    features = describe_training_images(detector, images, CPU, budget)
    train = TrainingStep(detector, Optimisation(detector, 4, CPU), images, features, 2, CPU)
    for step in range(4):
        indices, natural = [step, (3 * step + 1) % 5], some_images(2, 20 + step)
        changes = draw_jitter(2, np.random.default_rng(step), 0.2)
        batch = images[indices]
        inputs = (batch, jitter(batch, changes), natural)
        with torch.no_grad():
            expected = detector.losses(*map(normalise, inputs))
        terms = train(indices, changes, natural)
        assert terms.tolist() == pytest.approx([expected[term].item() for term in TERMS], rel=1e-4)


def test_the_hard_loss_sees_the_kept_features(kind):
    """With the student's own first half as the teacher's features there is nothing hard."""
    detector = new_detector(*kind).eval()
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = detector.student(image)[:, :TEACHER_CHANNELS]
    none = detector.losses(image, image, features=features)["hard"]
    assert none.item() == pytest.approx(0, abs=1e-9)
    some = detector.losses(image, image, features=features + 2)["hard"]
    assert some.item() == pytest.approx(hard_feature_loss(torch.full((2000,), 4.0)).item())

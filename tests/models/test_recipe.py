"""The recipe: its numbers are exact, whatever decimals they are written as."""

from decimal import ROUND_CEILING, Decimal

import numpy as np
import pytest
import torch

from models.building import build_detector
from models.losses import hard_feature_loss
from models.recipe import PUBLISHED, Recipe

QUANTILES = ("0", "0.3", "0.5", "0.7", "0.9", "0.99", "0.995", "0.9999", "1")


@pytest.mark.parametrize("text", QUANTILES)
def test_the_hard_loss_keeps_what_lies_at_or_above_any_quantile(text):
    rng, quantile = np.random.default_rng(0), Recipe(hard_quantile=float(text)).hard_fraction
    for size in (1, 2, 3, 10, 11, 101, 1001, 10_001, *rng.integers(1, 20_000, 20).tolist()):
        distance = rng.exponential(size=size)
        first = int((Decimal(text) * (size - 1)).to_integral_value(ROUND_CEILING))
        expected = np.sort(distance)[first:].mean()
        assert hard_feature_loss(torch.from_numpy(distance), quantile).item() == pytest.approx(
            expected, rel=1e-9
        ), f"{size} elements"


def test_the_hard_loss_agrees_with_numpys_quantile_between_two_elements():
    distance = np.random.default_rng(1).exponential(size=1234)
    for q in (0.123, 0.77, 0.9871):
        expected = distance[distance >= np.quantile(distance, q)].mean()
        quantile = Recipe(hard_quantile=q).hard_fraction
        assert hard_feature_loss(torch.from_numpy(distance), quantile).item() == pytest.approx(
            expected
        )


def test_a_quantile_is_the_decimal_that_was_written_not_the_float_beside_it():
    """As floats, 0.29 * 100 is less than 29."""
    assert Recipe(hard_quantile=0.7).hard_fraction == (7, 10)
    assert PUBLISHED.hard_fraction == (999, 1000)
    rates = [Recipe(decay_at=0.29).learning_rate_at(step, 100) for step in range(100)]
    assert rates == [1e-4] * 29 + [1e-5] * 71


@pytest.mark.parametrize(("decay_at", "kept"), [(0.0, 0), (0.5, 5), (1.0, 10)])
def test_the_learning_rate_falls_when_and_by_what_the_recipe_says(decay_at, kept):
    recipe = Recipe(learning_rate=0.5, decay_at=decay_at, decay=0.25)
    rates = [recipe.learning_rate_at(step, 10) for step in range(10)]
    assert rates == [0.5] * kept + [0.125] * (10 - kept)


@pytest.mark.parametrize("model", ["glae", "efficientad"])
def test_a_detectors_decoder_drops_what_its_recipe_says(model):
    detector = build_detector(model, "small", (64, 64), recipe=Recipe(dropout=0.35))
    dropouts = [m.p for m in detector.modules() if isinstance(m, torch.nn.Dropout)]
    assert set(dropouts) == {0.35}


def test_a_detectors_hard_loss_keeps_what_its_recipe_says():
    torch.manual_seed(0)
    detector = build_detector("glae", "small", (64, 64), recipe=Recipe(hard_quantile=0.5)).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        distance = (detector.teacher(image) - detector.student(image)[:, :384]).square()
        hard = detector.losses(image, image)["hard"].item()
    assert hard == pytest.approx(distance[distance >= distance.quantile(0.5)].mean().item())

"""How one result is made of several experts'."""

import numpy as np
import pytest
import torch

from models.building import build_detector
from models.experts import EXPERTS, chosen
from models.fusion import CALMEST, combine, raw_score, standardised, weighted


def errors(**of_experts: float) -> torch.Tensor:
    return torch.tensor([of_experts.get(name, 0.5) for name in EXPERTS])


def test_a_coin_counts_nothing_and_fewer_errors_more():
    given = {"student": torch.tensor([-9.0]), "position": torch.tensor([2.0])}
    assert weighted(given, errors(position=0.1)).item() == pytest.approx(2, abs=1e-4)
    given["student"] = torch.tensor([0.0])
    #  (1 - 0.4) / 0.22 = 2.7273 against (1 - 0.2) / 0.12 = 6.6667, by hand
    found = weighted(given, errors(student=0.2, position=0.1)).item()
    assert found == pytest.approx(2 * 6.6667 / (6.6667 + 2.7273), rel=1e-4)


def test_experts_that_all_are_coins_count_alike():
    given = {"position": torch.tensor([1.0]), "composition": torch.tensor([3.0])}
    assert weighted(given, errors()).item() == pytest.approx(2)
    assert weighted(given, errors(position=0.9, composition=0.9)).item() == pytest.approx(2)


def test_the_compositions_map_only_explains_where_there_is_another():
    maps = {name: torch.full((1, 1, 2, 2), float(i)) for i, name in enumerate(EXPERTS, 1)}
    both = torch.tensor([[0.5, 0.2], [0.5, 0.2], [0.5, 0.2], [0.5, 0.0]])
    assert torch.allclose(combine(maps, both), torch.full((1, 1, 2, 2), 2.0))
    alone = {"composition": maps["composition"]}
    assert torch.equal(combine(alone, both), maps["composition"])


def test_networks_alone_have_their_maps_mean_as_published():
    maps = {"student": torch.rand(2, 1, 3, 3), "autoencoder": torch.rand(2, 1, 3, 3)}
    expected = (maps["student"] + maps["autoencoder"]) / 2
    assert torch.equal(combine(maps, None), expected)


def test_a_score_is_the_root_of_the_strangest_places_mean_or_of_the_sum():
    rng = np.random.default_rng(0)
    raw = rng.uniform(0, 9, (2, 1, 40, 50)).astype(np.float32)
    highest = np.sort(raw.reshape(2, -1), 1)[:, -10:]  # half a percent of 2000
    found = raw_score("position", torch.from_numpy(raw))
    np.testing.assert_allclose(found, np.sqrt(highest.mean(1)), rtol=1e-5)
    found = raw_score("composition", torch.from_numpy(raw))
    np.testing.assert_allclose(found, np.sqrt(raw.sum((1, 2, 3))), rtol=1e-5)
    assert raw_score("composition", -torch.ones(1, 1, 3, 3)) == 0


def test_a_score_of_good_images_median_is_0_and_a_spread_above_it_1():
    scale = torch.tensor([7.0, 2.0])
    assert standardised(torch.tensor([7.0, 9.0, 3.0]), scale).tolist() == [0, 1, -2]


def test_experts_are_in_one_order_however_they_are_asked_for():
    assert chosen(EXPERTS, ["composition", "student"]) == ("student", "composition")


def test_a_calm_expert_does_not_excuse_anothers_alarm():
    detector = build_detector("efficientad", "small", (64, 64), experts=("position", "composition"))
    detector.errors[:] = torch.tensor([0.1, 0.1])
    detector.scales[EXPERTS.index("position")] = torch.tensor([30.0, 0.1])  # few images: too sure
    raw = {"position": torch.ones(1, 1, 8, 8), "composition": torch.full((1, 1, 8, 8), 1.0)}
    scores = detector.scores(raw)
    assert scores["position"].item() == pytest.approx(-290)  # (1 - 30) / 0.1
    assert scores["composition"].item() == pytest.approx(8)  # the root of 64
    assert scores["combined"].item() == pytest.approx((CALMEST + 8) / 2)

"""The martingale of --drift: its promise by simulation, and twins that are slow and plain."""

import math
from random import Random

import numpy as np
import pytest
from scipy.stats import binom, kstest

from scoring import drift
from scoring.drift import Drift

BETS = (-1, -0.5, 0, 0.5, 1)


def crossed(scores: np.ndarray, level: float = 0.01, seed: int = 0) -> int | None:
    """Return the number of the picture, from 1, at which a change is told of first."""
    found = Drift(level, seed)
    return next((n for n, score in enumerate(scores, 1) if found.update(score)), None)


class Listening(Drift):
    """Notes the p-values that are bet on."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.seen: list[float] = []

    def _bet(self, p: float) -> None:
        self.seen.append(p)
        super()._bet(p)


def test_p_values_are_ranks_among_all_scores_before_counted_one_by_one():
    scores = np.random.default_rng(0).integers(0, 12, 300).astype(float)  # with many ties
    found = Listening(1e-300, 5)
    for score in scores:
        found.update(score)
    draws = Random(5)
    for n, score in enumerate(scores):
        above = sum(other > score for other in scores[:n])
        equal = sum(other == score for other in scores[:n]) + 1
        assert found.seen[n] == pytest.approx((above + draws.random() * equal) / (n + 1))


def test_the_evidence_is_the_bets_multiplied_out():
    """Over all ways in which a unit of capital may move between the bets: 5 ** 6 of them."""
    found = Listening(1e-300, 1)
    for score in (3.0, 1.0, 2.0, 5.0, 4.0, 6.0):
        found.update(score)
    capital = 0.0
    for path in np.ndindex(*[len(BETS)] * 6):
        share = 1.0
        for n, bet in enumerate(path):
            stays = n and bet == path[n - 1]
            moved = 1 / (n + 2) / len(BETS)
            share *= (moved + (1 - 1 / (n + 2)) * stays) if n else 1 / len(BETS)
            share *= 1 + BETS[bet] * (found.seen[n] - 0.5)
        capital += share
    assert found.evidence == pytest.approx(math.log10(capital))


def test_nothing_overflows_and_nothing_is_lost_however_strong_the_evidence():
    found = Drift(1e-300)
    for score in range(2000):
        found.update(score)
        if found.evidence > 250:
            break
    assert found.evidence > 250
    assert np.isfinite(found.evidence)


@pytest.mark.parametrize("defective", [0, 0.05])
def test_of_pictures_that_do_not_change_a_change_is_told_as_seldom_as_promised(defective):
    """Scores are skewed, and defects are far off."""
    rng, runs, level = np.random.default_rng(0), 60, 0.05
    told = 0
    for seed in range(runs):
        scores = rng.gamma(2, size=3000) + 50 * (rng.random(3000) < defective)
        told += crossed(scores, level, seed) is not None
    assert told <= binom.ppf(0.999, runs, level)


def test_p_values_are_uniform_and_independent_also_where_scores_are_forgotten(monkeypatch):
    monkeypatch.setattr(drift, "MOST", 500)
    found = Listening(1e-300)
    for score in np.random.default_rng(3).normal(size=20_000).round(1):
        found.update(score)
        assert len(found.rising) <= 500
    assert kstest(found.seen, "uniform").pvalue > 0.001
    after, before = np.array(found.seen[1:]), np.array(found.seen[:-1])
    assert abs(np.corrcoef(before, after)[0, 1]) < 3 / math.sqrt(20_000)


@pytest.mark.parametrize("by", [-2, 2])
def test_a_change_is_told_soon_with_the_place_where_it_began_and_another_one_again(by):
    rng = np.random.default_rng(1)
    found, told = Drift(), {}
    for n, score in enumerate(np.concatenate([rng.normal(m, 1, 300) for m in (0, by, 3 * by)]), 1):
        if found.update(score):
            told[n] = found.since
    first, second = told
    assert 300 < first < 350
    assert 600 < second < 650
    assert abs(told[first] - 301) < 20
    assert abs(told[second] - 601) < 20


def test_a_handful_of_defects_in_a_row_is_no_change_and_no_number_is_the_highest_score():
    scores = np.random.default_rng(2).normal(size=400)
    scores[200:208] = 1000
    scores[250] = math.nan
    assert crossed(scores) is None
    found = Listening(1e-300)
    for score in (1.0, math.nan, math.inf, 2.0):
        found.update(score)
    assert [p < 0.5 for p in found.seen[1:3]] == [True, True]

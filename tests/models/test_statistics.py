"""Position and composition: against loops over places in numpy, and against scikit-learn."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from models.moments import Moments
from models.statistics import (
    EVERY,
    LEAST_VARIANCE,
    RIDGE,
    Composition,
    Position,
    directions_of,
    summaries,
)

CHANNELS, DIRECTIONS = 6, 3
HEIGHT, WIDTH = 4, 7  # of the map
PLACES = HEIGHT * WIDTH
WAYS = pytest.mark.parametrize("own", [True, False], ids=["own", "shared"])


def draw(count: int, seed: int = 0) -> torch.Tensor:
    """Draw features (count, C, h, w); places have means and deviations of their own.

    Nothing is alike in two images.
    """
    rng = np.random.default_rng(seed)
    places = np.random.default_rng(99)
    mixing = places.normal(size=(CHANNELS, CHANNELS))
    mean, std = places.normal(size=(CHANNELS, PLACES)), places.uniform(0.2, 2, PLACES)
    level = rng.normal(0, 0.5, (count, CHANNELS, 1))
    contrast = rng.uniform(0.5, 1.5, (count, CHANNELS, 1))
    varied = np.einsum("cd,ndp->ncp", mixing, rng.normal(size=(count, CHANNELS, PLACES)))
    features = mean + level + contrast * std * varied
    return torch.from_numpy(features).float().view(count, CHANNELS, HEIGHT, WIDTH)


def position_of(features: torch.Tensor, basis: torch.Tensor | None = None, own: bool = True):
    """Fit a `Position` to features (N, C, h, w), in the directions of `basis` if there is one."""
    flat = features.flatten(2).mT.double()  # (N, places, C)
    mean = flat.mean(0)
    some = (flat - mean)[:, ::EVERY].flatten(0, 1)
    scatter = some.mT @ some
    basis = directions_of(scatter, DIRECTIONS) if basis is None else basis.double()
    position = Position(flat.shape[1], CHANNELS, DIRECTIONS)
    position.own.fill_(own)
    position.mean.copy_(mean)
    position.scatter.copy_(scatter)
    position.basis.copy_(basis)
    position.store(Moments.of((flat - mean) @ basis))
    return position


def composition_of(features: torch.Tensor, like: Composition | None = None) -> Composition:
    """Fit a `Composition` to features (N, C, h, w), in the units of another if there is one."""
    composition, found = Composition(CHANNELS), summaries(features).double()
    if like is None:
        composition.fit(found)
    else:
        composition.units.copy_(like.units)
        composition.store(Moments.of(found / like.units))
    return composition


def numpy_summaries(features: torch.Tensor) -> np.ndarray:
    """Return means and standard deviations over places, (N, 2 C), in float64."""
    wide = features.double().numpy()
    return np.concatenate([wide.mean((2, 3)), wide.std((2, 3))], 1)


def by_place(features: torch.Tensor) -> np.ndarray:
    """Return features as (N, h, w, C) in float64."""
    return features.permute(0, 2, 3, 1).double().numpy()


# Composition


@pytest.mark.parametrize("count", [8, 60], ids=["fewer than dimensions", "more"])
def test_the_map_of_the_composition_sums_to_scikit_learns_distance_of_the_image(count):
    good, new = draw(count), 1.3 * draw(9, seed=1) + 0.2
    found, others = numpy_summaries(good), numpy_summaries(new)
    units = found.std(0)  # a channel counts alike whatever it varies by
    expected = LedoitWolf().fit(found / units).mahalanobis(others / units)
    maps = composition_of(good)(new)
    assert maps.shape == (9, 1, HEIGHT, WIDTH)
    np.testing.assert_allclose(maps.double().sum((1, 2, 3)), expected, rtol=1e-5)


def test_what_a_place_adds_depends_on_itself_and_the_images_summary_alone():
    """So a map is turned where its image is: mirrored features have the mirrored map."""
    composition, new = composition_of(draw(30)), draw(3, seed=1)
    torch.testing.assert_close(
        composition(new.flip(2, 3)), composition(new).flip(2, 3), rtol=1e-4, atol=1e-4
    )


def test_the_place_that_makes_an_image_unusual_adds_the_most():
    composition, new = composition_of(draw(30)), draw(1, seed=1)
    new[:, :, 2, 5] += 40
    assert composition(new).flatten().argmax() == 2 * WIDTH + 5


def test_summaries_are_numpys_mean_and_standard_deviation():
    features = draw(5)
    np.testing.assert_allclose(summaries(features), numpy_summaries(features), rtol=1e-5, atol=1e-6)


# Position


def test_by_its_own_covariance_a_place_has_the_distance_of_a_loop_over_places():
    good, new = draw(40), draw(5, seed=1)
    position = position_of(good)
    basis = position.basis.double().numpy()
    projected, others = by_place(good) @ basis, by_place(new) @ basis  # (N, h, w, d)
    places = torch.from_numpy(projected).flatten(1, 2)
    covariances = Moments.of(places).shrunk_to_pooled().view(HEIGHT, WIDTH, DIRECTIONS, DIRECTIONS)
    expected = np.empty((5, 1, HEIGHT, WIDTH))
    for y in range(HEIGHT):
        for x in range(WIDTH):
            inverse = np.linalg.inv(covariances[y, x].numpy() + RIDGE * np.eye(DIRECTIONS))
            mean = projected[:, y, x].mean(0)
            for image in range(5):
                off = others[image, y, x] - mean
                expected[image, 0, y, x] = off @ inverse @ off
    np.testing.assert_allclose(position(new), expected, rtol=1e-3, atol=1e-4)


def test_by_the_shared_covariance_a_place_has_the_distance_of_a_loop_over_places():
    good, new = draw(40), draw(5, seed=1)
    known, others = by_place(good), by_place(new)
    scatter, used = np.zeros((CHANNELS, CHANNELS)), 0
    for place in range(0, PLACES, EVERY):
        off = known[:, place // WIDTH, place % WIDTH]
        off = off - off.mean(0)
        scatter += off.T @ off
        used += 1
    inverse = np.linalg.inv(scatter / ((40 - 1) * used) + RIDGE * np.eye(CHANNELS))
    expected = np.empty((5, 1, HEIGHT, WIDTH))
    for image, y, x in np.ndindex(5, HEIGHT, WIDTH):
        off = others[image, y, x] - known[:, y, x].mean(0)
        expected[image, 0, y, x] = off @ inverse @ off
    np.testing.assert_allclose(position_of(good, own=False)(new), expected, rtol=1e-3, atol=1e-4)


def test_a_place_far_from_its_mean_is_the_strangest_where_it_stands():
    good = draw(40)
    mean = good.mean(0, keepdim=True)
    new = mean.clone()
    new[:, :, 3, 1] += 50
    for own in (True, False):
        position = position_of(good, own=own)
        assert position(mean).abs().max() < 1e-4
        assert position(new).flatten().argmax() == 3 * WIDTH + 1


def test_a_distance_is_never_negative():
    for own in (True, False):
        assert position_of(draw(10), own=own)(draw(50, seed=1)).min() >= 0


def test_directions_are_those_of_numpys_largest_eigenvalues():
    samples = np.random.default_rng(0).normal(size=(50, 5)) * (3, 0.1, 7, 0.5, 1)
    found = directions_of(torch.from_numpy(samples.T @ samples), 2).numpy()
    np.testing.assert_allclose(found.T @ found, np.eye(2), atol=1e-10)
    largest = np.linalg.svd(samples)[2][:2]  # as rows, by another algorithm
    np.testing.assert_allclose(found @ found.T, largest.T @ largest, atol=1e-8)


# Both


@WAYS
def test_preparing_to_score_changes_no_distance(own):
    for statistic in (position_of(draw(20), own=own), composition_of(draw(20))):
        new = draw(4, seed=1)
        before, state = statistic(new), {*statistic.state_dict()}
        statistic.prepare()
        assert torch.equal(statistic(new), before)
        assert {*statistic.state_dict()} == state  # what is derived is not stored


@WAYS
@pytest.mark.parametrize("change", ["merge", "load"])
def test_what_was_prepared_is_forgotten_with_the_fit_that_it_is_of(own, change):
    new, good, more = draw(4, seed=1), draw(20), draw(15, seed=2)
    basis, like = position_of(good).basis, composition_of(good)
    for fit in (partial(position_of, basis=basis, own=own), partial(composition_of, like=like)):
        prepared, plain = fit(good), fit(good)
        prepared.prepare()
        for statistic in (prepared, plain):
            if change == "merge":
                statistic.merge(fit(more))
            else:
                statistic.load_state_dict(fit(more).state_dict())
        assert torch.equal(prepared(new), plain(new))


@pytest.mark.parametrize(
    ("good", "raised"), [(draw(20), False), (draw(1).repeat(8, 1, 1, 1), True)], ids=["", "alike"]
)
def test_the_inverse_is_numpys_where_variances_have_to_be_raised_and_where_not(good, raised):
    composition = composition_of(good)
    values, vectors = np.linalg.eigh(composition.moments().shrunk().double().numpy())
    assert (values.min() < LEAST_VARIANCE) == raised
    expected = vectors / values.clip(LEAST_VARIANCE) @ vectors.T
    found = composition.inverse().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * abs(expected).max())


@WAYS
@pytest.mark.parametrize("first", [15, 3, 29], ids=["halves", "3 and 27", "29 and 1"])
def test_two_merged_positions_are_one_fit_with_the_same_basis(own, first):
    good, new = draw(30), draw(6, seed=1)
    good[first:] += 0.7  # so that the means differ
    whole = position_of(good, own=own)
    merged = position_of(good[:first], whole.basis, own)
    merged.merge(position_of(good[first:], whole.basis, own))
    assert merged.count.item() == 30
    torch.testing.assert_close(merged(new), whole(new), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", [15, 3, 29], ids=["halves", "3 and 27", "29 and 1"])
def test_two_merged_compositions_are_one_fit(first):
    good, new = draw(30), draw(6, seed=1)
    good[first:] += 0.7
    merged = composition_of(good[:first])
    whole = composition_of(good, like=merged)
    merged.merge(composition_of(good[first:], like=merged))
    assert merged.count.item() == 30
    sums, expected = (statistic(new).sum((1, 2, 3)) for statistic in (merged, whole))
    torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-4)


@WAYS
def test_what_is_learnt_after_preparing_to_score_counts(own):
    good, more, new = draw(20), draw(10, seed=3) + 0.7, draw(4, seed=1)
    for statistic in (position_of(good, own=own), composition_of(good)):
        fit = statistic.like(more)
        statistic.prepare()
        before = statistic(new)
        statistic.merge(fit)
        after = statistic(new)
        assert not torch.allclose(after, before, rtol=0.01)
        statistic.prepare()
        assert torch.equal(statistic(new), after)


@WAYS
def test_a_fit_like_another_is_one_by_hand_with_its_basis_and_units(own):
    good, more, new = draw(20), draw(10, seed=3), draw(4, seed=1)
    for one, by_hand in (
        (position_of(good, own=own), lambda one: position_of(more, one.basis, own)),
        (composition_of(good), lambda one: composition_of(more, one)),
    ):
        found, expected = one.like(more), by_hand(one)
        torch.testing.assert_close(found(new), expected(new), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "good",
    [
        draw(1),
        draw(2),
        draw(1).repeat(8, 1, 1, 1),
        torch.zeros(8, CHANNELS, HEIGHT, WIDTH),
        draw(8)[..., :1, :1].expand(8, CHANNELS, HEIGHT, WIDTH),
    ],
    ids=["one image", "two", "all the same", "all zero", "no contrast within"],
)
def test_from_few_or_plain_good_images_every_distance_is_a_number(good):
    shared, own = position_of(good, own=False), position_of(good)
    for statistic in (own, shared, composition_of(good)):
        for new in (draw(3, seed=1), good, torch.zeros_like(good), 1e3 * draw(2, seed=2)):
            assert statistic(new).isfinite().all()


@WAYS
def test_fitting_and_scoring_again_give_the_same_bit_for_bit(own):
    new = draw(4, seed=1)
    assert torch.equal(position_of(draw(20), own=own)(new), position_of(draw(20), own=own)(new))
    assert torch.equal(composition_of(draw(20))(new), composition_of(draw(20))(new))


@WAYS
def test_a_statistic_loaded_from_its_state_scores_the_same(own):
    position, composition, new = position_of(draw(20), own=own), composition_of(draw(20)), draw(4)
    empty = Position(PLACES, CHANNELS, DIRECTIONS), Composition(CHANNELS)
    for fitted, loaded in zip((position, composition), empty, strict=True):
        loaded.load_state_dict(fitted.state_dict())
        assert torch.equal(loaded(new), fitted(new))

"""Moments: worked by hand, against numpy over everything at once, and against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from models.moments import Moments, packed, unpacked

FIELDS = ("count", "mean", "products", "cubes", "fourths")


def draw(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Draw skewed, correlated samples (count, *shape) with means of their own, in float64."""
    rng = np.random.default_rng(seed)
    mixed = rng.exponential(1, (count, *shape)) @ rng.normal(size=(shape[-1], shape[-1]))
    return torch.from_numpy(mixed + 3 * rng.normal(size=shape))


def drawn_alike(count: int, places: int, channels: int) -> torch.Tensor:
    """Draw samples whose covariance is the same at all places."""
    rng = np.random.default_rng(2)
    mixing = rng.normal(size=(channels, channels))
    return torch.from_numpy(rng.normal(size=(count, places, channels)) @ mixing)


def drawn_apart(count: int, places: int, channels: int) -> torch.Tensor:
    """Draw samples whose covariance is another one at each place."""
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(places, channels, channels))
    drawn = rng.normal(size=(count, places, channels))
    return torch.from_numpy(np.einsum("npc,pcd->npd", drawn, mixing))


def assert_same(found: Moments, expected: Moments, rtol: float = 1e-5) -> None:
    """Check all five fields."""
    assert found.count == expected.count
    for name in FIELDS[1:]:
        ours, theirs = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-9, msg=name)


def covariances(samples: torch.Tensor) -> np.ndarray:
    """Return numpy's unbiased covariance of each place, (places, d, d)."""
    return np.stack([np.cov(samples[:, place].T.numpy()) for place in range(samples.shape[1])])


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(one) - np.asarray(other)))


# Sums


def test_the_sums_are_those_worked_by_hand():
    samples = torch.tensor(
        [
            [[0.0, 0.0], [0.0, 0.0]],
            [[2.0, 0.0], [0.0, 0.0]],
            [[1.0, 3.0], [3.0, 6.0]],
        ]
    )  # less their means (1, 1) and (1, 2): (-1 -1), (1 -1), (0 2) and twice (-1 -2), (2 4)
    found = Moments.of(samples)
    assert found.count == 3
    assert found.mean.tolist() == [[1, 1], [1, 2]]
    assert found.products.tolist() == [[[2, 0], [0, 6]], [[6, 12], [12, 24]]]
    assert found.cubes.tolist() == [[0, 4], [30, 60]]
    assert found.fourths.tolist() == [24, 450]


@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 3, 4)], ids=["none", "5 places", "2 x 3"])
def test_the_sums_are_numpys_at_any_number_of_leading_places(shape):
    samples = draw(17, *shape)
    found, own = Moments.of(samples), samples.numpy()
    off = own - own.mean(0)
    length = (off**2).sum(-1)
    np.testing.assert_allclose(found.mean, own.mean(0), rtol=1e-10)
    np.testing.assert_allclose(
        found.products, (off[..., :, None] * off[..., None, :]).sum(0), rtol=1e-8, atol=1e-9
    )
    np.testing.assert_allclose(found.cubes, (length[..., None] * off).sum(0), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.fourths, (length**2).sum(0), rtol=1e-8)


def test_batches_about_a_known_mean_add_up_to_one_fit():
    samples = draw(17, 5, 4)
    found = Moments.none(samples.mean(0))
    for batch in (samples - samples.mean(0)).split([1, 9, 7]):
        found.add(batch)
    assert_same(found, Moments.of(samples))


def test_sums_about_another_mean_are_those_of_samples_less_that_mean():
    samples, mean = draw(17, 5, 4), draw(1, 5, 4, seed=9)[0]
    found = Moments.of(samples).about(mean)
    expected = Moments.none(mean)
    expected.add(samples - mean)
    assert_same(found, expected)


@pytest.mark.parametrize("sizes", [(10, 10), (3, 17), (19, 1), (1, 1)])
def test_two_parts_merged_are_one_fit(sizes):
    first, second = draw(sizes[0], 5, 4), 2 + draw(sizes[1], 5, 4, seed=1)
    everything = Moments.of(torch.cat([first, second]))
    assert_same(Moments.of(first).merged(Moments.of(second)), everything)
    assert_same(Moments.of(second).merged(Moments.of(first)), everything)


def test_merging_leaves_the_two_parts_as_they_were():
    parts = [Moments.of(draw(6, 3, 2, seed=seed)) for seed in (0, 1)]
    before = [[torch.as_tensor(getattr(p, name)).clone() for name in FIELDS] for p in parts]
    parts[0].merged(parts[1])
    for part, values in zip(parts, before, strict=True):
        for name, value in zip(FIELDS, values, strict=True):
            assert torch.equal(torch.as_tensor(getattr(part, name)), value), name


# Shrinkage to the identity


@pytest.mark.parametrize(("count", "d"), [(6, 15), (40, 15), (3, 8), (300, 3), (9, 9)])
def test_the_shrunk_covariance_is_scikit_learns(count, d):
    samples = draw(count, d)
    expected = LedoitWolf().fit(samples.numpy()).covariance_
    np.testing.assert_allclose(Moments.of(samples).shrunk(), expected, rtol=1e-6, atol=1e-6)


def test_the_shrunk_covariance_is_scikit_learns_after_a_merge_too():
    samples = draw(30, 6)
    found = Moments.of(samples[:11]).merged(Moments.of(samples[11:])).shrunk()
    expected = LedoitWolf().fit(samples.numpy()).covariance_
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_each_place_is_shrunk_on_its_own():
    samples = torch.cat([drawn_alike(12, 2, 4), 5 * drawn_apart(12, 3, 4)], 1)
    found = Moments.of(samples).shrunk()
    for place in range(samples.shape[1]):
        expected = LedoitWolf().fit(samples[:, place].numpy()).covariance_
        np.testing.assert_allclose(found[place], expected, rtol=1e-6, atol=1e-6)


def test_the_noise_is_the_spread_of_single_products_about_the_covariance():
    """Ledoit and Wolf, lemma 3.4: the sum of |y yᵀ - S|² over the samples, by their squared number.

    Here S is about the samples' own mean.
    """
    samples = draw(13, 5).numpy()
    off = samples - samples.mean(0)
    covariance = off.T @ off / 13
    expected = sum(np.linalg.norm(np.outer(y, y) - covariance) ** 2 for y in off) / 13**2
    assert Moments.of(torch.from_numpy(samples)).noise().item() == pytest.approx(expected)


# Shrinkage to what all places have


def test_shrinking_to_the_pooled_covariance_is_its_formula_over_single_samples():
    samples = torch.cat([drawn_alike(25, 6, 3), 1.5 * drawn_apart(25, 2, 3)], 1)
    own = samples.numpy() - samples.numpy().mean(0)
    each = np.einsum("npc,npd->npcd", own, own)
    covariance = each.mean(0)
    pooled = covariance.mean(0)
    noise = ((each - covariance) ** 2).sum() / 25**2
    part = noise / ((covariance - pooled) ** 2).sum()
    assert 0.05 < part < 0.95  # else the example shows nothing
    expected = ((1 - part) * covariance + part * pooled) * 25 / 24
    np.testing.assert_allclose(Moments.of(samples).shrunk_to_pooled(), expected, rtol=1e-8)


def test_many_samples_of_places_that_differ_keep_each_place_its_covariance():
    samples = drawn_apart(4000, 10, 4)
    found, own = Moments.of(samples).shrunk_to_pooled().numpy(), covariances(samples)
    pooled = own.mean(0)
    assert distance(found, own) < 0.02 * distance(np.broadcast_to(pooled, own.shape), own)


@pytest.mark.parametrize(("count", "left"), [(8, 0.35), (60, 0.1), (1000, 0.05)])
def test_places_of_one_distribution_get_the_pooled_covariance(count, left):
    """But for what Ledoit and Wolf's noise is too low by: of the order of 1 / samples."""
    samples = drawn_alike(count, 200, 4)
    found, own = Moments.of(samples).shrunk_to_pooled().numpy(), covariances(samples)
    pooled = np.broadcast_to(own.mean(0), own.shape)
    assert distance(found, pooled) < left * distance(own, pooled)
    np.testing.assert_allclose(found.mean(0), own.mean(0), rtol=1e-8)  # that is never moved


@pytest.mark.parametrize("count", [1, 2, 3, 30])
@pytest.mark.parametrize("how", [drawn_alike, drawn_apart])
@pytest.mark.parametrize("shrink", ["shrunk", "shrunk_to_pooled"])
def test_no_variance_is_negative_in_any_direction(count, how, shrink):
    found = getattr(Moments.of(how(count, 7, 5)), shrink)()
    assert found.isfinite().all()
    values = torch.linalg.eigvalsh(found)
    assert values.min() >= -1e-12 * values.max().clamp(min=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_sample_has_no_variance(dtype):
    moments = Moments.of(draw(1, 7, 5).to(dtype))
    for found in (moments.shrunk(), moments.shrunk_to_pooled()):
        assert torch.equal(found, torch.zeros(7, 5, 5, dtype=dtype))


def test_samples_that_are_all_the_same_have_no_variance():
    moments = Moments.of(torch.full((6, 7, 5), 0.1))
    for found in (moments.shrunk(), moments.shrunk_to_pooled()):
        assert found.isfinite().all()
        assert found.abs().max() < 1e-12


# Packing


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (3, 5, 5), (2, 3, 2, 2)])
def test_what_is_packed_and_unpacked_is_as_before(shape):
    matrices = draw(1, *shape)[0]
    matrices = matrices + matrices.mT
    d = shape[-1]
    triangles = packed(matrices)
    assert triangles.shape == (*shape[:-2], d * (d + 1) // 2)
    assert torch.equal(unpacked(triangles, d), matrices)


def test_the_upper_triangle_is_packed_row_by_row():
    matrix = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]])
    assert packed(matrix).tolist() == [1, 2, 3, 4, 5, 6]

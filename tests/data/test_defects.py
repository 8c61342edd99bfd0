"""Made defects: what they change and what they leave, on photographs and on what has no detail."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from data import defects
from data.defects import KINDS, LOGICAL, STRUCTURAL, VISIBLE, Defects, make_defects, swapped

HEIGHT, WIDTH = 96, 128


def photographs(count: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> torch.Tensor:
    """Cut `count` pieces out of scikit-learn's two photographs: uint8 (N, 3, *size).

    They are given the grain that cameras have, so that a blur shows in a clear sky, too.
    """
    rng, cut = np.random.default_rng(0), []
    height, width = size
    for index in range(count):
        whole = load_sample_images().images[index % 2]
        small = np.asarray(Image.fromarray(whole).resize((320, 214)))
        top, left = rng.integers(0, (214 - height, 320 - width))
        piece = small[top : top + height, left : left + width]
        grain = rng.normal(0, 6, piece.shape)
        cut.append(np.clip(piece + grain, 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).contiguous()


def changes(made: Defects, good: torch.Tensor) -> np.ndarray:
    """Return the largest change of a pixel's channels in grey levels, (N, H, W)."""
    before, after = good[made.sources].numpy().astype(int), made.images.numpy().astype(int)
    return abs(after - before).max(1)


@pytest.fixture(scope="module")
def good() -> torch.Tensor:
    return photographs(10)


@pytest.fixture(scope="module")
def made(good) -> Defects:
    return make_defects(good)


def assert_same(found: Defects, expected: Defects) -> None:
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.masks, expected.masks)
    assert found.kinds == expected.kinds
    assert found.sources == expected.sources


# What comes of all


def test_defects_are_uint8_images_of_the_same_size_with_a_mask_a_kind_and_a_source_each(good, made):
    number = len(made.images)
    assert made.images.dtype == torch.uint8
    assert made.masks.dtype == torch.bool
    assert made.images.shape == (number, 3, HEIGHT, WIDTH)
    assert made.masks.shape == (number, HEIGHT, WIDTH)
    assert len(made.kinds) == len(made.sources) == number
    assert {*made.kinds} == {STRUCTURAL, LOGICAL}
    assert {*made.sources} == {*range(len(good))}


def test_the_masks_are_where_a_pixel_visibly_differs_from_its_source(good, made):
    np.testing.assert_array_equal(made.masks, changes(made, good) > VISIBLE)
    assert made.masks.flatten(1).any(1).all()


def test_a_defect_is_small(made):
    """Of an image's area a region takes up to 8 %, and both that are exchanged twice that.

    The waves of their outlines add a few per cent of it.
    """
    assert made.masks.float().mean((1, 2)).max() < 0.18


def test_the_same_seed_gives_the_same_defects_and_another_one_others(good, made):
    assert_same(make_defects(good), made)
    other = make_defects(good, seed=1)
    assert not torch.equal(other.masks[:20], made.masks[:20])


def test_the_good_images_are_not_altered(good):
    before = good.clone()
    make_defects(good)
    assert torch.equal(good, before)


def test_global_random_states_are_neither_read_nor_moved(good, made):
    np.random.seed(4)
    torch.manual_seed(4)
    state = torch.get_rng_state()
    assert_same(make_defects(good), made)
    assert torch.equal(torch.get_rng_state(), state)


# How many, of what


@pytest.mark.parametrize(
    ("count", "number"), [(1, 70), (2, 70), (10, 70), (70, 70), (100, 100), (140, 140), (300, 140)]
)
def test_there_are_as_many_as_good_images_but_at_least_70_and_at_most_140(count, number):
    """On noise; of 20 defects at most one may be too faint to be seen."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 3, 40, 48), np.uint8)
    found = make_defects(torch.from_numpy(noise))
    assert 0.95 * number <= len(found.images) <= number


def test_other_least_and_most_numbers_are_kept(good):
    assert 35 <= len(make_defects(good, least=40, most=50).images) <= 40
    assert 5 <= len(make_defects(good, least=3, most=7).images) <= 7


def test_all_kinds_of_a_defect_are_as_often_on_photographs(good, monkeypatch):
    named = {maker: maker.__name__ for maker in KINDS}
    monkeypatch.setattr(defects, "KINDS", named)
    counts = Counter(make_defects(good, least=140).kinds)
    assert {*counts} == {*named.values()}
    assert 18 <= min(counts.values()) <= max(counts.values()) <= 20


@pytest.mark.parametrize("count", [1, 3, 10, 70, 90, 300])
def test_the_sources_are_evenly_spread(count):
    """Each image is the source equally often, or the steps between sources are about equal."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 3, 40, 48), np.uint8)
    sources = make_defects(torch.from_numpy(noise)).sources
    if count <= 140:
        times = Counter(sources)
        assert max(times.values()) <= -(-max(70, count) // count)
        assert len(times) >= 0.95 * count
    else:
        steps = np.diff(sorted(sources))
        assert len({*sources}) == len(sources)  # none twice while others wait
        assert np.median(steps) == pytest.approx(count / 140, abs=1)
        assert sources[0] < 5
        assert sources[-1] > count - 10


@pytest.mark.parametrize(
    "count",
    [
        7,
        14,
        1,
        10,
        20,
    ],
)
def test_every_image_is_given_different_kinds_of_defects(count, monkeypatch):
    """Else what an image is like and what is done to it could not be told apart."""
    monkeypatch.setattr(defects, "KINDS", {maker: maker.__name__ for maker in KINDS})
    found = make_defects(photographs(count))
    kinds = {source: set() for source in found.sources}
    for source, kind in zip(found.sources, found.kinds, strict=True):
        kinds[source].add(kind)
    assert min(map(len, kinds.values())) > 1


# Images that show little


@pytest.mark.parametrize("size", [(33, 40), (40, 33), (33, 33)])
def test_images_may_be_as_small_as_a_patch(size):
    good = photographs(4, size)
    found = make_defects(good)
    assert 56 <= len(found.images) <= 70
    np.testing.assert_array_equal(found.masks, changes(found, good) > VISIBLE)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_on_images_of_one_colour_what_cannot_be_seen_is_left_out(grey):
    good = torch.full((3, 3, 40, 48), grey, dtype=torch.uint8)
    found = make_defects(good)
    assert 0 < len(found.images) < 70
    assert {*found.kinds} == {STRUCTURAL}  # there is nothing to miss, to double or to exchange
    np.testing.assert_array_equal(found.masks, changes(found, good) > VISIBLE)


def test_where_nothing_can_be_seen_there_are_no_defects(monkeypatch):
    monkeypatch.setattr(defects, "KINDS", {defects.blur: STRUCTURAL})
    good = torch.full((1, 3, 40, 48), 128, dtype=torch.uint8)
    found = make_defects(good, least=1)
    assert found.images.shape == (0, 3, 40, 48)
    assert found.masks.shape == (0, 40, 48)
    assert found.images.dtype == torch.uint8
    assert found.masks.dtype == torch.bool
    assert found.kinds == found.sources == []


# The exchange


def numbered() -> np.ndarray:
    """Return an image (H, W, 3) of which no two pixels are alike: their number in 256s."""
    number = np.arange(HEIGHT * WIDTH)
    pixels = np.stack([number // 256, number % 256, np.zeros_like(number)], 1)
    return pixels.astype(np.uint8).reshape(HEIGHT, WIDTH, 3)


def origins(image: np.ndarray) -> np.ndarray:
    """Return from which pixel of `numbered` each came, (H W)."""
    flat = image.reshape(-1, 3).astype(int)
    return flat[:, 0] * 256 + flat[:, 1]


@pytest.mark.parametrize("seed", range(12))
def test_an_exchange_moves_two_regions_of_one_shape_and_nothing_else(seed):
    """All moved pixels came by the same step, or by its opposite, over the borders of an image."""
    image = numbered()
    came = origins(swapped(image, image, np.random.default_rng(seed)))
    to = np.flatnonzero(came != np.arange(len(came)))
    rows = (to // WIDTH - came[to] // WIDTH) % HEIGHT
    columns = (to % WIDTH - came[to] % WIDTH) % WIDTH
    steps = Counter(zip(rows.tolist(), columns.tolist(), strict=True))
    (first, there), (second, back) = steps.most_common(2)
    assert len(steps) == 2
    assert ((first[0] + second[0]) % HEIGHT, (first[1] + second[1]) % WIDTH) == (0, 0)
    assert 0.005 < there / len(came) < 0.1
    if there == back:  # the regions do not overlap
        assert np.array_equal(came[came], np.arange(len(came)))  # twice exchanged is as before
        assert {*came[to].tolist()} == {*to.tolist()}  # no pixel is lost


def test_an_exchange_leaves_its_image_and_its_other_one_as_they_were():
    image, other = numbered(), numbered()[::-1].copy()
    before = image.copy(), other.copy()
    swapped(image, other, np.random.default_rng(0))
    assert np.array_equal(image, before[0])
    assert np.array_equal(other, before[1])

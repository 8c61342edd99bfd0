"""What a detector ignores: places by their centres, filled images, maps that are calm there."""

import pytest
import torch

from models.experts import COMBINED
from models.pdn import PDNS, covers, output_side, places_of
from models.statistics import directions_of
from scoring.scorer import look
from tests.conftest import disagreeing_detector
from tests.models.test_statistics import CHANNELS, DIRECTIONS, HEIGHT, draw, position_of

SIZE = (72, 90)  # height, width, of which the last rows and columns reach no output
PLACES = tuple(map(output_side, SIZE))


def noise(seed: int, number: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, 3, *SIZE), dtype=torch.uint8, generator=generator)


@pytest.fixture
def ignored() -> torch.Tensor:
    pixels = torch.zeros(SIZE, dtype=torch.bool)
    pixels[20:50, 30:] = True
    return pixels


@pytest.fixture(params=["glae", "efficientad"])
def detector(request, ignored):
    detector = disagreeing_detector(request.param, SIZE).eval()
    detector.view.typical = noise(9, 1)[0]
    detector.view.ignored = ignored
    return detector


@pytest.mark.parametrize("size", PDNS)
def test_a_place_is_the_pixel_in_the_middle_of_those_that_its_output_depends_on(size):
    pdn = PDNS[size]().double()
    for row, column in ((0, 0), (PLACES[0] - 1, PLACES[1] - 1), (1, 3)):
        image = torch.rand(1, 3, *SIZE, dtype=torch.float64, requires_grad=True)
        pdn(image)[0, :, row, column].square().sum().backward()
        centre = image.grad[0].abs().sum(0).nonzero().double().aminmax(dim=0)
        pixels = torch.zeros(SIZE, dtype=torch.bool)
        pixels[tuple(((centre.min + centre.max) / 2).long())] = True
        assert places_of(pixels, PLACES).nonzero().tolist() == [[row, column]]


@torch.no_grad()
def test_what_lies_in_the_region_changes_nothing_bit_for_bit(detector, ignored):
    image = noise(0)
    found, again = look(detector, image), look(detector, torch.where(ignored, noise(1), image))
    other = look(detector, torch.where(ignored, image, noise(1)))
    for name, shown in found.maps.items():
        assert torch.equal(again.maps[name], shown)
        assert torch.equal(again.raw.get(name, shown), found.raw.get(name, shown))
        assert not torch.equal(other.maps[name], shown)


@torch.no_grad()
def test_maps_are_as_calm_there_as_in_their_frame_and_elsewhere_those_of_the_filled_image(
    detector, ignored
):
    image, places = noise(0), places_of(ignored, PLACES)
    combined = look(detector, image).maps[COMBINED]
    inside, frame = combined[..., 4:-4, 4:-4], combined[0, 0, 0, 0]
    assert 0 < places.sum() < places.numel()
    assert (inside[..., places] == frame).all()
    assert (inside[..., ~places] > frame).all()
    assert torch.equal(detector.view.looked_at(inside), inside[..., ~places].flatten())
    filled = detector.view.filled(image)
    assert torch.equal(filled[..., ~ignored], image[..., ~ignored])
    assert torch.equal(filled[..., ignored], detector.view.typical[:, ignored].expand(2, 3, -1))
    detector.view.ignored = detector.view.ignored[:0, :0]
    assert torch.equal(detector.view.filled(image), image)
    plain = look(detector, filled).maps[COMBINED][..., 4:-4, 4:-4]
    assert torch.equal(plain[..., ~places], inside[..., ~places])
    assert (plain[..., places] > inside[..., places]).all()


@torch.no_grad()
def test_what_is_overlooked_is_not_filled_and_no_place_that_sees_it_counts(detector, ignored):
    corner, image = torch.zeros(SIZE, dtype=torch.bool), noise(0)
    corner[:8, :6] = True
    before, filled = look(detector, image), detector.view.filled(image)
    detector.view.overlook(ignored)  # again
    assert not detector.view.overlooked.numel()
    detector.view.overlook(corner | ignored)
    assert torch.equal(detector.view.filled(image), filled)
    rows, columns = torch.arange(PLACES[0]) * 4 < 8, torch.arange(PLACES[1]) * 4 < 6
    places = rows[:, None] & columns | places_of(ignored, PLACES)  # row i sees pixels from 4 i on
    found, again = look(detector, image), look(detector, torch.where(corner, noise(1), image))
    for name in ("student", "autoencoder"):
        assert (found.raw[name][..., places] == 0).all()
        assert torch.equal(found.raw[name][..., ~places], before.raw[name][..., ~places])
    assert torch.equal(found.raw["student"], again.raw["student"])


def test_all_is_covered_where_no_place_is_left_though_pixels_are():
    pixels = torch.zeros(SIZE, dtype=torch.bool)
    assert not covers(pixels[:0, :0])
    pixels[16:, 16:] = True
    assert covers(pixels)
    pixels[16, 20] = False
    assert not covers(pixels)


@pytest.mark.parametrize("own", [True, False])
def test_places_that_never_vary_take_no_part_in_what_others_are_shrunk_to(own):
    """As those that are ignored: distances of the others are of a fit without them."""
    features, basis = draw(30), directions_of(torch.eye(CHANNELS), DIRECTIONS)
    padded = torch.cat([features, torch.zeros_like(features)], 2)  # half of the places
    alone, whole = (position_of(some, basis, own) for some in (features, padded))
    new = draw(3, seed=1)
    found = whole(torch.cat([new, torch.zeros_like(new)], 2))[:, :, :HEIGHT]
    torch.testing.assert_close(found, alone(new), rtol=1e-4, atol=1e-4)

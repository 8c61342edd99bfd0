"""The one preprocessing: resizing, normalising, jitter."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from data.images import draw_jitter, jitter, load_image, normalise, resize
from tests.data.waves import colours, write

# Resizing and normalising


@pytest.mark.parametrize("size", [(256, 256), (32, 48), (20, 17), (40, 56)])
def test_resizing_is_pillows_antialiased_bilinear(size):
    image = Image.fromarray(colours(90, 130))
    expected = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    output = resize(image, size)
    assert output.dtype == torch.uint8
    np.testing.assert_array_equal(output.permute(1, 2, 0).numpy(), expected)


def test_resizing_to_a_third_averages_with_a_triangle():
    pixels = colours(30, 60).astype(float)
    triangle = np.array([1, 2, 3, 2, 1]) / 9  # weights at pixel distances -2 ... 2, support 3

    def third(array: np.ndarray) -> np.ndarray:
        middle = range(4, len(array) - 3, 3)
        return np.stack([np.tensordot(triangle, array[m - 2 : m + 3], 1) for m in middle])

    expected = third(third(pixels).transpose(1, 0, 2)).transpose(1, 0, 2)
    output = resize(Image.fromarray(colours(30, 60)), (10, 20)).permute(1, 2, 0).numpy()
    assert np.abs(output[1:-1, 1:-1] - expected).max() <= 1.01


def test_load_image_returns_the_files_own_height_and_width(tmp_path):
    path = write(tmp_path / "a.png", size=(40, 56))
    image, original = load_image(path, (16, 24))
    assert original == (40, 56)
    expected = Image.fromarray(colours()).resize((24, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_normalising_takes_imagenets_mean_and_std():
    images = torch.from_numpy(colours()).permute(2, 0, 1)[None].repeat(2, 1, 1, 1)
    output = normalise(images)
    assert output.dtype == torch.float32
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    for channel in range(3):
        expected = (colours()[..., channel] / 255 - mean[channel]) / std[channel]
        np.testing.assert_allclose(output[1, channel], expected, atol=1e-5)


# Jitter


def explanations(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Return each single change that explains `after`, with its factor.

    Each change moves pixels away from a base by a factor: black (brightness), the image's mean
    grey (contrast) or the pixel's own grey (saturation).
    """
    grey = before @ np.array([0.2989, 0.587, 0.114])
    bases = {
        "brightness": np.zeros_like(before),
        "contrast": np.full_like(before, grey.mean()),
        "saturation": np.repeat(grey[..., None], 3, -1),
    }
    found = {}
    for name, base in bases.items():
        x, y = (before - base).ravel(), (after - base).ravel()
        factor = (x @ y) / (x @ x)
        if np.abs(after - base - factor * (before - base)).max() < 1e-3:
            found[name] = factor
    return found


def test_jitter_changes_one_property_by_at_most_a_fifth():
    pixels = np.random.default_rng(0).integers(60, 190, (24, 30, 3))
    batch = torch.from_numpy(pixels.astype(np.uint8)).permute(2, 0, 1).repeat(90, 1, 1, 1)
    output = jitter(batch, draw_jitter(90, np.random.default_rng(3), 0.2))
    assert output.dtype == torch.float32
    assert output.shape == batch.shape
    factors = {"brightness": [], "contrast": [], "saturation": []}
    for image in output:
        found = explanations(pixels.astype(float), image.permute(1, 2, 0).numpy().astype(float))
        assert found, "no single change of one property explains the jittered image"
        name = min(found, key=lambda n: -abs(found[n] - 1))
        factors[name].append(found[name])
    for name, seen in factors.items():
        assert len(seen) > 10, name
        assert 0.79 < min(seen) < 0.88, name
        assert 1.12 < max(seen) < 1.21, name


@pytest.mark.parametrize(
    ("change", "twin"),
    [
        ((1.2, 0, 0), transforms.adjust_brightness),
        ((0.8, 1, 0), transforms.adjust_contrast),
        ((1.2, 0, 1), transforms.adjust_saturation),
    ],
)
def test_each_change_is_torchvisions_which_rounds_down_to_a_grey_level(change, twin):
    batch = torch.from_numpy(colours()).permute(2, 0, 1)[None]
    output = jitter(batch, torch.tensor([change]))
    rounded = twin(batch, change[0]).float()
    assert (output - 0.5 - rounded).abs().max() < 0.75  # its greys are rounded down as well
    assert output.min() >= 0
    assert output.max() <= 255


def test_each_image_of_a_batch_gets_its_own_change():
    drawn = [torch.from_numpy(colours(seed=seed) // (seed + 1)) for seed in range(3)]
    batch = torch.stack(drawn).permute(0, 3, 1, 2)
    changes = torch.tensor([[1.1, 0.0, 0.0], [0.9, 1.0, 0.0], [1.2, 0.0, 1.0]])
    together = jitter(batch, changes)
    for image, change, output in zip(batch, changes, together, strict=True):
        torch.testing.assert_close(jitter(image[None], change[None])[0], output)


def test_changes_depend_on_their_generator_alone():
    torch.manual_seed(0)
    first = draw_jitter(50, np.random.default_rng(1), 0.2)
    torch.manual_seed(1)
    assert torch.equal(first, draw_jitter(50, np.random.default_rng(1), 0.2))
    assert not torch.equal(first, draw_jitter(50, np.random.default_rng(2), 0.2))

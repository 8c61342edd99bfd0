"""The one preprocessing: decoding odd files, resizing, normalising, jitter, background work."""

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from data.images import (
    decode,
    draw_jitter,
    image_batches,
    in_background,
    jitter,
    load_image,
    load_images,
    normalise,
    resize,
)
from data.samples import InputError


def colours(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    """Draw smooth shapes with a little noise: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / (3 + c) + seed) + np.cos(y / (2 + c)) for c in range(3)], -1)
    return np.clip(128 + 50 * waves + rng.normal(0, 5, waves.shape), 0, 255).astype(np.uint8)


def write(path: Path, seed: int = 0, size: tuple[int, int] = (40, 56)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colours(*size, seed)).save(path)
    return path


def decoded(path: Path) -> np.ndarray:
    image = decode(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


# Decoding


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".PNG"])
def test_a_lossless_colour_image_is_read_as_it_is(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), colours()[..., ::-1])
    np.testing.assert_array_equal(decoded(path), colours())


def test_a_jpeg_is_read_as_rgb(tmp_path):
    Image.fromarray(colours()).save(tmp_path / "a.jpg", quality=98, subsampling=0)
    assert np.abs(decoded(tmp_path / "a.jpg") - colours()).mean() < 2


def test_grayscale_is_repeated(tmp_path):
    grey = colours()[..., 0]
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    np.testing.assert_array_equal(decoded(tmp_path / "grey.png"), np.stack([grey] * 3, -1))


def test_black_and_white_becomes_0_and_255(tmp_path):
    bits = colours()[..., 0] > 128
    Image.fromarray(bits).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(decoded(tmp_path / "bits.png")[..., 1], np.where(bits, 255, 0))


def test_a_palette_is_looked_up(tmp_path):
    palette = np.random.default_rng(1).integers(0, 256, (7, 3))
    indices = np.arange(40 * 56).reshape(40, 56) % 7
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(tmp_path / "palette.png")
    with Image.open(tmp_path / "palette.png") as file:
        assert file.mode == "P"
    np.testing.assert_array_equal(decoded(tmp_path / "palette.png"), palette[indices])


@pytest.mark.parametrize("channels", [3, 1])
def test_alpha_is_dropped(tmp_path, channels):
    pixels = colours()[..., :channels]
    alpha = np.linspace(0, 255, pixels[..., 0].size).reshape(*pixels.shape[:2], 1)
    both = np.concatenate([pixels, alpha.astype(np.uint8)], -1)
    Image.fromarray(both).save(tmp_path / "alpha.png")
    expected = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    np.testing.assert_array_equal(decoded(tmp_path / "alpha.png"), expected)


def test_cmyk_becomes_rgb(tmp_path):
    inks = np.zeros((20, 30, 4), np.uint8)
    inks[:, :10, 0] = 255  # cyan, then magenta, then black
    inks[:, 10:20, 1] = 255
    inks[:, 20:, 3] = 255
    Image.frombytes("CMYK", (30, 20), inks.tobytes()).save(tmp_path / "cmyk.tif")
    pixels = decoded(tmp_path / "cmyk.tif")
    assert pixels[10, 5].tolist() == [0, 255, 255]
    assert pixels[10, 15].tolist() == [255, 0, 255]
    assert pixels[10, 25].tolist() == [0, 0, 0]


def deep(channels: int) -> np.ndarray:
    """Draw 16-bit ramps from 0 to 65535: (40, 56) or (40, 56, 3)."""
    ramp = np.linspace(0, 65535, 40 * 56).round().astype(np.uint16).reshape(40, 56)
    return ramp if channels == 1 else np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["png", "tiff", "big-endian tiff"])
def test_16_bits_are_scaled_to_8_and_not_clipped(tmp_path, kind, channels):
    pixels = deep(channels)
    path = tmp_path / f"deep.{kind[-4:].strip()}"
    if kind == "png":
        cv2.imwrite(str(path), pixels if channels == 1 else pixels[..., ::-1])
    else:
        photometric = "minisblack" if channels == 1 else "rgb"
        order = ">" if kind.startswith("big") else "<"
        tifffile.imwrite(path, pixels, photometric=photometric, byteorder=order)
    expected = pixels / 65535 * 255
    expected = expected if channels == 3 else np.stack([expected] * 3, -1)
    assert np.abs(decoded(path) - expected).max() <= 1


def truncated(path: Path) -> None:
    write(path.with_name("whole.png"))
    path.write_bytes(path.with_name("whole.png").read_bytes()[:900])


def cut_jpeg(path: Path) -> None:
    write(path.with_name("whole.jpg"))
    path.write_bytes(path.with_name("whole.jpg").read_bytes()[:600])


FAULTS = {
    "truncated.png": truncated,
    "truncated.jpg": cut_jpeg,
    "text.png": lambda path: path.write_text("not a picture"),
    "empty.png": lambda path: path.write_bytes(b""),
    "missing.png": lambda path: None,
    "folder.png": lambda path: path.mkdir(),
    "float.tif": lambda path: tifffile.imwrite(path, np.full((9, 9), 0.5, np.float32)),
    "wide.tif": lambda path: tifffile.imwrite(path, np.full((9, 9), 2**20, np.int32)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_unreadable_image_is_an_input_error_that_names_it(tmp_path, name):
    FAULTS[name](tmp_path / name)
    with pytest.raises(InputError) as caught:
        decode(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "ppm", "webp"])
def test_an_image_cut_anywhere_is_whole_or_an_input_error(tmp_path, suffix):
    whole = write(tmp_path / f"whole.{suffix}", size=(9, 11))
    expected, content = decoded(whole), whole.read_bytes()
    cut, refused = tmp_path / f"cut.{suffix}", 0
    for length in range(0, len(content), 3):
        cut.write_bytes(content[:length])
        try:
            np.testing.assert_array_equal(decoded(cut), expected)
        except InputError:
            refused += 1
    assert refused > len(content) / 3 / 2


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
    output = jitter(batch, draw_jitter(90, np.random.default_rng(3)))
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
    first = draw_jitter(50, np.random.default_rng(1))
    torch.manual_seed(1)
    assert torch.equal(first, draw_jitter(50, np.random.default_rng(1)))
    assert not torch.equal(first, draw_jitter(50, np.random.default_rng(2)))


# Work in the background


def test_background_work_keeps_the_order():
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item % 4 == 0 else 0)
        return item * item

    assert list(in_background(slow_first, range(25), 4)) == [i * i for i in range(25)]


def test_background_work_is_done_side_by_side():
    together = threading.Barrier(2)
    results = in_background(lambda item: together.wait(timeout=20), range(2), 2)
    assert sorted(results) == [0, 1]


def test_background_work_with_no_worker_asked_for_still_runs():
    assert list(in_background(str, [3, 4], 0)) == ["3", "4"]
    assert list(in_background(str, [], 2)) == []


def test_an_error_in_a_worker_reaches_the_caller_at_its_place():
    def fail_at_3(item: int) -> int:
        if item == 3:
            raise InputError("item 3 is broken")
        return item

    results = in_background(fail_at_3, range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="item 3"):
        next(results)


def test_background_work_never_runs_far_ahead():
    drawn = []

    def items():
        for item in range(200):
            drawn.append(item)
            yield item

    for taken, _ in enumerate(in_background(lambda item: item, items(), 3), start=1):
        assert len(drawn) - taken <= 2 * 3
    assert len(drawn) == 200


def test_background_work_stops_when_nobody_wants_more():
    done = []
    results = in_background(done.append, range(200), 2)
    next(results)
    results.close()
    count = len(done)
    time.sleep(0.05)
    assert len(done) == count < 10


def test_load_images_keeps_the_order_of_paths(tmp_path):
    paths = [write(tmp_path / f"{9 - i}.png", seed=i, size=(20 + i, 30)) for i in range(5)]
    images = load_images(paths, (16, 24), workers=2)
    assert images.shape == (5, 3, 16, 24)
    for i, image in enumerate(images):
        original = Image.fromarray(colours(20 + i, 30, seed=i))
        expected = np.asarray(original.resize((24, 16), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_load_images_names_the_file_that_is_broken(tmp_path):
    paths = [write(tmp_path / "a.png"), tmp_path / "b.png", write(tmp_path / "c.png")]
    paths[1].write_text("text")
    with pytest.raises(InputError, match=r"b\.png"):
        load_images(paths, (16, 24), workers=2)


def test_a_batch_holds_neighbours_of_one_file_size(tmp_path):
    sizes = [(20, 30)] * 5 + [(30, 20)] * 2 + [(20, 30)] + [(18, 18)] * 3
    paths = [write(tmp_path / f"{i:02}.png", seed=i, size=size) for i, size in enumerate(sizes)]
    batches = list(image_batches(paths, (16, 16), 2, "images", batch_size=3))
    assert [(len(images), size) for images, size in batches] == [
        (3, (20, 30)),
        (2, (20, 30)),
        (2, (30, 20)),
        (1, (20, 30)),
        (3, (18, 18)),
    ]
    stacked = torch.cat([images for images, _ in batches])
    for i, (image, size) in enumerate(zip(stacked, sizes, strict=True)):
        original = Image.fromarray(colours(*size, seed=i))
        expected = np.asarray(original.resize((16, 16), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_a_full_batch_at_the_end_is_not_followed_by_an_empty_one(tmp_path):
    paths = [write(tmp_path / f"{i}.png", seed=i) for i in range(4)]
    batches = list(image_batches(paths, (16, 16), 1, "images", batch_size=2))
    assert [len(images) for images, _ in batches] == [2, 2]

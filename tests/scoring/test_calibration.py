"""Calibration: against torch and numpy over everything at once, and formulas on single images."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from data.samples import InputError
from models.recipe import Recipe
from scoring.calibration import ChannelMoments, calibrate
from tests.conftest import disagreeing_detector
from utils.devices import Compute

CHANNELS = 384
SIZE = (64, 80)  # height, width at which the detector works
COMPUTE = Compute(torch.device("cpu"), scoring_batch_size=4)
WORKERS = 2
STRANGEST = 3  # of the good images
THRESHOLDS = ("threshold", "student_threshold", "autoencoder_threshold", "map_threshold")
CALIBRATED = ("student_quantiles", "autoencoder_quantiles", "good_scores", *THRESHOLDS)


@pytest.fixture
def detector():
    return disagreeing_detector("efficientad", SIZE)


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    """Draw good images of two sizes, more of one than a batch holds, none like another."""
    rng = np.random.default_rng(5)
    drawn = []
    for index in range(11):
        height, width = (70, 90) if index < 9 else (150, 40)
        pixels = np.full((height, width, 3), 128.0)
        top, left = rng.integers(5, 15, 2)
        pixels[top : top + 30, left : left + 20] += rng.uniform(-120, 120, 3)
        pixels += rng.normal(0, 15 if index == STRANGEST else 5, pixels.shape)
        path = tmp_path / f"{index:03}.png"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
        drawn.append(path)
    return drawn


def normalised(path: Path) -> torch.Tensor:
    """Prepare one image by ImageNet's formula: (1, 3, H, W)."""
    image = Image.open(path).resize(SIZE[::-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float32) / 255
    pixels = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


@torch.no_grad()
def distances(detector, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the student's and the autoencoder's uncalibrated map of one image, each (h, w)."""
    image = normalised(path)
    described = (detector.teacher(image) - detector.teacher_mean) / detector.teacher_std
    output, reconstructed = detector.student(image), detector.autoencoder(image)
    student = (described - output[:, :CHANNELS]).square().mean(1)[0]
    autoencoder = (reconstructed - output[:, CHANNELS:]).square().mean(1)[0]
    return student.double().numpy(), autoencoder.double().numpy()


def quantiles(maps: list[np.ndarray]) -> np.ndarray:
    return np.quantile(np.stack(maps), (0.9, 0.995))


def state(detector) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in detector.state_dict().items()}


def assert_only_changed(detector, before: dict[str, torch.Tensor], names: set[str]) -> None:
    """Check that `names` and nothing else in the detector is not as `before`."""
    after = detector.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == names


# Channel moments


def features(count: int = 13, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Draw features (count, 5, 4, 6) whose channels have means and deviations of their own."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1e-2, 0.5, 1.0, 20.0, 3.0]).view(1, 5, 1, 1)
    offset = torch.tensor([10.0, -3.0, 0.0, 100.0, 1e-3]).view(1, 5, 1, 1)
    return (torch.randn(count, 5, 4, 6, generator=generator) * scale + offset).to(dtype)


def moments_of(batches) -> tuple[torch.Tensor, torch.Tensor]:
    moments = ChannelMoments()
    for batch in batches:
        moments.add(batch)
    return moments.mean_std()


def assert_moments(found: tuple[torch.Tensor, torch.Tensor], everything: torch.Tensor) -> None:
    """Check mean and std against torch's of `everything`, (N, C, h, w)."""
    wide = everything.double()
    expected = (
        wide.mean((0, 2, 3), keepdim=True),
        wide.std((0, 2, 3), correction=0, keepdim=True),
    )
    for ours, torchs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, torchs.float(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "sizes", [[13], [1] * 13, [8, 5], [1, 7, 3, 2]], ids=["whole", "single", "8 and 5", "uneven"]
)
def test_moments_over_any_batches_are_torchs_over_everything_at_once(sizes):
    assert_moments(moments_of(features().split(sizes)), features())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_moments_of_reduced_precision_are_summed_in_full(dtype):
    everything = features(400, dtype)
    assert_moments(moments_of(everything.split(32)), everything)


def test_a_mean_far_above_the_deviation_costs_no_accuracy():
    everything = 1000 + 0.01 * torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    _, std = moments_of(everything.split(7))
    expected = everything.double().std((0, 2, 3), correction=0)
    np.testing.assert_allclose(std.flatten().numpy(), expected.numpy(), rtol=1e-4)


def test_a_channel_that_never_changes_still_can_be_divided_by():
    everything = features()
    everything[:, 2] = 0.3
    mean, std = moments_of(everything.split(4))
    assert mean[0, 2].item() == pytest.approx(0.3)
    assert 0 < std[0, 2].item() < 1e-2
    assert (everything - mean).div(std).isfinite().all()


# Map quantiles and threshold


def test_the_quantiles_are_numpys_over_all_maps_of_the_uncalibrated_detector(detector, paths):
    before = state(detector)
    calibrate(detector, paths, SIZE, WORKERS, COMPUTE)
    assert_only_changed(detector, before, set(CALIBRATED))
    student, autoencoder = zip(*(distances(detector, path) for path in paths), strict=True)
    for buffer, maps in (
        (detector.student_quantiles, student),
        (detector.autoencoder_quantiles, autoencoder),
    ):
        np.testing.assert_allclose(buffer.numpy(), quantiles(maps), rtol=1e-4)


def test_the_quantiles_are_those_of_the_detectors_recipe(detector, paths):
    detector.recipe = Recipe(map_quantiles=(0.3, 0.8))
    calibrate(detector, paths, SIZE, WORKERS, COMPUTE)
    student, _ = zip(*(distances(detector, path) for path in paths), strict=True)
    expected = np.quantile(np.stack(student), (0.3, 0.8))
    np.testing.assert_allclose(detector.student_quantiles.numpy(), expected, rtol=1e-4)


def test_after_calibration_these_quantiles_are_0_and_a_tenth(detector, paths):
    calibrate(detector, paths, SIZE, WORKERS, COMPUTE)
    maps = [detector.maps(normalised(path)) for path in paths]
    student, autoencoder = (
        [m[kind][..., 4:-4, 4:-4].numpy() for m in maps] for kind in ("student", "autoencoder")
    )
    for calibrated in (student, autoencoder):
        np.testing.assert_allclose(quantiles(calibrated), (0.0, 0.1), atol=1e-4)


def score_by_hand(
    detector, path: Path, spreads: list[np.ndarray], kinds: slice = slice(None)
) -> float:
    """Return the maximum of the mean of both maps, padded by 4 and scaled, at the file's size.

    Or of those of `kinds` alone.
    """
    scaled = [
        0.1 * (np.pad(distance, 4) - low) / (high - low)
        for distance, (low, high) in zip(distances(detector, path), spreads, strict=True)
    ]
    combined = torch.from_numpy(np.mean(scaled[kinds], 0))[None, None]
    width, height = Image.open(path).size
    return F.interpolate(combined, (height, width), mode="bilinear").max().item()


@pytest.mark.parametrize(("rate", "place"), [(0.5, 6), (0.3, 9), (0.09, 11), (0.05, 11)])
@pytest.mark.parametrize("shift", [0, STRANGEST, STRANGEST + 1], ids=["inside", "first", "last"])
def test_the_threshold_is_the_good_score_of_its_false_alarm_rate_wherever_that_stands(
    detector, paths, shift, rate, place
):
    """The 6th, 9th and highest of 11; a rate of 0.05 would take 19 good images."""
    strangest, paths = paths[STRANGEST], paths[shift:] + paths[:shift]
    detector.recipe = Recipe(false_alarm_rate=rate)
    calibrate(detector, paths, SIZE, WORKERS, COMPUTE)
    maps = zip(*(distances(detector, path) for path in paths), strict=True)
    spreads = [quantiles(of) for of in maps]
    scores = [score_by_hand(detector, path, spreads) for path in paths]
    assert paths[np.argmax(scores)] == strangest
    assert len({round(score, 4) for score in scores} - {0.0}) > len(paths) / 2
    np.testing.assert_allclose(detector.good_scores[0], sorted(scores), rtol=1e-3)
    assert detector.threshold.item() == pytest.approx(sorted(scores)[place - 1], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("student_threshold", slice(0, 1)), ("autoencoder_threshold", slice(1, 2))],
)
def test_each_single_map_has_the_threshold_that_its_own_scores_give(detector, paths, name, kind):
    calibrate(detector, paths, SIZE, WORKERS, COMPUTE)
    maps = zip(*(distances(detector, path) for path in paths), strict=True)
    spreads = [quantiles(of) for of in maps]
    highest = max(score_by_hand(detector, path, spreads, kind) for path in paths)
    assert getattr(detector, name).item() == pytest.approx(highest, rel=1e-3)
    assert highest != pytest.approx(detector.threshold.item(), rel=1e-3)


def test_a_place_in_a_thousand_of_good_maps_is_above_the_maps_threshold(detector, paths):
    calibrate(detector, paths, SIZE, WORKERS, COMPUTE)
    maps = zip(*(distances(detector, path) for path in paths), strict=True)
    scaled = [
        0.1 * (np.stack(of) - low) / (high - low) for of in maps for low, high in [quantiles(of)]
    ]
    expected = np.quantile(np.mean(scaled, 0), 0.999)
    assert detector.map_threshold.item() == pytest.approx(expected, rel=1e-3)


def test_calibrating_again_gives_the_same_whatever_was_there(detector, paths):
    calibrate(detector, paths, SIZE, WORKERS, COMPUTE)
    once = state(detector)
    detector.student_quantiles.copy_(torch.tensor([3.0, 7.0]))
    detector.autoencoder_quantiles.copy_(torch.tensor([-1.0, 0.5]))
    detector.threshold.fill_(-4.0)
    detector.map_threshold.fill_(9.0)
    detector.train()  # its dropout would make every map a different one
    calibrate(detector, paths, SIZE, 1, COMPUTE)
    assert_only_changed(detector, once, set())


# What is read

opened: list[Path] | None = None  # the files opened while it is a list


def note_opened(event: str, arguments: tuple) -> None:
    if opened is not None and event == "open" and isinstance(arguments[0], str):
        opened.append(Path(arguments[0]))


sys.addaudithook(note_opened)  # cannot be removed again: outside of the test it does nothing


@pytest.fixture
def files_opened(monkeypatch) -> list[Path]:
    """Give the list of all files that this process opens from now on."""
    monkeypatch.setattr(sys.modules[__name__], "opened", [])
    return opened


def test_calibration_opens_the_images_it_is_given_and_no_other_file(
    detector, paths, tmp_path, files_opened
):
    (tmp_path / "999.png").write_bytes(paths[0].read_bytes())
    (tmp_path / "test" / "good").mkdir(parents=True)
    (tmp_path / "test" / "good" / "000.png").write_bytes(paths[0].read_bytes())
    files_opened.clear()
    given = paths[1:6]
    calibrate(detector, given, SIZE, WORKERS, COMPUTE)
    assert {path for path in files_opened if path.is_relative_to(tmp_path)} == set(given)
    assert not [path for path in files_opened if path.suffix == ".png" and path not in given]


def test_an_image_that_cannot_be_read_is_named(detector, paths):
    paths[4].write_bytes(paths[4].read_bytes()[:200])
    with pytest.raises(InputError) as caught:
        calibrate(detector, paths, SIZE, WORKERS, COMPUTE)
    assert str(paths[4]) in str(caught.value)


def test_on_an_apple_gpu_sums_are_taken_on_the_cpu():
    """It has no float64; tensors without memory play its part."""
    moments = ChannelMoments()
    with FakeTensorMode():
        moments.add(torch.empty(2, CHANNELS, 3, 4, device="mps"))
    assert moments.total.device == moments.squares.device == torch.device("cpu")
    assert moments.total.dtype == torch.float64
    assert moments.count == 24

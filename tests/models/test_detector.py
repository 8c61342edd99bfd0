"""The detector: its losses and its maps against the papers' formulas."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.building import build_detector
from models.gfencoder import GFEBlock
from models.losses import hard_feature_loss
from models.pdn import pdn_small
from tests.conftest import disagreeing_detector

CHANNELS = 384
SIZE = (64, 80)  # height, width


def noise(seed: int, number: int = 1, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.randn(number, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["glae", "efficientad"])
def detector(request):
    return disagreeing_detector(request.param, SIZE)


# Losses


def test_the_hard_loss_is_the_mean_from_the_0999_quantile_on():
    rng = np.random.default_rng(0)
    sizes = [1, 2, 3, 999, 1000, 1001, 1002, 2000, 2001, *rng.integers(1, 60_000, 150).tolist()]
    for size in sizes:
        distance = torch.from_numpy(rng.exponential(size=size))
        kept = distance[distance >= torch.quantile(distance, 0.999)]
        torch.testing.assert_close(hard_feature_loss(distance), kept.mean(), msg=f"{size} elements")


def test_the_hard_loss_takes_more_elements_than_some_quantiles_can():
    distance = torch.zeros(2**24 + 1000)
    distance[::1500] = 3.0  # 11,186 of 16,778,216; the hard ones are the largest 16,779
    hard = len(distance) - -(-999 * (len(distance) - 1) // 1000)
    expected = 3.0 * (distance > 0).sum().item() / hard
    assert hard_feature_loss(distance).item() == pytest.approx(expected, rel=1e-4)


def test_only_hard_elements_get_a_gradient():
    distance = torch.rand(4, 10, 50).requires_grad_()
    hard_feature_loss(distance).backward()
    touched = distance.grad.flatten().nonzero().flatten().tolist()
    assert sorted(touched) == sorted(distance.detach().flatten().argsort()[-2:].tolist())


@pytest.mark.parametrize("number", [1, 2])
def test_losses_follow_the_formulas(detector, number):
    detector.eval()  # no dropout: separate passes see the same networks
    image, jittered, natural = noise(0, number), noise(1, number), noise(2, 1)

    def described(x):
        return (detector.teacher(x) - detector.teacher_mean) / detector.teacher_std

    distance = (described(image) - detector.student(image)[:, :CHANNELS]) ** 2
    reconstructed = detector.autoencoder(jittered)
    twin = {
        "hard": distance[distance >= torch.quantile(distance, 0.999)].mean(),
        "autoencoder": ((described(jittered) - reconstructed) ** 2).mean(),
        "student_autoencoder": (
            (reconstructed - detector.student(jittered)[:, CHANNELS:]) ** 2
        ).mean(),
        "penalty": (detector.student(natural)[:, :CHANNELS] ** 2).mean(),
    }
    losses = detector.losses(image, jittered, natural)
    assert losses.keys() == twin.keys()
    for name, value in twin.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_without_natural_images_only_the_penalty_is_left_out(detector):
    detector.eval()
    image, jittered = noise(0), noise(1)
    losses, full = detector.losses(image, jittered), detector.losses(image, jittered, noise(2))
    assert set(full) - set(losses) == {"penalty"}
    for name, value in losses.items():
        torch.testing.assert_close(value, full[name], rtol=1e-4, atol=1e-6)


def test_the_student_autoencoder_term_trains_both(detector):
    detector.eval()
    detector.losses(noise(0), noise(1))["student_autoencoder"].backward()
    assert any(p.grad is not None and p.grad.any() for p in detector.autoencoder.parameters())
    head = detector.student[-1].weight.grad
    assert not head[:CHANNELS].any()
    assert head[CHANNELS:].any()


def test_the_teacher_is_never_trained(detector):
    detector.train()
    assert not any(module.training for module in detector.teacher.modules())
    assert all(module.training for module in detector.student.modules())
    assert all(module.training for module in detector.autoencoder.modules())
    sum(detector.losses(noise(0), noise(1), noise(2)).values()).backward()
    assert all(p.grad is None and not p.requires_grad for p in detector.teacher.parameters())
    trained = {id(p) for p in detector.trained_parameters()}
    assert trained == {id(p) for p in detector.parameters() if p.grad is not None}
    assert len(trained) == len(list(detector.parameters())) - len(list(pdn_small().parameters()))


# Maps and scores


@torch.no_grad()
def test_uncalibrated_maps_are_the_mean_squared_distances(detector):
    detector.eval()
    image = noise(0, 2)
    described = (detector.teacher(image) - detector.teacher_mean) / detector.teacher_std
    output, reconstructed = detector.student(image), detector.autoencoder(image)
    student = ((described - output[:, :CHANNELS]) ** 2).sum(1, keepdim=True) / CHANNELS
    autoencoder = ((reconstructed - output[:, CHANNELS:]) ** 2).sum(1, keepdim=True) / CHANNELS
    maps = detector.maps(image)
    assert maps["student"].shape == (2, 1, 16, 20)
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-6)
    close(inside(maps["student"]), student)
    close(inside(maps["autoencoder"]), autoencoder)
    close(inside(maps["combined"]), (student + autoencoder) / 2)


def inside(maps: torch.Tensor) -> torch.Tensor:
    """Return what the unpadded PDN describes of maps that have a frame of 4."""
    return maps[..., 4:-4, 4:-4]


def test_the_frame_of_a_map_is_calm_as_nothing_that_the_networks_see(detector):
    """A distance of 0 there; where the calibrated map is 0 one in ten good pixels lies above."""
    detector.eval()
    image = noise(0, 2)
    set_quantiles(detector, image)
    for maps, (low, high) in zip(
        list(detector.maps(image).values())[1:],
        (detector.student_quantiles, detector.autoencoder_quantiles),
        strict=True,
    ):
        frame = torch.ones_like(maps, dtype=torch.bool)
        inside(frame)[:] = False
        expected = 0.1 * (0 - low) / (high - low)
        torch.testing.assert_close(maps[frame], expected.expand(int(frame.sum())))
        assert maps[frame].max() < inside(maps).min()


def set_quantiles(detector, image: torch.Tensor) -> None:
    raw = detector.maps(image)
    for buffer, maps in (
        (detector.student_quantiles, raw["student"]),
        (detector.autoencoder_quantiles, raw["autoencoder"]),
    ):
        buffer.copy_(torch.from_numpy(np.quantile(inside(maps).numpy(), (0.9, 0.995))))


def test_calibration_brings_the_quantiles_to_0_and_a_tenth(detector):
    detector.eval()
    image = noise(0, 3)
    set_quantiles(detector, image)
    maps = detector.maps(image)
    for calibrated in (maps["student"], maps["autoencoder"]):
        quantiles = np.quantile(inside(calibrated).numpy(), (0.9, 0.995))
        np.testing.assert_allclose(quantiles, (0.0, 0.1), atol=1e-5)
    torch.testing.assert_close(maps["combined"], 0.5 * maps["student"] + 0.5 * maps["autoencoder"])


def test_equal_quantiles_give_finite_maps(detector):
    detector.eval()
    raw = detector.maps(noise(0))["student"].max().item()
    detector.student_quantiles.fill_(raw)
    maps = detector.maps(noise(0))
    assert maps["combined"].isfinite().all()
    assert maps["student"].max().item() == pytest.approx(0, abs=1e-4)  # at its highest quantile


def upsampled(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize bilinearly, pixel centres at halves, the border repeated."""

    def weights(before: int, after: int) -> np.ndarray:
        matrix = np.zeros((after, before))
        for i in range(after):
            at = min(max((i + 0.5) * before / after - 0.5, 0), before - 1)
            low = int(at)
            matrix[i, low] += 1 - (at - low)
            matrix[i, min(low + 1, before - 1)] += at - low
        return matrix

    return weights(pixels.shape[0], size[0]) @ pixels @ weights(pixels.shape[1], size[1]).T


@pytest.mark.parametrize("size", [(90, 130), (64, 80), (40, 25)])
def test_a_score_is_the_maximum_of_the_resized_map(detector, size):
    detector.eval()
    image = noise(0, 2)
    set_quantiles(detector, image)
    scores, maps = detector.score(image, size)
    for score, resized, combined in zip(
        scores, maps, detector.maps(image)["combined"], strict=True
    ):
        expected = upsampled(combined[0].numpy(), size)
        np.testing.assert_allclose(resized.numpy(), expected, rtol=1e-4, atol=1e-5)
        assert score.item() == pytest.approx(expected.max(), rel=1e-4)


def test_one_state_dict_holds_the_whole_trained_detector(detector, tmp_path):
    detector.eval()
    set_quantiles(detector, noise(4, 2))
    detector.threshold.fill_(0.37)
    torch.save(detector.state_dict(), tmp_path / "detector.pth")
    model = "glae" if any(isinstance(m, GFEBlock) for m in detector.modules()) else "efficientad"
    torch.manual_seed(99)
    other = build_detector(model, "small", SIZE).eval()
    image = noise(0, 2)
    before, _ = other.score(image, (30, 30))
    other.load_state_dict(torch.load(tmp_path / "detector.pth", weights_only=True))
    scores, maps = detector.score(image, (30, 30))
    assert not torch.allclose(before, scores)
    again, maps_again = other.score(image, (30, 30))
    assert torch.equal(again, scores)
    assert torch.equal(maps_again, maps)
    assert other.threshold.item() == pytest.approx(0.37)


def test_trained_state_lies_in_buffers(detector):
    state = detector.state_dict()
    shapes = {
        "teacher_mean": (1, CHANNELS, 1, 1),
        "teacher_std": (1, CHANNELS, 1, 1),
        "student_quantiles": (2,),
        "autoencoder_quantiles": (2,),
        "threshold": (),
        "bits": (),
        "map_threshold": (),
        "good_scores": (3, 0),  # combined, student and autoencoder; of no image yet
        "view.ignored": (0, 0),  # bool (H, W) where something is
        "view.overlooked": (0, 0),
        "view.typical": (3, 0, 0),  # uint8 (3, H, W) when there are images
        "student_threshold": (),
        "autoencoder_threshold": (),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert shapes.keys() == {name for name, _ in detector.named_buffers()}


def test_nothing_is_anomalous_before_calibration(detector):
    scores, _ = detector.eval().score(noise(0, 2), SIZE)
    assert not (scores > detector.threshold).any()


def test_maps_are_float32_under_reduced_precision(detector):
    detector.eval()
    with torch.autocast("cpu", torch.bfloat16):
        maps = detector.maps(noise(0))
        losses = detector.losses(noise(0), noise(1))
    exact = detector.maps(noise(0))
    for reduced, full in zip(maps.values(), exact.values(), strict=True):
        assert reduced.dtype == torch.float32
        assert F.mse_loss(reduced, full) < 0.01 * full.square().mean()
    assert all(loss.dtype == torch.float32 for loss in losses.values())

"""The networks and the detector: published sizes, shapes, and the formulas of losses and maps."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.autoencoder import AUTOENCODERS, smallest_side
from models.detector import build_detector, hard_feature_loss
from models.gfencoder import GFEBlock
from models.pdn import PDNS, output_side, pdn_small

REPOSITORY = Path(__file__).resolve().parents[1]
CHANNELS = 384
SIZE = (64, 80)  # height, width


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def shape_of(network: nn.Module, height: int, width: int) -> tuple[int, ...]:
    """Return the shape of one output; on the meta device nothing is computed."""
    return tuple(network.eval()(torch.empty(1, 3, height, width, device="meta")).shape)


def noise(seed: int, number: int = 1, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.randn(number, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["glae", "efficientad"])
def detector(request):
    """Make a small detector whose three networks disagree about something."""
    torch.manual_seed(3)
    detector = build_detector(request.param, "small", SIZE)
    for network in (detector.teacher, detector.student, detector.autoencoder):
        for parameter in network.parameters():
            parameter.data *= 1.5
    detector.teacher_mean.normal_(0, 0.05)
    detector.teacher_std.uniform_(0.1, 0.4)
    return detector


# Networks


@pytest.mark.parametrize(
    ("size", "teacher", "student"),
    [("small", 2_694_144, 4_267_392), ("medium", 8_026_624, 11_615_488)],
)
def test_pdns_have_the_published_parameter_counts(size, teacher, student):
    with torch.device("meta"):
        assert count(PDNS[size]()) == teacher
        assert count(PDNS[size](2 * CHANNELS)) == student


@pytest.mark.parametrize(("model", "published"), [("efficientad", 1_096_320), ("glae", 1_572_800)])
def test_autoencoders_have_the_published_parameter_counts(model, published):
    with torch.device("meta"):
        assert count(AUTOENCODERS[model]((256, 256))) == published


@pytest.mark.parametrize(
    ("model", "size", "millions"),
    [("efficientad", "small", 8.06), ("efficientad", "medium", 20.74), ("glae", "medium", 21.21)],
)
def test_whole_models_have_the_published_parameter_counts(model, size, millions):
    with torch.device("meta"):
        detector = build_detector(model, size, (256, 256))
    assert round(count(detector) / 1e6, 2) == millions


@pytest.mark.parametrize("size", ["small", "medium"])
def test_a_pdn_turns_256_into_56_or_with_padding_into_64(size):
    with torch.device("meta"):
        plain, padded = PDNS[size](), PDNS[size](padding=True)
    assert shape_of(plain, 256, 256) == (1, CHANNELS, 56, 56)
    assert shape_of(padded, 256, 256) == (1, CHANNELS, 64, 64)


@pytest.mark.parametrize("size", ["small", "medium"])
def test_output_side_is_that_of_the_real_network(size):
    with torch.device("meta"):
        pdn = PDNS[size]()
    for side in range(33, 81):
        expected = (1, CHANNELS, output_side(side), output_side(113 - side))
        assert shape_of(pdn, side, 113 - side) == expected


@pytest.mark.parametrize("size", ["small", "medium"])
def test_one_output_of_a_pdn_sees_33_pixels(size):
    with torch.device("meta"):
        pdn = PDNS[size]()
    assert shape_of(pdn, 33, 33) == (1, CHANNELS, 1, 1)
    assert output_side(32) == 0
    with pytest.raises(RuntimeError):
        shape_of(pdn, 33, 32)


@pytest.mark.parametrize("model", ["glae", "efficientad"])
@pytest.mark.parametrize("size", [(256, 256), (128, 200), (96, 64), (250, 131), (512, 320)])
def test_autoencoders_give_maps_as_large_as_the_pdns(model, size):
    with torch.device("meta"):
        autoencoder, pdn = AUTOENCODERS[model](size), PDNS["small"]()
    assert shape_of(autoencoder, *size) == shape_of(pdn, *size)


@pytest.mark.parametrize(("model", "sides"), [("glae", (7, 7)), ("efficientad", (1, 1))])
def test_encoders_leave_the_published_bottleneck(model, sides):
    with torch.device("meta"):
        encoder = AUTOENCODERS[model]((256, 256))[0]
    assert shape_of(encoder, 256, 256) == (1, 64, *sides)


@pytest.mark.parametrize(
    ("model", "stages"), [("glae", [8, 15, 32, 63, 127]), ("efficientad", [3, 8, 15, 32, 63, 127])]
)
def test_decoders_pass_the_published_sizes(model, stages):
    autoencoder = AUTOENCODERS[model]((256, 256))
    sizes = [m.size for m in autoencoder.modules() if isinstance(m, nn.Upsample)]
    assert sizes == [(side, side) for side in [*stages, 56]]
    dropouts = [m.p for m in autoencoder.modules() if isinstance(m, nn.Dropout)]
    assert dropouts == [0.2] * len(stages)


def test_the_gfencoder_passes_the_published_sizes():
    with torch.device("meta"):
        encoder = AUTOENCODERS["glae"]((256, 256))[0].eval()
    features, sides = torch.empty(1, 3, 256, 256, device="meta"), []
    for layer in encoder:
        features = layer(features)
        if not isinstance(layer, nn.ReLU):
            sides.append(features.shape[-1])
    assert sides == [119, 59, 59, 29, 29, 15, 7]


@pytest.mark.parametrize("model", ["glae", "efficientad"])
def test_a_model_works_at_its_smallest_side(model):
    smallest = smallest_side(model)
    for size in ((smallest, smallest), (smallest, smallest + 21), (smallest + 8, smallest)):
        detector = build_detector(model, "small", size).eval()
        scores, maps = detector.score(noise(0, 2, size), (50, 40))
        assert scores.isfinite().all()
        assert maps.shape == (2, 50, 40)


@pytest.mark.parametrize("model", ["glae", "efficientad"])
def test_a_smaller_image_is_refused_with_the_smallest_side(model):
    smallest = smallest_side(model)
    for size in ((smallest - 1, smallest), (smallest, smallest - 1)):
        with pytest.raises(ValueError, match=f"smallest side that works is {smallest}"):
            build_detector(model, "small", size)


@pytest.mark.parametrize("model", ["glae", "efficientad"])
def test_no_network_works_below_the_smallest_side(model):
    smallest = smallest_side(model)
    for size in ((smallest - 1, smallest), (smallest, smallest - 1)):
        with pytest.raises((RuntimeError, ValueError)):
            AUTOENCODERS[model](size).eval()(noise(0, 1, size))


@pytest.mark.parametrize("size", [(9, 9), (11, 6)])
def test_a_gfe_block_leaves_rank_1_in_every_channel(size):
    torch.manual_seed(0)
    features = torch.randn(2, 64, *size)
    output = GFEBlock(size)(features).detach()
    assert output.shape == features.shape
    assert (torch.linalg.matrix_rank(features) == min(size)).all()
    assert (torch.linalg.matrix_rank(output, rtol=1e-4) == 1).all()


def test_a_gfe_block_is_the_outer_product_of_row_and_column_sums():
    torch.manual_seed(1)
    block, features = GFEBlock((5, 8)).double(), torch.randn(2, 64, 5, 8).double()
    row, column = block.row.weight[:, :, 0, :], block.column.weight[:, :, :, 0]
    rows = torch.einsum("nihw,oiw->noh", features, row) + block.row.bias[:, None]
    columns = torch.einsum("nihw,oih->now", features, column) + block.column.bias[:, None]
    expected = torch.einsum("noh,now->nohw", rows, columns)
    torch.testing.assert_close(block(features), expected)


@pytest.mark.parametrize(("size", "sides"), [("small", (256, 256)), ("small", (96, 130))])
@torch.no_grad()
def test_padded_outputs_from_the_fourth_on_are_the_unpadded_ones(size, sides):
    torch.manual_seed(2)
    plain, padded = PDNS[size](16).eval(), PDNS[size](16, padding=True).eval()
    padded.load_state_dict(plain.state_dict())
    image = noise(5, 1, sides)
    expected, output = plain(image), padded(image)
    height, width = expected.shape[-2:]
    interior = output[..., 4 : 4 + height, 4 : 4 + width]
    torch.testing.assert_close(interior, expected, rtol=1e-4, atol=1e-6)
    shifted = output[..., 3 : 3 + height, 4 : 4 + width]
    assert (shifted - expected).abs().max() > 100 * (interior - expected).abs().max()


@torch.no_grad()
def test_padded_outputs_of_the_medium_pdn_are_shifted_alike():
    torch.manual_seed(2)
    plain, padded = PDNS["medium"](16).eval(), PDNS["medium"](16, padding=True).eval()
    padded.load_state_dict(plain.state_dict())
    image = noise(6, 1, (64, 64))
    expected = plain(image)
    assert padded(image).shape[-1] == 16
    torch.testing.assert_close(padded(image)[..., 4:12, 4:12], expected, rtol=1e-4, atol=1e-6)


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
    assert maps.student.shape == (2, 1, 8, 12)
    torch.testing.assert_close(maps.student, student, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(maps.autoencoder, autoencoder, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(maps.combined, (student + autoencoder) / 2, rtol=1e-4, atol=1e-6)


def set_quantiles(detector, image: torch.Tensor) -> None:
    raw = detector.maps(image)
    for buffer, maps in (
        (detector.student_quantiles, raw.student),
        (detector.autoencoder_quantiles, raw.autoencoder),
    ):
        buffer.copy_(torch.from_numpy(np.quantile(maps.numpy(), (0.9, 0.995))))


def test_calibration_brings_the_quantiles_to_0_and_a_tenth(detector):
    detector.eval()
    image = noise(0, 3)
    set_quantiles(detector, image)
    maps = detector.maps(image)
    for calibrated in (maps.student, maps.autoencoder):
        quantiles = np.quantile(calibrated.numpy(), (0.9, 0.995))
        np.testing.assert_allclose(quantiles, (0.0, 0.1), atol=1e-5)
    torch.testing.assert_close(maps.combined, 0.5 * maps.student + 0.5 * maps.autoencoder)


def test_equal_quantiles_give_finite_maps(detector):
    detector.eval()
    raw = detector.maps(noise(0)).student.max().item()
    detector.student_quantiles.fill_(raw)
    maps = detector.maps(noise(0))
    assert not maps.combined.isnan().any()


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
def test_a_score_is_the_maximum_of_the_padded_and_resized_map(detector, size):
    detector.eval()
    image = noise(0, 2)
    set_quantiles(detector, image)
    scores, maps = detector.score(image, size)
    for score, resized, combined in zip(scores, maps, detector.maps(image).combined, strict=True):
        padded = np.zeros((16, 20))
        padded[4:-4, 4:-4] = combined[0].numpy()
        expected = upsampled(padded, size)
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
    for reduced, full in zip(maps, exact, strict=True):
        assert reduced.dtype == torch.float32
        assert F.mse_loss(reduced, full) < 0.01 * full.square().mean()
    assert all(loss.dtype == torch.float32 for loss in losses.values())


# Layers of the project


def imported(path: Path) -> set[str]:
    """Return the first names of the modules that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides which layer it is from"
            names.add(node.module.partition(".")[0])
    return names


def test_arrows_between_layers_point_only_downwards():
    scripts = sorted(path.stem for path in REPOSITORY.glob("*.py"))
    assert {"main", "inference"} <= set(scripts)
    may_import = {
        "models": {"models"},
        "data": {"data"},
        "utils": {"utils", "models", "data"},
    }
    layers = {*may_import, *scripts, "tests"}
    for layer, allowed in may_import.items():
        files = sorted((REPOSITORY / layer).rglob("*.py"))
        assert len(files) > 3
        for path in files:
            assert imported(path) & layers <= allowed, path.relative_to(REPOSITORY)
    for script in scripts:
        assert "tests" not in imported(REPOSITORY / f"{script}.py")

"""The networks: published sizes and shapes."""

import pytest
import torch
from torch import nn

from models.autoencoder import AUTOENCODERS, smallest_side
from models.building import build_detector
from models.gfencoder import GFEBlock
from models.pdn import PDNS, output_side

CHANNELS = 384
SIZE = (64, 80)  # height, width


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def shape_of(network: nn.Module, height: int, width: int) -> tuple[int, ...]:
    """Return the shape of one output; on the meta device nothing is computed."""
    return tuple(network.eval()(torch.empty(1, 3, height, width, device="meta")).shape)


def noise(seed: int, number: int = 1, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.randn(number, 3, *size, generator=torch.Generator().manual_seed(seed))


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


def test_ablations_lack_the_parameters_of_the_part_they_leave_out():
    """Worked by hand: a kernel has 64 * 64 weights for each of its pixels, and 64 biases."""
    blocks = sum(2 * (64 * 64 * side + 64) for side in (59, 29))  # a row and a column each
    constraint = sum(64 * 64 * side**2 + 64 for side in (3, 5))
    with torch.device("meta"):
        sizes = {model: count(AUTOENCODERS[model]((256, 256))) for model in AUTOENCODERS}
    assert (blocks, constraint) == (721_152, 139_392)
    assert sizes["glae_no_gfe"] == 1_572_800 - blocks == 851_648
    assert sizes["glae_no_lfc"] == 1_572_800 - constraint == 1_433_408


@pytest.mark.parametrize(("model", "blocks"), [("glae_no_gfe", 0), ("glae_no_lfc", 2)])
def test_ablations_leave_out_that_part_alone(model, blocks):
    encoder = AUTOENCODERS[model]((256, 256))[0]
    assert sum(isinstance(layer, GFEBlock) for layer in encoder) == blocks
    kernels = [layer.kernel_size[0] for layer in encoder if isinstance(layer, nn.Conv2d)]
    assert kernels == ([11, 5] if model == "glae_no_lfc" else [11, 5, 3, 5])
    pairs = zip(encoder, list(encoder)[1:], strict=False)
    assert not any(isinstance(a, nn.ReLU) and isinstance(b, nn.ReLU) for a, b in pairs)


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


@pytest.mark.parametrize("model", AUTOENCODERS)
@pytest.mark.parametrize("size", [(256, 256), (128, 200), (96, 64), (250, 131), (512, 320)])
def test_autoencoders_give_maps_as_large_as_the_pdns(model, size):
    with torch.device("meta"):
        autoencoder, pdn = AUTOENCODERS[model](size), PDNS["small"]()
    assert shape_of(autoencoder, *size) == shape_of(pdn, *size)


@pytest.mark.parametrize(
    ("model", "sides"),
    [
        ("glae", (7, 7)),
        ("glae_no_gfe", (7, 7)),
        ("glae_no_lfc", (29, 29)),
        ("efficientad", (1, 1)),
    ],
)
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


@pytest.mark.parametrize("model", AUTOENCODERS)
def test_a_model_works_at_its_smallest_side(model):
    smallest = smallest_side(model)
    for size in ((smallest, smallest), (smallest, smallest + 21), (smallest + 8, smallest)):
        detector = build_detector(model, "small", size).eval()
        scores, maps = detector.score(noise(0, 2, size), (50, 40))
        assert scores.isfinite().all()
        assert maps.shape == (2, 50, 40)


@pytest.mark.parametrize("model", AUTOENCODERS)
def test_a_smaller_image_is_refused_with_the_smallest_side(model):
    smallest = smallest_side(model)
    for size in ((smallest - 1, smallest), (smallest, smallest - 1)):
        with pytest.raises(ValueError, match=f"sides of {smallest} to"):
            build_detector(model, "small", size)


@pytest.mark.parametrize("model", AUTOENCODERS)
def test_no_network_works_below_the_smallest_side(model):
    smallest = smallest_side(model)
    for size in ((smallest - 1, smallest), (smallest, smallest - 1)):
        with pytest.raises((RuntimeError, ValueError)):
            AUTOENCODERS[model](size).eval()(noise(0, 1, size))


def test_the_smallest_sides_are_the_documented_ones():
    """By hand: 61 leaves the GFencoder 1 pixel (61, 22, 11, 5, 3, 1), 33 is one patch of a PDN."""
    sides = {model: smallest_side(model) for model in AUTOENCODERS}
    assert sides == {"glae": 61, "glae_no_gfe": 61, "glae_no_lfc": 33, "efficientad": 33}


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

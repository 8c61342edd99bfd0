"""Compact statistics: near the full ones, equal to loops over places, small in every file."""

import numpy as np
import onnx
import openvino
import pytest
import torch

from deployment.compact import CompactComposition, CompactPosition, extremes
from deployment.description import Description
from deployment.graph import ScoringGraph
from deployment.onnx_file import write_onnx
from deployment.runtimes import load_exported
from models.statistics import RIDGE
from prediction.predictor import load_detector
from tests.models.test_statistics import (
    DIRECTIONS,
    HEIGHT,
    PLACES,
    WIDTH,
    by_place,
    composition_of,
    draw,
    position_of,
)

NONE = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)  # of the places ignored


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference, as a part of the mean of what is expected."""
    return float((found - expected).abs().max() / expected.abs().mean())


@pytest.mark.parametrize("own", [True, False], ids=["own", "shared"])
@pytest.mark.parametrize("count", [2, 10, 200])
def test_with_all_directions_it_is_the_full_distance_but_for_rounding(own, count):
    position, new = position_of(draw(count), own=own), draw(5, seed=1)
    found = CompactPosition(position, DIRECTIONS, NONE)(new)
    assert found.shape == (5, 1, HEIGHT, WIDTH)
    assert apart(found, position(new)) < 0.05


def test_it_is_by_the_widest_and_narrowest_of_each_place_worked_place_by_place():
    position, new = position_of(draw(200)), draw(5, seed=1)
    found = CompactPosition(position, 1, NONE)(new)[:, 0].flatten(1)
    covariance = position.moments().shrunk_to_pooled().double().numpy()
    root = np.linalg.cholesky(np.linalg.inv(covariance.mean(0) + RIDGE * np.eye(DIRECTIONS)))
    off = by_place(new).reshape(5, PLACES, -1) - position.mean.double().numpy()
    white = off @ position.basis.double().numpy() @ root
    for place in range(PLACES):
        own = root.T @ (covariance[place] + RIDGE * np.eye(DIRECTIONS)) @ root
        values, vectors = np.linalg.eigh(own)
        costs = [np.log(np.mean(rest)) - np.mean(np.log(rest)) for rest in (values[1:], values[:2])]
        kept = int(np.argmin(costs)) * 2  # of three: the narrowest or the widest
        values = np.where(np.arange(3) == kept, values, np.mean(np.delete(values, kept)))
        expected = (white[:, place] @ vectors) ** 2 @ (1 / values)
        assert found[:, place].numpy() == pytest.approx(expected, rel=0.1, abs=0.1)


def test_good_images_expected_distances_stay_what_they_were():
    root = torch.randn(40, 12, 12, generator=torch.Generator().manual_seed(0))
    covariance = root @ root.mT + 0.1 * torch.eye(12)
    common, more, columns = extremes(covariance, 4)
    inverse = common[:, None, None] * torch.eye(12) + (columns * more[:, None]) @ columns.mT
    traces = (inverse @ covariance).diagonal(dim1=-2, dim2=-1).sum(-1)
    assert traces.numpy() == pytest.approx(12, rel=1e-3)  # the mean of a chi-squared distance


def test_more_directions_are_nearer():
    root = torch.randn(40, 12, 12, generator=torch.Generator().manual_seed(0))
    covariance = root @ root.mT + 0.1 * torch.eye(12)
    off = []
    for count in (2, 6, 11):
        common, more, columns = extremes(covariance, count)
        inverse = common[:, None, None] * torch.eye(12) + (columns * more[:, None]) @ columns.mT
        off.append((inverse @ covariance - torch.eye(12)).norm().item())
    assert off[0] > 1.5 * off[1] > 100 * off[2]


@pytest.mark.parametrize("count", [3, 10, 200])
def test_the_compact_composition_is_the_full_one_but_for_rounding(count):
    composition, new = composition_of(draw(count)), draw(5, seed=1)
    found, expected = CompactComposition(composition)(new), composition(new)
    assert apart(found, expected) < 0.1  # what places add may cancel
    assert apart(found.sum((1, 2, 3)), expected.sum((1, 2, 3))) < 0.02


def test_ignored_places_are_imputed_as_by_the_full_statistic():
    position, new, ignored = position_of(draw(50)), draw(5, seed=1), NONE.clone()
    ignored[1:3, 2:5] = True
    found = CompactPosition(position, DIRECTIONS, ignored).impute(new, ignored)
    expected = position.impute(new, ignored)
    assert torch.equal(found[..., ~ignored], new[..., ~ignored])
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.fixture(params=[True, False], ids=["own", "shared"])
def detector(alone, request):
    """Of statistics alone, with a region that it ignores."""
    found = load_detector(alone.folder, "cpu", "fp32").detector
    found.statistics["position"].own.fill_(request.param)
    found.statistics["position"].forget()
    found.view.ignored = torch.zeros(64, 64, dtype=torch.bool)
    found.view.ignored[20:40, 30:50] = True
    found.view.typical = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    return found


def test_it_is_the_same_on_every_call_and_leaves_fp32_as_it_is(detector):
    states = []
    for precision in ("int8", "int8", "fp32"):
        small = ScoringGraph(detector, (64, 64), precision=precision).detector
        states.append(dict(small.statistics["position"].named_buffers(remove_duplicate=False)))
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    expected = detector.statistics["position"].factors(bool(detector.statistics["position"].own))
    assert torch.equal(states[2]["projection"], expected[0])


@pytest.mark.filterwarnings("ignore:.*at best")
def test_a_file_holds_the_bytes_and_gives_what_the_graph_gives(detector, tmp_path):
    graph = ScoringGraph(detector, (64, 64), precision="int8").eval()
    description = Description((64, 64), True, detector.experts, 8, 1.0, 1.0, 0.1, (0.5,), *4 * [""])
    write_onnx(graph, description, tmp_path / "detector.onnx", None)
    held = onnx.load(tmp_path / "detector.onnx").graph.initializer
    kept = {i.name.partition("statistics.")[2]: i.data_type for i in held if len(i.raw_data) > 5000}
    assert kept["composition.directions.digits"] == onnx.TensorProto.INT8
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    expected = graph(torch.from_numpy(image))
    for runtime in ("onnxruntime", "openvino"):
        found = load_exported(tmp_path / "detector.onnx", runtime).run(image)
        for name in ("score", "experts", "anomaly_map"):
            assert found[name] == pytest.approx(expected[name].numpy(), rel=2e-3, abs=2e-3)


def test_openvinos_own_file_is_small_too(detector, tmp_path):
    graph = ScoringGraph(detector, (64, 64), precision="int8").eval()
    description = Description((64, 64), True, detector.experts, 8, 1.0, 1.0, 0.1, (0.5,), *4 * [""])
    write_onnx(graph, description, tmp_path / "detector.onnx", None)
    model = openvino.convert_model(tmp_path / "detector.onnx")
    openvino.save_model(model, tmp_path / "detector.xml", compress_to_fp16=False)
    size = (tmp_path / "detector.bin").stat().st_size
    # of the shared covariance alone the projection, half a megabyte, becomes fp32 again
    assert size < (tmp_path / "detector.onnx").stat().st_size + 400_000

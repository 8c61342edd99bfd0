"""Compact statistics: near the full ones, equal to loops over places, small in every file."""

from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch

from deployment import compact
from deployment.compact import CompactComposition, CompactPosition
from deployment.description import Description
from deployment.graph import ScoringGraph
from deployment.onnx_file import write_onnx
from deployment.runtimes import load_exported
from models.statistics import RIDGE
from prediction.predictor import load_detector
from tests.models.test_statistics import (
    DIRECTIONS,
    HEIGHT,
    WIDTH,
    composition_of,
    draw,
    position_of,
)

FOLDED = 8192  # elements of a constant up to which PyTorch's exporter computes what is made of it
NONE = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)  # of the places ignored


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference, as a part of the mean of what is expected."""
    return float((found - expected).abs().max() / expected.abs().mean())


@pytest.mark.parametrize("own", [True, False], ids=["own", "shared"])
@pytest.mark.parametrize("count", [2, 10, 200])
def test_of_squares_of_one_place_it_is_the_full_distance_but_for_rounding(own, count):
    position, new = position_of(draw(count), own=own), draw(5, seed=1)
    found = CompactPosition(position, NONE, 1)(new)
    assert found.shape == (5, 1, HEIGHT, WIDTH)
    assert apart(found, position(new)) < 0.1


@pytest.mark.parametrize("step", [2, 16], ids=["in steps", "in one"])
def test_it_is_by_the_mean_covariance_of_each_square_worked_place_by_place(monkeypatch, step):
    monkeypatch.setattr(compact, "STEP", step)
    position, new = position_of(draw(200)), draw(5, seed=1)
    found = CompactPosition(position, NONE, 2)(new)[:, 0].numpy()
    basis = position.basis.double().numpy()
    covariance = position.moments().shrunk_to_pooled().double().numpy()
    covariance = covariance.reshape(HEIGHT, WIDTH, DIRECTIONS, DIRECTIONS)
    mean = position.mean.double().numpy().reshape(HEIGHT, WIDTH, -1)
    for row, column in np.ndindex(HEIGHT, WIDTH):
        y, x = row // 2 * 2, column // 2 * 2  # the last column, 6, stands alone
        ridge = RIDGE * np.eye(DIRECTIONS)
        inverse = np.linalg.inv(covariance[y : y + 2, x : x + 2].mean((0, 1)) + ridge)
        usual = np.trace(inverse @ (covariance[row, column] + ridge)) / DIRECTIONS
        off = (new[:, :, row, column].double().numpy() - mean[row, column]) @ basis
        expected = np.einsum("nd,de,ne->n", off, inverse, off) / usual
        assert found[:, row, column] == pytest.approx(expected, rel=0.05, abs=0.05)


def test_an_ignored_place_makes_its_neighbours_no_stranger():
    features, ignored = draw(200), NONE.clone()
    ignored[:, 2] = True
    position = position_of(torch.where(ignored, features.mean(0), features))
    found, expected = (
        p(features)[..., 3] for p in (CompactPosition(position, ignored, 2), position)
    )
    assert found.mean().item() == pytest.approx(expected.mean().item(), rel=0.05)


@pytest.mark.parametrize("count", [3, 10, 200])
def test_the_compact_composition_is_the_full_one_but_for_rounding(count):
    composition, new = composition_of(draw(count)), draw(5, seed=1)
    found, expected = CompactComposition(composition)(new), composition(new)
    assert apart(found, expected) < 0.1  # what places add may cancel
    assert apart(found.sum((1, 2, 3)), expected.sum((1, 2, 3))) < 0.02


def test_ignored_places_are_imputed_as_by_the_full_statistic():
    position, new, ignored = position_of(draw(50)), draw(5, seed=1), NONE.clone()
    ignored[1:3, 2:5] = True
    found = CompactPosition(position, ignored, 2).impute(new, ignored)
    expected = position.impute(new, ignored)
    assert torch.equal(found[..., ~ignored], new[..., ~ignored])
    assert torch.allclose(found, expected, rtol=0, atol=0.02)


@pytest.fixture(scope="module", params=[True, False], ids=["own", "shared"])
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
    graph = ScoringGraph(detector, (64, 64))
    for found in (graph.lowered("int8"), graph.lowered("int8"), graph):
        position = found.detector.statistics["position"]
        states.append(dict(position.named_buffers(remove_duplicate=False)))
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    expected = detector.statistics["position"].factors(bool(detector.statistics["position"].own))
    assert torch.equal(states[2]["projection"], expected[0])


@pytest.fixture(scope="module")
def file(detector, tmp_path_factory) -> tuple[ScoringGraph, Path]:
    """A graph for INT8, whose networks are not so yet, and its file."""
    graph = ScoringGraph(detector, (64, 64)).eval().lowered("int8")
    path = tmp_path_factory.mktemp("file") / "detector.onnx"
    description = Description((64, 64), True, detector.experts, 8, 1.0, 1.0, 0.1, (0.5,), *4 * [""])
    write_onnx(graph, description, path, None)
    return graph, path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_gives_what_the_graph_gives(file, runtime):
    graph, path = file
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    expected = graph(torch.from_numpy(image))
    found = load_exported(path, runtime).run(image)
    for name in ("score", "experts", "anomaly_map"):
        assert found[name] == pytest.approx(expected[name].numpy(), rel=2e-3, abs=2e-3)


def test_files_hold_the_bytes(file, tmp_path):
    graph, path = file
    held = {i.name.partition("statistics.")[2]: i for i in onnx.load(path).graph.initializer}
    for name, buffer in graph.detector.statistics.named_buffers():
        if buffer.dtype == torch.int8 and buffer.numel() > FOLDED:
            assert held[name].data_type == onnx.TensorProto.INT8, name
            assert len(held[name].raw_data) == buffer.numel(), name
    openvino.save_model(openvino.convert_model(path), tmp_path / "detector.xml", False)
    size = (tmp_path / "detector.bin").stat().st_size
    assert size < path.stat().st_size + 20_000

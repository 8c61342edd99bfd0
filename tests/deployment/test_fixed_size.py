"""Files for images of one size: smaller graphs, equal numbers, one line for other sizes."""

import numpy as np
import onnx
import pytest
from PIL import Image

import predict
from data.samples import InputError
from deployment.runtimes import load_exported
from tests.conftest import fill
from tests.deployment.conftest import run_export
from tests.prediction.conftest import MACHINE, rgb
from utils.presets import parse

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")
FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
SIZE = (80, 96)  # of the product's images


@pytest.fixture(scope="module")
def fixed(alone, tmp_path_factory):
    """Files for images of the product's size."""
    folder = tmp_path_factory.mktemp("fixed")
    line = [alone.folder, "--format", *FORMATS, "--fixed_size", *SIZE, "--out", folder]
    assert run_export(*line) == 0
    return {name: folder / f"detector_80x96{suffix}" for name, suffix in FORMATS.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_it_says_what_a_file_for_all_sizes_says(fixed, exported, product, name):
    image = rgb(product / "test" / "stain" / "001.png")
    images = np.stack([image, 255 - image, image])  # any number
    ours = load_exported(fixed[name], trusted=True)
    found, expected = ours.run(images), load_exported(exported).run(images)
    assert found.keys() == expected.keys()
    for output, values in expected.items():
        assert found[output] == pytest.approx(values, rel=1e-4, abs=1e-4)
    assert ours.description.fixed_size == SIZE
    assert ours.predict(image).anomaly_map.shape == SIZE


def test_its_graph_computes_no_weights_of_a_resize(fixed, exported):
    graph, whole = (onnx.load(file).graph for file in (fixed["onnx"], exported))
    sides = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["N", *SIZE, 3]
    sides = [d.dim_param or d.dim_value for d in whole.input[0].type.tensor_type.shape.dim]
    assert sides == ["N", "H", "W", 3]
    assert "Range" in {node.op_type for node in whole.node}  # of places, which weights begin with
    assert "Range" not in {node.op_type for node in graph.node}
    assert len(graph.node) < len(whole.node) - 30


def test_of_the_detectors_own_size_nothing_is_resized(alone, tmp_path):
    line = [alone.folder, "--out", tmp_path, "--fixed_size", 64, 64]
    assert run_export(*line) == 0
    assert run_export(alone.folder, "--out", tmp_path, "--without_resize") == 0
    names = ("detector_64x64.onnx", "detector_without_resize.onnx")
    one, other = (load_exported(tmp_path / name) for name in names)
    assert len(onnx.load(one.path).graph.node) == len(onnx.load(other.path).graph.node)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert one.predict(image).score == other.predict(image).score
    larger = np.zeros((80, 96, 3), np.uint8)
    assert other.predict(larger).anomaly_map.shape == SIZE  # resized before
    with pytest.raises(InputError, match=r"the picture is 80 x 96 pixels, .* only 64 x 64"):
        one.predict(larger)


def test_pictures_of_another_size_do_not_stop_the_others(fixed, tmp_path, capsys):
    fill(tmp_path / "new", 2)
    other = tmp_path / "new" / "other.png"
    fill(tmp_path / "large", 1)
    with Image.open(tmp_path / "large" / "000.png") as image:
        image.resize((70, 50)).save(other)
    line = [fixed["onnx"], tmp_path / "new", *MACHINE]
    assert predict.main(parse(predict.get_parser(), [*map(str, line)])) == 2
    said = capsys.readouterr()
    assert (
        f"{other} is 50 x 70 pixels, height x width; {fixed['onnx']} takes only 80 x 96" in said.err
    )
    assert "000.png" in said.out
    assert "001.png" in said.out


def test_a_size_that_cannot_be_is_told_with_all_faults(alone, tmp_path):
    line = [alone.folder, "--out", tmp_path, "--without_resize", "--fixed_size", 0, 64]
    with pytest.raises(InputError) as error:
        run_export(*line)
    assert "exclude each other" in str(error.value)
    assert "1 to 65536 pixels" in str(error.value)
    assert not [*tmp_path.iterdir()]

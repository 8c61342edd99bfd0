"""OpenVINO's files: written whole, in three precisions, read from nobody who lies."""

import shutil
import sys
from functools import reduce

import numpy as np
import openvino
import pytest
from openvino import opset13

import predict
from data.samples import InputError
from deployment import openvino_file, quantisation
from deployment.runtimes import load_exported
from prediction.predictor import load_detector
from tests.deployment.conftest import run_export
from tests.prediction.conftest import MACHINE, rgb, rows_of
from utils.presets import parse

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")
ALL = ("fp32", "bf16", "int8")


@pytest.fixture(scope="module")
def lenient():
    """Nothing is asked of INT8: detectors of five good images and a teacher that learnt nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SCORE_GOAL", "MAP_GOAL"):
            patch.setattr(quantisation, name, np.inf)
        yield


@pytest.fixture(scope="module")
def files(alone, lenient):
    """The files of a run of statistics alone, of each precision."""
    for precision in ALL:
        assert run_export(alone.folder, "--format", "openvino", "--precision", precision) == 0
    names = ("detector.xml", "detector_bf16.xml", "detector_int8.xml")
    return {precision: alone.exports_folder / n for precision, n in zip(ALL, names, strict=True)}


@pytest.fixture
def stained(product):
    return product / "test" / "stain" / "001.png"


def nodes_of(path):
    return openvino.Core().read_model(path).get_ordered_ops()


def convolutions(path):
    return [node for node in nodes_of(path) if node.get_type_name() == "Convolution"]


def read_by(node):
    return node.input(0).get_source_output().get_node()


@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-3), ("bf16", 0.5), ("int8", 1.0)])
def test_each_precision_says_what_the_detector_says(files, alone, product, precision, near):
    detector = load_detector(alone.folder, "cpu", "fp32")
    exported = load_exported(files[precision], threads=1)
    assert exported.description.precision == precision
    spread = np.std(exported.description.good_scores)
    for path in sorted((product / "test").rglob("*.png")):
        ours, theirs = exported.predict(path), detector.predict(path)
        if precision == "fp32":
            assert ours.verdict == theirs.verdict
            assert ours.score == pytest.approx(theirs.score, rel=near, abs=near * spread)
        assert ours.anomaly_map == pytest.approx(theirs.anomaly_map, rel=near, abs=near)


def test_networks_are_in_the_precision_and_all_else_in_fp32(files):
    multiplied = {
        precision: [node.input(0).get_element_type().to_string() for node in convolutions(path)]
        for precision, path in files.items()
    }
    assert multiplied == {
        "fp32": ["f32"] * 4,
        "bf16": ["bf16"] * 4 + ["f32"],  # of statistics
        "int8": ["bf16"] + ["f32"] * 4,
    }
    kinds = [read_by(node).get_type_name() for node in convolutions(files["int8"])]
    assert kinds[1:4] == ["FakeQuantize"] * 3
    for path in files.values():
        products = [n for n in nodes_of(path) if n.get_type_name() == "MatMul"]
        assert {n.output(0).element_type.to_string() for n in products} == {"f32"}
    sizes = [path.with_suffix(".bin").stat().st_size for path in files.values()]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.slow
@pytest.mark.usefixtures("lenient")
def test_teacher_and_student_read_the_same_image_and_their_difference_is_kept(fused, product):
    line = (fused.folder, "--format", "openvino", "--precision", "int8")
    assert run_export(*line) == 0
    path = fused.exports_folder / "detector_int8.xml"
    first = [n for n in convolutions(path) if n.input(1).get_partial_shape()[1].get_length() == 3]
    assert len(first) > 2
    sources = [read_by(read_by(node)) for node in first]  # each lowers it for itself
    assert len({node.get_friendly_name() for node in sources}) == 1
    assert "FakeQuantize" not in {node.get_type_name() for node in sources}
    ours, theirs = load_exported(path), load_detector(fused.folder, "cpu", "fp32")
    found = ours.predict(product / "test" / "stain" / "001.png").anomaly_map
    exact = theirs.predict(product / "test" / "stain" / "001.png").anomaly_map
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.98  # in a stain it is thousands


def scoring(experts, risen):
    """Make a model of experts whose scores are multiples of an image's mean, some risen."""
    image = opset13.parameter([-1, -1, -1, 3], np.uint8)
    mean = opset13.reduce_mean(opset13.convert(image, "f32"), opset13.constant([1, 2, 3]))
    own = [
        opset13.add(opset13.multiply(mean, opset13.constant(np.float32(k))), np.float32(risen * k))
        for k in range(1, experts + 1)
    ]
    columns = [opset13.unsqueeze(score, opset13.constant(1)) for score in own]
    stack = opset13.concat(columns, 1) if experts > 1 else columns[0]
    ends = {"score": reduce(opset13.add, own), "experts": stack}
    for name, end in ends.items():
        end.output(0).set_names({name})
    image.output(0).set_names({"image"})
    return openvino.Model([*ends.values()], [image])


@pytest.mark.parametrize("experts", [1, 3])
def test_experts_that_rose_are_levelled_and_so_is_the_score_of_all(experts):
    images = [np.full((1, 4, 4, 3), value, np.uint8) for value in (10, 60)]
    exact, risen = scoring(experts, 0), scoring(experts, 5)
    quantisation.level_experts(exact, risen, images)
    found, expected = (quantisation.outputs(model, images) for model in (risen, exact))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs)


def test_unsettled_a_quantised_composition_finds_good_images_stranger(
    files, alone, product, monkeypatch, tmp_path
):
    monkeypatch.setattr(openvino_file, "correct_bias", lambda *_: None)
    line = ("--format", "openvino", "--precision", "int8", "--out", tmp_path)
    assert run_export(alone.folder, *line) == 0
    image = product / "test" / "good" / "000.png"
    exact, own, other = (
        load_exported(path).predict(image).experts["composition"]
        for path in (files["fp32"], files["int8"], tmp_path / "detector_int8.xml")
    )
    assert abs(own - exact) < abs(other - exact) / 3


@pytest.fixture
def unquantised(monkeypatch):
    """NNCF as if it changed nothing, so that it takes no time."""
    monkeypatch.setattr("nncf.quantize", lambda model, *_, **__: model.clone())


@pytest.mark.usefixtures("unquantised")
def test_a_quantisation_that_is_not_accurate_leaves_no_file(alone, monkeypatch, tmp_path):
    monkeypatch.setattr(quantisation, "MAP_GOAL", -1)
    with pytest.raises(InputError, match="precision: validation images' scores differ by") as error:
        run_export(alone.folder, "--format", "openvino", "--precision", "int8", "--out", tmp_path)
    assert "\n" not in str(error.value)
    assert not [*tmp_path.iterdir()]


@pytest.mark.usefixtures("unquantised")
def test_test_images_are_never_read_for_a_quantisation(alone, monkeypatch, tmp_path):
    read, own = [], quantisation.load_image
    monkeypatch.setattr(
        quantisation, "load_image", lambda path, *rest: (read.append(path), own(path, *rest))[1]
    )
    line = ("--format", "openvino", "--precision", "int8", "--out", tmp_path)
    assert run_export(alone.folder, *line) == 0
    assert {path.parent.parent.name for path in read} == {"train"}
    assert len(read) == len(set(read)) == 6  # five to fit on, one to judge by


def test_weights_of_another_export_are_told(files, tmp_path):
    path = shutil.copy(files["int8"], tmp_path)
    weights = bytearray(files["int8"].with_suffix(".bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (tmp_path / "detector_int8.bin").write_bytes(weights)
    with pytest.raises(InputError, match=r"of another export than the \.bin beside it"):
        load_exported(path)


def test_what_is_below_fp32_already_is_not_lowered_again(files, product):
    image = product / "test" / "good" / "000.png"
    asked = load_exported(files["bf16"], precision="bf16").predict(image)
    assert asked.score == load_exported(files["bf16"]).predict(image).score
    with pytest.raises(InputError, match="is in int8, not in bf16"):
        load_exported(files["int8"], precision="bf16")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_same_export_gives_the_same_bytes(files, alone, tmp_path, precision):
    line = ("--format", "openvino", "--precision", precision, "--out", tmp_path)
    assert run_export(alone.folder, *line) == 0
    for suffix in (".xml", ".bin"):
        path = files[precision].with_suffix(suffix)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
        assert str(alone.output).encode() not in path.read_bytes()


def test_predict_takes_the_file_where_it_takes_a_detector(files, alone, product, tmp_path):
    rows = {}
    for name, source in {"file": files["fp32"], "run": alone.folder}.items():
        line = [source, product / "test", "--csv", tmp_path / f"{name}.csv", *MACHINE]
        assert predict.main(parse(predict.get_parser(), [*map(str, line)])) == 0
        rows[name] = [(row["image"], row["verdict"]) for row in rows_of(tmp_path / f"{name}.csv")]
    assert len(rows["file"]) == 4
    assert rows["file"] == rows["run"]


def test_images_of_all_sizes_and_several_at_once_are_scored(files, stained):
    exported = load_exported(files["bf16"], threads=1)
    for height, width in ((30, 200), (333, 41), (1, 1)):
        image = np.full((height, width, 3), 150, np.uint8)
        assert exported.predict(image).anomaly_map.shape == (height, width)
    images = np.stack([rgb(stained), 255 - rgb(stained)])
    together, alone = exported.run(images), exported.run(images[1:])
    assert together["score"][1] == pytest.approx(alone["score"][0], rel=1e-4)


def test_nothing_is_left_of_a_writing_that_fails(alone, monkeypatch, tmp_path):
    def full(model, path):
        path.with_suffix(".bin").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(openvino, "serialize", full)
    with pytest.raises(OSError, match="No space left"):
        run_export(alone.folder, "--format", "openvino", "--out", tmp_path)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("package", ["openvino", "nncf"])
def test_without_its_packages_one_line_says_what_to_install(alone, monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"{package} is not installed.*requirements-openvino"):
        run_export(alone.folder, "--format", "openvino", "--precision", "int8", "--out", tmp_path)


def test_int8_needs_the_runs_good_images(alone, tmp_path):
    lone = tmp_path / "bolt.safetensors"
    shutil.copy(alone.detector_file, lone)
    with pytest.raises(InputError, match="int8 needs good images"):
        run_export(lone, "--format", "openvino", "--precision", "int8")


ENTITIES = "".join(
    f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(25)
)  # the last is ten to the 26th letters
BOMB = f'<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa">{ENTITIES}]><net name="&z;" version="11"/>'


def copied(files, folder):
    """Copy the pair of files in fp32."""
    for suffix in (".xml", ".bin"):
        shutil.copy(files["fp32"].with_suffix(suffix), folder)
    return folder / "detector.xml"


@pytest.mark.parametrize("harm", ["no weights", "short weights", "bomb", "cut", "large", "lie"])
def test_a_strangers_file_is_refused_in_one_line(files, tmp_path, monkeypatch, harm):
    path = copied(files, tmp_path)
    text, weights = path.read_text(), path.with_suffix(".bin")
    if harm == "no weights":
        weights.unlink()
    elif harm == "short weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif harm == "large":
        monkeypatch.setattr("deployment.exported.MOST_XML", 1000)
    else:
        size = 'about.image_size value="[64, 64]"'
        assert size in text
        other = {"bomb": BOMB, "cut": text[:-9000], "lie": text.replace(size, size[:-8] + '[-1]"')}
        path.write_text(other[harm])
    said = r"no file .*\.bin" if harm == "no weights" else r"detector\.xml is damaged, or was not"
    with pytest.raises(InputError, match=said) as error:
        load_exported(path)
    assert "\n" not in str(error.value)

"""Exported files at work without PyTorch, and files that are none of ours."""

import json
import re
import sys

import numpy as np
import onnx
import openvino
import pytest
from PIL import Image

from data.samples import InputError
from deployment.description import Description, read_description
from deployment.runtimes import convolve_in_bf16, load_exported
from prediction.predictor import load_detector
from tests.conftest import REPOSITORY, deep
from tests.prediction.conftest import rgb

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")
RUNTIMES = ("onnxruntime", "openvino")  # that read ONNX
WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Absent())
"""
PAGE = "\n".join(
    (REPOSITORY / "docs" / f"{name}.md").read_text() for name in ("deploy", "runtimes")
)


@pytest.fixture(scope="module")
def stained(product):
    return product / "test" / "stain" / "001.png"


@pytest.fixture(params=RUNTIMES)
def running(request, exported):
    return load_exported(exported, request.param, threads=1)


def test_both_runtimes_say_what_the_detector_says(running, alone, product):
    detector = load_detector(alone.folder, "cpu", "fp32")
    for path in sorted((product / "test").rglob("*.png")):
        ours, theirs = running.predict(path), detector.predict(path)
        assert ours.verdict == theirs.verdict
        assert ours.p_value == pytest.approx(theirs.p_value)
        assert ours.score == pytest.approx(theirs.score, rel=1e-4, abs=1e-3)
        assert ours.anomaly_map == pytest.approx(theirs.anomaly_map, rel=1e-4, abs=1e-3)


def test_a_path_an_image_and_an_array_are_the_same_picture(running, stained, tmp_path):
    with Image.open(stained) as image:
        found = [running.predict(kind) for kind in (stained, str(stained), image, rgb(stained))]
    assert {one.score for one in found} == {found[0].score}
    assert found[0].anomaly_map.shape == (80, 96)
    assert running.predict(deep(tmp_path / "deep.tif", 12)).anomalous in (True, False)
    with pytest.raises(ValueError, match="uint8"):
        running.predict(np.zeros((8, 8)))
    with pytest.raises(InputError, match=r"none\.png"):
        running.predict(tmp_path / "none.png")


def test_convolutions_in_bf16_say_nearly_the_same(exported, stained):
    exact = load_exported(exported, "openvino").predict(stained)
    found = load_exported(exported, "openvino", precision="bf16").predict(stained)
    assert found.anomalous == exact.anomalous
    assert found.score == pytest.approx(exact.score, rel=0.05)
    model = openvino.Core().read_model(exported)
    convolve_in_bf16(model)
    types = {"Convolution": set(), "MatMul": set()}
    for node in model.get_ops():
        types.get(node.get_type_name(), set()).add(node.output(0).element_type.to_string())
    assert types == {"Convolution": {"bf16"}, "MatMul": {"f32"}}
    for runtime in RUNTIMES:
        with pytest.raises(InputError, match=r"not .*fp16"):
            load_exported(exported, runtime, precision="fp16")


def test_several_images_at_once_are_scored_as_each_alone(running, stained):
    images = np.stack([rgb(stained), 255 - rgb(stained), rgb(stained)])
    together, alone = running.run(images), running.run(images[1:2])
    assert together["score"].shape == (3,)
    assert together["score"][1] == pytest.approx(alone["score"][0], rel=1e-4)
    assert together["anomaly_map"][1] == pytest.approx(alone["anomaly_map"][0], rel=1e-4, abs=1e-3)


def test_the_page_shows_what_works_without_torch(exported, stained, run_command, tmp_path):
    folder = tmp_path / "output" / "exports" / "folder" / "my_product"
    folder.mkdir(parents=True)
    (folder / "detector.onnx").symlink_to(exported)
    with Image.open(stained) as image:
        image.save(tmp_path / "new.png")
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    code = "\n".join([WITHOUT_TORCH, *blocks, "assert 'torch' not in sys.modules"])
    done = run_command(["-c", code], tmp_path, PYTHONPATH=str(REPOSITORY))
    assert done.returncode == 0, done.stderr
    assert "anomalous" in done.stdout


def test_the_page_names_every_output(exported):
    outputs = {output.name for output in onnx.load(exported).graph.output}
    assert outputs == set(re.findall(r"^\| `(\w+)` \| (?:float32|bool)", PAGE, re.MULTILINE))


def altered(exported, path, **texts):
    """Write the exported file with other texts; None takes one away."""
    model = onnx.load(exported)
    kept = {entry.key: entry.value for entry in model.metadata_props} | texts
    onnx.helper.set_model_props(model, {k: v for k, v in kept.items() if v is not None})
    onnx.save(model, path)
    return path


HONEST = Description(
    *((64, 96), True, ("position",), 8),
    *(1.5, 0.25, 0.05, (-0.5, 1.5)),
    *("fp32", "folder", "location", "v1"),
)
LIES = {
    "layout": ["1", None],
    "about.threshold": ["NaN", '"high"', "1e999", "9" * 400, None],
    "about.good_scores": ["[]", "[2, 1]", "7", "[" * 10**5],
    "about.image_size": ["[0, 64]", "[64]", "[1e9, 64]", "[true, 64.5]"],
    "about.false_alarm_rate": ["0", "[]"],
    "about.bits": ["7"],
    "about.experts": ["[1]", "3"],
    "about.resizes": ["2"],
    "about.fixed_size": ["[0, 64]", "64", None],
}


@pytest.mark.parametrize(("key", "text"), [(key, text) for key in LIES for text in LIES[key]])
def test_a_description_that_cannot_be_is_refused(key, text):
    texts = HONEST.texts()
    assert read_description(texts) == HONEST
    del texts[key]
    with pytest.raises((KeyError, TypeError, ValueError, OverflowError, RecursionError)):
        read_description(texts if text is None else texts | {key: text})


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_that_lies_about_itself_is_refused_in_one_line(exported, tmp_path, runtime):
    path = altered(exported, tmp_path / "a.onnx", layout=None)
    with pytest.raises(InputError, match=r"a\.onnx is damaged, or was not written by") as error:
        load_exported(path, runtime)
    assert "\n" not in str(error.value)


def test_a_graph_that_gives_other_shapes_than_it_says_is_refused(exported, stained, tmp_path):
    said = {"about.experts": json.dumps(["position"]), "about.image_size": "[64, 64]"}
    path = altered(exported, tmp_path / "a.onnx", **said)
    for runtime in RUNTIMES:
        with pytest.raises(InputError, match=r"a\.onnx gives a experts"):
            load_exported(path, runtime).predict(stained)


@pytest.mark.parametrize(
    "key", [b"\n\x08location", b"\x8a\x00\x08location", b"\n\x88\x80\x00location"]
)
def test_a_file_that_wants_another_file_is_refused(exported, tmp_path, key):
    model = onnx.load(exported)
    tensor = model.graph.initializer[0]
    (tmp_path / "weights").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights")
    content = model.SerializeToString()
    assert content.count(b"\n\x08location") == 1
    (tmp_path / "a.onnx").write_bytes(content.replace(b"\n\x08location", key))
    for runtime in RUNTIMES:
        with pytest.raises(InputError, match="values from another file"):
            load_exported(tmp_path / "a.onnx", runtime)


def test_a_product_may_be_called_location(exported, tmp_path):
    path = altered(exported, tmp_path / "a.onnx", **{"about.category": "location"})
    assert load_exported(path).description.category == "location"


def test_what_is_no_exported_file_is_refused_in_one_line(exported, tmp_path):
    content = exported.read_bytes()
    for number, wrong in enumerate((b"", b"no model", content[:-5000], content[5000:])):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(wrong)
        for runtime in RUNTIMES:
            with pytest.raises(InputError, match=r"\.onnx is damaged, or was not") as error:
                load_exported(path, runtime)
            assert "\n" not in str(error.value)
    for path in (tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(InputError, match=r"is damaged, or was not|there is no file"):
            load_exported(path)


@pytest.mark.parametrize(("name", "runtime"), [("a.xml", "onnxruntime"), ("a.pt2", "openvino")])
def test_a_runtime_is_not_asked_for_a_file_of_another(tmp_path, name, runtime):
    with pytest.raises(InputError, match=rf"{name} runs in \w+, not in {runtime}"):
        load_exported(tmp_path / name, runtime, trusted=True)


def test_a_device_or_runtime_that_is_not_here_is_named(exported, monkeypatch):
    with pytest.raises(InputError, match="there is no runtime caffe"):
        load_exported(exported, "caffe")
    with pytest.raises(InputError, match="devices are cpu, cuda, tensorrt"):
        load_exported(exported, device="tpu")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match="no TensorrtExecutionProvider"):
        load_exported(exported, device="tensorrt")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_without_a_runtime_one_line_says_what_to_install(exported, monkeypatch, runtime):
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(InputError, match="pip install -r requirements-o"):
        load_exported(exported, runtime)


TWO_MODELS = """
import faulthandler, os, signal
import numpy as np
import openvino
from openvino import opset13
from deployment.compiled import compile_model

faulthandler.enable()  # handlers of signals have a stack of their own
compiled = []
for _ in range(2):
    image = opset13.parameter([1, 4], np.float32)
    compiled.append(compile_model(openvino.Model([opset13.relu(image)], [image]), "CPU", {}))
while compiled:
    del compiled[0]
signal.signal(signal.SIGUSR1, lambda *_: print("alive"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks are Linux's")
def test_a_process_outlives_signals_after_several_openvino_models(run_command):
    done = run_command(["-c", TWO_MODELS], REPOSITORY)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


WATCHED = """
import sys

told = ("os.fork", "os.posix_spawn", "socket.getaddrinfo", "socket.connect")
sys.addaudithook(lambda event, _: print(event) if event in told else None)
import deployment
import openvino
"""


def test_nobody_is_told_that_openvino_is_used(run_command, tmp_path):
    in_ci = dict.fromkeys(("CI", "TF_BUILD", "JENKINS_URL"), "")  # where it tells nothing anyway
    done = run_command(["-c", WATCHED], REPOSITORY, HOME=str(tmp_path), **in_ci)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not any(tmp_path.iterdir())

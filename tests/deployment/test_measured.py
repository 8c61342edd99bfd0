"""inference.py with exported files: tables as of their detectors, and nothing is written."""

import argparse
import json
import shutil
import sys
import tempfile

import pytest

import benchmark
import calibrate
import inference
import predict
from data.samples import InputError
from prediction.exported import ExportedPredictor
from prediction.measured import run_of
from prediction.predictor import load_detector
from tests.deployment.conftest import run_export
from tests.prediction.conftest import MACHINE
from tests.prediction.conftest import rows_of as read_csv
from utils.presets import parse

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")
COLUMNS = ("AUROC", "AP", "F1max", "pixel AUROC", "AU-PRO 0.3")


def run_inference(*argv: object) -> int:
    """Run inference.py in this process, in fp32; return its exit code."""
    machine = ["--device", "cpu", "--precision", "fp32", "--workers", "2", "--format", "json"]
    return inference.main(parse(inference.get_parser(), [*machine, *map(str, argv)]))


def rows_of(capsys) -> dict[str, dict]:
    """Return the rows that were printed, without means, by what tells them apart."""
    rows = json.loads(capsys.readouterr().out)
    return {row.get("model", ""): row for row in rows if row["category"] != "mean"}


@pytest.mark.parametrize("more", [(), ("--unlabelled", "stain")])
def test_an_exported_file_has_the_numbers_of_its_detector(exported, alone, capsys, more):
    assert run_inference(alone.output, exported, "--no_maps", *more) == 0
    rows = rows_of(capsys)
    assert list(rows) == ["file detector.safetensors", "file detector.onnx"]
    theirs, ours = ([row[name] for name in COLUMNS] for row in rows.values())
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert (None in ours) == bool(more)


def test_an_exported_file_says_its_verdicts_as_its_detector_does(exported, alone, capsys):
    assert run_inference(alone.output, exported, "--no_maps") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "called anomalous" in line]
    whose, said = zip(*(line.split(": ", 1) for line in lines), strict=True)
    assert whose == (f"bolt in {alone.output}", str(exported))
    assert said[0] == said[1]
    assert "of 2 defective and " in said[0]
    assert "6 held-out good images" in said[0]


def test_nothing_is_written_of_an_exported_file(exported, alone, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in alone.output.rglob("*")}
    assert run_inference(exported) == 0
    assert list(rows_of(capsys)) == [""]  # a single one needs no name
    assert {path: path.stat().st_mtime_ns for path in alone.output.rglob("*")} == before
    assert not any(tmp_path.iterdir())


def test_files_of_one_category_are_told_apart_and_never_averaged(
    exported, product, tmp_path, capsys
):
    for place in ("detector_int8.onnx", "other/detector.onnx"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        shutil.copy(exported, tmp_path / place)
    files = [exported, tmp_path / "detector_int8.onnx", tmp_path / "other" / "detector.onnx"]
    assert run_inference(*files, "--folder_path", product) == 0
    names = [str(exported), "detector_int8.onnx", str(files[2])]
    assert list(rows_of(capsys)) == [f"file {name}" for name in names]


def test_a_file_elsewhere_is_measured_on_the_product_that_it_names(
    exported, product, tmp_path, capsys
):
    shutil.copy(exported, tmp_path / "a.onnx")
    assert run_inference(tmp_path / "a.onnx") == 2
    assert "--folder_path" in capsys.readouterr().err
    assert run_inference(tmp_path / "a.onnx", "--folder_path", product) == 0
    assert rows_of(capsys)[""]["category"] == "bolt"


@pytest.mark.parametrize(
    "said",
    [("", ""), ("folder", "../bolt"), ("folder", ".."), ("../folder", "bolt"), ("nuts", "b")],
)
def test_what_a_file_names_is_a_product_of_a_dataset_or_refused(said, tmp_path):
    said = dict(zip(("dataset", "category"), said, strict=True))
    options = argparse.Namespace(dataset=None, subdataset=None)
    with pytest.raises(InputError, match="names no product"):
        run_of(tmp_path / "a.onnx", said, options)
    options = argparse.Namespace(dataset="visa", subdataset="pcb1")
    assert run_of(tmp_path / "a.onnx", said, options).dataset == "visa"


def test_a_file_in_a_run_is_not_measured_on_another_product(exported, capsys):
    assert run_inference(exported, "--subdataset", "nut") == 2
    assert "it is of folder/bolt, and not of nut" in capsys.readouterr().err


def test_an_image_that_cannot_be_read_is_named_and_left_out(
    exported, alone, product, tmp_path, capsys
):
    shutil.copytree(product, tmp_path / "bolt")
    broken = tmp_path / "bolt" / "test" / "good" / "001.png"
    broken.write_bytes(broken.read_bytes()[:200])
    assert run_inference(exported, "--folder_path", tmp_path / "bolt") == 2
    shown = capsys.readouterr()
    assert shown.err.count(f"error: {exported}: cannot read the image {broken}") == 1
    assert len(json.loads(shown.out)) == 2


def test_a_file_that_is_damaged_does_not_stop_the_others(exported, tmp_path, capsys):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    assert run_inference(tmp_path / "bad.onnx", exported) == 2
    shown = capsys.readouterr()
    assert f"error: {tmp_path / 'bad.onnx'} is damaged" in shown.err
    assert len(json.loads(shown.out)) == 2


def test_an_interrupt_leaves_nothing_behind(exported, tmp_path, monkeypatch):
    def interrupted(*_):
        assert any(tmp_path.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ExportedPredictor, "scored", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_inference(exported)
    assert not any(tmp_path.iterdir())


def test_another_runtime_gives_the_same_table(exported, capsys):
    found = []
    for runtime in ("onnxruntime", "openvino"):
        assert run_inference(exported, "--runtime", runtime) == 0
        row = rows_of(capsys)[""]
        found.append([row[name] for name in COLUMNS])
    assert found[1] == pytest.approx(found[0], abs=1e-5)


def test_predict_runs_a_file_in_another_runtime(exported, product, tmp_path):
    found = []
    for runtime in ("onnxruntime", "openvino"):
        csv = tmp_path / f"{runtime}.csv"
        line = [exported, product / "test", "--csv", csv, "--runtime", runtime, *MACHINE]
        assert predict.main(parse(predict.get_parser(), [*map(str, line)])) == 0
        found.append(read_csv(csv))
    scores = [[float(row["score"]) for row in rows] for rows in found]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)
    assert scores[0] != scores[1]  # by the last digits


def test_what_a_runtime_cannot_is_told_in_one_line(exported, capsys, monkeypatch):
    assert run_inference(exported, "--precision", "bf16") == 2
    assert "is in fp32, not in bf16" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert run_inference(exported, "--runtime", "openvino") == 2
    assert "pip install -r requirements-openvino.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", [("--map", "position"), ("--by_expert",), ("--maps_dir", "maps"), ("--workers", "0")]
)
def test_options_of_runs_are_refused_beside_a_file(exported, more):
    with pytest.raises(InputError, match=more[0]):
        run_inference(exported, *more)


def test_a_runtime_is_of_exported_files(alone):
    with pytest.raises(InputError, match=r"--runtime is of exported files"):
        run_inference(alone.output, "--runtime", "openvino")
    with pytest.raises(InputError, match=r"--runtime openvino: .* is no exported file"):
        load_detector(alone.folder, "cpu", runtime="openvino")


def test_python_takes_the_file_where_it_takes_a_detector(exported, alone, product):
    paths = sorted((product / "test").rglob("*.png"))
    ours = load_detector(exported, false_alarm_rate=0.4)
    theirs = load_detector(alone.folder, "cpu", "fp32", false_alarm_rate=0.4)
    for one, other in zip(ours.predict(paths), theirs.predict(paths), strict=True):
        assert (one.path, one.verdict, one.threshold) == (
            other.path,
            other.verdict,
            other.threshold,
        )
        assert (one.p_value, one.region) == (other.p_value, other.region)
        assert one.score == pytest.approx(other.score, rel=1e-4)
    assert ours.false_alarm_rate == theirs.false_alarm_rate
    assert (ours.experts, ours.size, ours.bits) == (theirs.experts, theirs.size, theirs.bits)
    with pytest.raises(InputError, match=r"--ignore: .* has its region in it"):
        load_detector(exported, ignore="region.png")
    with pytest.raises(InputError, match=r"--device_gpu"):
        load_detector(exported, device_gpu=0)


def test_a_file_cannot_learn_nor_be_exported_again(exported):
    options = parse(calibrate.get_parser(), [str(exported), "--false_alarm_rate", "0.1"])
    with pytest.raises(InputError, match=r"is an exported file: name the run"):
        calibrate.main(options)
    with pytest.raises(InputError, match=r"is an exported file: name the run"):
        run_export(exported)
    with pytest.raises(InputError, match=r"is an exported file: name the run"):
        benchmark.main(parse(benchmark.get_parser(), ["predict", str(exported)]))


def test_a_folder_may_be_called_as_a_file(tmp_path):
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(InputError, match="holds no trained category"):
        run_inference(tmp_path / "a.onnx")

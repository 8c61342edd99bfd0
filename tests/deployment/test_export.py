"""export.py: one whole file that says what the detector says, or one line that says why not."""

import resource
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import export
import predict
from data.samples import InputError
from deployment.description import read_description
from deployment.runtimes import load_exported
from prediction import agreement
from prediction.predictor import load_detector
from tests.conftest import fill
from tests.deployment.conftest import run_export
from tests.prediction.conftest import MACHINE, rows_of
from utils.presets import parse
from utils.tensors import read_about, save_tensors

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")


@pytest.mark.slow
def test_all_experts_are_exported_and_agree(fused, product, capsys):
    capsys.readouterr()
    line = ["--format", "onnx", "torch", "--check", product / "test" / "good"]
    assert run_export(fused.folder, *line) == 0
    said = capsys.readouterr().out
    files = [fused.exports_folder / f"detector.{suffix}" for suffix in ("onnx", "pt2")]
    assert sorted(fused.exports_folder.iterdir()) == files
    for file, table in zip(files, said.split("file ")[1:], strict=True):
        assert str(file) in table
        assert "images            2" in table
        assert "other verdicts    0" in table


@pytest.mark.parametrize(("height", "width"), [(64, 64), (30, 200), (333, 41)])
def test_images_of_all_sizes_agree(exported, alone, height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ours = load_exported(exported).predict(image)
    theirs = load_detector(alone.folder, "cpu", "fp32").predict(image)
    assert ours.anomaly_map == pytest.approx(theirs.anomaly_map, rel=1e-4, abs=1e-3)
    assert ours.score == pytest.approx(theirs.score, rel=1e-4)
    assert ours.p_value == pytest.approx(theirs.p_value)
    assert ours.experts == pytest.approx(theirs.experts, rel=1e-4)


def test_a_runs_file_lies_in_the_output_and_a_lone_detectors_beside_it(alone, product, tmp_path):
    lone = tmp_path / "bolt.safetensors"
    shutil.copy(alone.detector_file, lone)
    images = [*map(str, sorted((product / "test" / "good").iterdir()))]
    for line, expected in (
        ([alone.folder], (alone.output / "exports" / "folder" / "bolt" / "detector.onnx", 0)),
        ([alone.folder, "--check"], (alone.exports_folder / "detector.onnx", 4)),
        ([lone, "--check", *images], (tmp_path / "detector.onnx", 2)),
        ([lone, "--out", "a", "--without_resize"], (Path("a/detector_without_resize.onnx"), 0)),
    ):
        plan = export.prepare(parse(export.get_parser(), [*map(str, line)]))
        assert (plan.files["onnx"], len(plan.images)) == expected


def test_the_file_is_valid_and_says_what_it_is(exported, alone):
    model = onnx.load(exported, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert texts["image"] == "uint8 (N, H, W, 3), RGB, any height and width"
    assert {output.name for output in model.graph.output} <= texts.keys()
    said, detector = read_description(texts), load_detector(alone.folder, "cpu", "fp32")
    assert said.threshold == detector.threshold
    assert said.good_scores == tuple(detector.detector.good_scores[0].tolist())
    assert (said.category, said.image_size, said.bits) == ("bolt", (64, 64), 16)
    content = exported.read_bytes()
    assert b"site-packages" not in content
    assert str(alone.output).encode() not in content


def test_predict_takes_the_file_where_it_takes_a_detector(exported, alone, product, tmp_path):
    rows = {}
    for name, source in {"file": exported, "run": alone.folder}.items():
        line = [source, product / "test", "--csv", tmp_path / f"{name}.csv", *MACHINE]
        line += ["--pictures", tmp_path / name, "--false_alarm_rate", "0.4"]
        assert predict.main(parse(predict.get_parser(), [*map(str, line)])) == 0
        rows[name] = rows_of(tmp_path / f"{name}.csv")
    assert len(rows["file"]) == 4
    for ours, theirs in zip(rows["file"], rows["run"], strict=True):
        assert ours.keys() == theirs.keys()
        for same in ("image", "verdict", "p_value", "threshold", "left", "bottom"):
            assert ours[same] == theirs[same]
        assert float(ours["position"]) == pytest.approx(float(theirs["position"]), rel=1e-3)
    assert len([*(tmp_path / "file").rglob("*.png")]) == 4


def test_an_unreadable_picture_does_not_stop_the_others(exported, product, tmp_path, capsys):
    fill(tmp_path / "new", 2)
    (tmp_path / "new" / "000.png").write_bytes(b"no image")
    line = [exported, tmp_path / "new", *MACHINE]
    assert predict.main(parse(predict.get_parser(), [*map(str, line)])) == 2
    assert "cannot read the image" in capsys.readouterr().err


def test_a_smaller_graph_takes_images_of_the_detectors_size(alone, tmp_path, exported):
    assert run_export(alone.folder, "--without_resize", "--out", tmp_path) == 0
    path = tmp_path / "detector_without_resize.onnx"
    small, whole = (onnx.load(file).graph for file in (path, exported))
    assert len(small.node) < len(whole.node) - 30
    sides = [size.dim_value for size in small.input[0].type.tensor_type.shape.dim]
    assert sides == [0, 64, 64, 3]  # 0: any number of images
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    ours, theirs = load_exported(path).predict(image), load_exported(exported).predict(image)
    assert ours.score == pytest.approx(theirs.score, rel=1e-3)
    assert ours.anomaly_map.shape == (90, 70)
    fixed = load_exported(path).run(np.zeros((3, 64, 64, 3), np.uint8))
    assert fixed["score"].shape == (3,)


def test_a_difference_above_the_goals_ends_with_1(alone, exported, monkeypatch, tmp_path, capsys):
    def write(graph, description, path, good):
        shutil.copy(exported, path)

    monkeypatch.setitem(export.FORMATS, "onnx", export.FORMATS["onnx"]._replace(write=write))
    assert run_export(alone.folder, "--check", "--out", tmp_path) == 0
    assert "images            4" in capsys.readouterr().out
    monkeypatch.setitem(agreement.GOALS, "fp32", agreement.Goals(1e-3, 0.0, 0))
    assert run_export(alone.folder, "--check", "--out", tmp_path) == 1


@pytest.mark.parametrize("field", ["score", "anomaly_map", "verdicts"])
def test_agreement_looks_at_scores_maps_and_verdicts(field):
    close, goals = agreement.Agreement(5, 0.0, 0.0, 0), agreement.GOALS["fp32"]
    assert close.is_close(goals)
    assert not close._replace(**{field: 1}).is_close(goals)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_lower_precisions_have_goals_of_their_own(precision):
    goals = agreement.GOALS[precision]
    assert agreement.Agreement(5, 0.1, 0.01, 1).is_close(goals)
    assert not agreement.Agreement(5, 0.6, 0.0, 0).is_close(goals)
    assert not agreement.Agreement(5, 0.0, 0.2, 0).is_close(goals)


def test_without_its_packages_one_line_says_what_to_install(alone, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match="requirements-onnx"):
        run_export(alone.folder, "--out", tmp_path)


def test_faults_are_told_before_anything_is_written(tmp_path, capsys):
    (tmp_path / "no.safetensors").write_bytes(b"no detector")
    with pytest.raises(InputError) as error:
        run_export(tmp_path, "--false_alarm_rate", "2")
    assert "--false_alarm_rate" in str(error.value)
    assert "holds no detector.safetensors" in str(error.value)
    with pytest.raises(InputError, match="damaged"):
        run_export(tmp_path / "no.safetensors")
    with pytest.raises(InputError, match="has no test images"):
        run_export(tmp_path / "no.safetensors", "--check")
    assert [*tmp_path.iterdir()] == [tmp_path / "no.safetensors"]


def test_a_detector_that_kept_no_good_scores_is_refused(alone, tmp_path):
    path = tmp_path / "old.safetensors"
    about = {k: v for k, v in read_about(alone.detector_file).items() if k != "false_alarm_rate"}
    state = load_detector(alone.folder, "cpu").scorer.detector.state_dict()
    rows = len(state["good_scores"])
    save_tensors(
        state | {"good_scores": state["good_scores"].new_empty(rows, 0)},
        path,
        about | {"good_images": 0},
    )
    with pytest.raises(InputError, match="earlier version"):
        run_export(path)
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_writing_that_fails(alone, monkeypatch, tmp_path, error):
    def save(_, path, external_data):
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr("torch.onnx.ONNXProgram.save", save)
    with pytest.raises(type(error)):
        run_export(alone.folder, "--out", tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_full_disk_leaves_the_file_before_whole(alone, tmp_path):
    former = tmp_path / "detector.pt2"
    former.write_bytes(b"former")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))  # bytes, less than a teacher
    try:
        with pytest.raises(OSError, match="File too large") as error:
            run_export(alone.folder, "--format", "torch", "--out", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(former)
    assert former.read_bytes() == b"former"
    assert [*tmp_path.iterdir()] == [former]


def test_a_format_that_fails_leaves_the_others_whole(
    alone, exported, monkeypatch, tmp_path, capsys
):
    def fail(*_, **__):
        raise RuntimeError("no function\nfor aten::sort")

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(InputError) as error:
        run_export(alone.folder, "--format", "onnx", "onnx", "torch", "--out", tmp_path)
    (said,) = error.value.args
    assert said.startswith(
        "--format onnx cannot express this detector (no function for aten::sort)"
    )
    assert [*tmp_path.iterdir()] == [tmp_path / "detector.pt2"]
    assert f"wrote {tmp_path / 'detector.pt2'}" in capsys.readouterr().err
    monkeypatch.setattr("torch.export.export", fail)
    with pytest.raises(InputError, match="--format torch cannot express"):
        run_export(alone.folder, "--format", "torch", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_unfinished_run_is_told(alone, tmp_path):
    folder = tmp_path / "trainings" / "folder" / "bolt"
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_bytes(b"")
    for source in (folder, tmp_path):
        with pytest.raises(InputError, match=r"bolt is not finished: go on with main\.py"):
            run_export(source)

"""benchmark.py deployment: what it compares, works out and leaves out, what it refuses."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

import benchmark
from benchmarks import deployment, machine, ways
from benchmarks.deployment import agreement, compared, evenly, link_good_images, taking_turns
from benchmarks.ways import Way, exported_ways, judged, run_script
from data.catalog import read_category
from data.samples import InputError
from deployment.formats import FORMATS
from deployment.runtimes import load_exported
from prediction.predictor import load_detector
from tests.conftest import REPOSITORY, make_mvtec_ad, picture
from tests.deployment.conftest import run_export
from utils.presets import parse

GIVEN = Namespace(threads=1, formats=["onnx"])


def run(*argv: object) -> None:
    benchmark.main(parse(benchmark.get_parser(), ["deployment", *map(str, argv)]))


@pytest.fixture(scope="module")
def exported(alone) -> Path:
    assert run_export(alone.folder) == 0
    return alone.exports_folder / "detector.onnx"


def test_a_ratio_is_of_neighbouring_blocks():
    """A machine that slows down for all meanwhile leaves it as it is."""
    seconds = {"torch bf16": [0.2, 2.0, 0.4], "published fp32": [0.5, 5.0, 1.0]}
    row = compared(seconds | {"a": [0.1, 1.0, 0.2]}, "a")
    assert (row["seconds_per_image"], row["seconds_per_image_max"]) == (0.2, 1.0)
    assert row["times_torch_bf16_min"] == row["times_torch_bf16_max"] == pytest.approx(2)
    assert row["times_published_min"] == row["times_published_max"] == pytest.approx(5)


def test_a_share_is_of_the_operations_that_the_machine_could_do_meanwhile():
    row = deployment.share(30 * 10**9, {"seconds_per_image": 0.2}, most=6e11)
    assert row["share_of_matmul"] == pytest.approx(0.25)


def test_agreement_is_in_deviations_of_good_scores_and_of_the_pictures_that_were_scored():
    reference = {0: (1.0, False), 1: (2.0, False), 2: (3.0, True), 3: (4.0, True)}
    found = {1: (3.25, True), 0: (1.5, False), 2: (2.5, True), 3: (4.0, True)}
    row = agreement(found, reference, [0, 0, 1, 1], deviation=0.5)
    assert row["score_differs_by"] == 2.5
    assert row["other_verdicts"] == 1
    assert (row["auroc"], row["auroc_differs_by"]) == (0.75, -0.25)  # of 4 pairs, 1 is wrong
    row = agreement({0: (1.0, False)}, {0: (1.0, False)}, [0], 1.0)
    assert (row["auroc"], row["auroc_differs_by"]) == (None, None)


def test_blocks_go_through_the_pictures_in_turn():
    scored, found = [], {}
    step = taking_turns(Way(lambda one: scored.append(one) or (one, False), "fp32"), "abc", found)
    for _ in range(5):
        step()
    assert "".join(scored) == "abcab"
    assert found == {0: ("a", False), 1: ("b", False), 2: ("c", False)}


def test_a_detector_learns_from_some_of_the_good_images_evenly_chosen(tmp_path):
    assert evenly([*range(10)], 4) == [0, 2, 5, 7]
    assert evenly([*range(3)], 4) == [0, 1, 2]
    make_mvtec_ad(tmp_path / "ad", "bottle")
    category = read_category("mvtec_ad", tmp_path / "ad", "bottle", seed=0)
    link_good_images(category, tmp_path / "product", count=2)
    linked = read_category("folder", tmp_path / "product", None, seed=0)
    for split in ("train", "validation"):
        ours, theirs = getattr(linked, split), getattr(category, split)
        originals = [sample.image.resolve() for sample in ours]
        assert originals == [sample.image.resolve() for sample in evenly(theirs, 2)]


def test_what_cannot_be_written_or_run_here_is_left_out_with_a_line(
    alone, exported, monkeypatch, capsys
):
    def export(run, kind, how, options) -> Path:
        if "int8" in how or "--small" in how:
            raise InputError(f"no {how[-1]} here")
        return exported

    def load(file, runtime, device, precision, threads, trusted):
        if (runtime, precision) == ("openvino", "bf16"):
            raise InputError("no bf16 here")
        return load_exported(file, "onnxruntime")

    monkeypatch.setattr(ways, "export", export)
    monkeypatch.setattr(ways, "load_exported", load)
    monkeypatch.setitem(ways.MORE, "onnx", (("--small",),))
    monkeypatch.setitem(FORMATS, "onnx", FORMATS["onnx"]._replace(precisions=("fp32", "int8")))
    found = dict(exported_ways(alone, GIVEN))
    assert [*found] == ["onnx in onnxruntime fp32", "onnx in openvino fp32"]
    seen = picture(np.random.default_rng(5), stain=True)
    score, anomalous = found["onnx in onnxruntime fp32"].score(seen)
    theirs = load_exported(exported).predict(seen)
    assert (score, anomalous) == (theirs.score, theirs.anomalous)
    assert capsys.readouterr().err.splitlines() == [
        "left out: onnx in openvino bf16: no bf16 here",
        "left out: onnx small fp32: no --small here",
        "left out: onnx int8: no int8 here",
        "left out: onnx small int8: no --small here",
    ]


def test_a_script_that_fails_says_why():
    with pytest.raises(InputError, match=r"^--folder_path"):
        run_script(GIVEN, "main.py", "--dataset=folder", "--check")


def test_a_fresh_process_imports_what_an_exported_file_needs_and_nothing_else(
    exported, tmp_path, run_command
):
    path = tmp_path / "a.png"
    picture(np.random.default_rng(5), stain=True).save(path)
    code = "import sys; sys.modules['torch'] = None; from benchmarks.first_result import main; "
    given = f"main({str(exported)!r}, {str(path)!r}, 'onnxruntime', 'fp32', '1')"
    done = run_command(["-c", code + given], REPOSITORY)
    assert done.returncode == 0, done.stderr
    score, peak = map(float, done.stdout.split())
    assert score == pytest.approx(load_exported(exported).predict(path).score)
    assert 50 * 2**20 < peak < 400 * 2**20
    way = Way(None, "fp32", exported, "onnxruntime", "fp32")
    seconds, peak = deployment.first_result(way, path, GIVEN)
    assert 0 < seconds < 60
    assert 50 * 2**20 < peak < 400 * 2**20
    with pytest.raises(RuntimeError, match="gave no result"):
        deployment.first_result(way, tmp_path / "nowhere.png", GIVEN)


def test_the_operations_of_a_picture_are_those_worked_out_by_hand(alone):
    """Of 64 x 64 pixels the small teacher makes 8 x 8 places; source: EfficientAD, table 6."""
    predictor = load_detector(alone.folder, "cpu", "fp32")
    assert predictor.size == (64, 64)
    way = Way(judged(predictor), "fp32")
    teacher = 61**2 * 3 * 128 * 4**2 + 27**2 * 128 * 256 * 4**2
    teacher += 11**2 * 256 * 256 * 3**2 + 8**2 * 256 * 384 * 4**2
    own = predictor.detector.statistics["position"].own  # covariances, or one of all 384 channels
    position = 8**2 * (384 * 64 + 64 * 64 if own else 384 * 384)
    composition = 768 * 768 + 8**2 * 768  # means and deviations: the image's, what each place adds
    expected = 2 * (teacher + position + composition)
    assert deployment.operations(way, picture(np.random.default_rng(0), stain=False)) == expected


def test_openvinos_product_for_the_rate_is_one_of_bytes(monkeypatch):
    pytest.importorskip("openvino")
    weights = np.random.default_rng(0).integers(-128, 128, (64, 64)).astype(np.int8)
    (found,) = machine.openvino_product(weights, 1)().values()
    exact = weights.view(np.uint8).astype(float) @ (0.01 * weights.T.astype(float))
    level = 2e4 / 255  # between two of 256 levels
    assert np.abs(found - exact).max() < 0.51 * level
    monkeypatch.setitem(machine.MATRIX_SIDES, "cpu", 64)
    monkeypatch.setattr(
        machine, "time_blocks", lambda way, *_: {"torch": [1], "openvino": [0.5, 0.25]}
    )
    assert machine.int8_rate(1) == 2 * 64**3 / 0.25


@pytest.mark.slow
def test_every_way_to_score_has_its_row(tmp_path, capsys):
    make_mvtec_ad(tmp_path / "ad", "bottle")
    line = ["--dataset", "mvtec_ad", "--mvtec_ad_path", tmp_path / "ad", "--threads", 1]
    line += ["--model_size", "small", "--detectors", "statistics", "--formats", "onnx"]
    line += ["--image_size", 64, "--warm_up", 0, "--repeats", 3, "--starts", 1]
    threads = torch.get_num_threads()
    run(*line, "--json")
    torch.set_num_threads(threads)
    result = json.loads(capsys.readouterr().out)
    rows = {row["what"]: row for row in result["rows"]}
    assert [*rows][:4] == ["torch fp32", "torch bf16", "published fp32", "onnx in onnxruntime fp32"]
    for row in rows.values():
        assert (row["model_size"], row["experts"]) == ("small", "statistics")
        assert row["seconds_per_image_min"] <= row["seconds_per_image"]
        assert 0 < row["share_of_matmul"] < 2
    assert rows["torch bf16"]["times_torch_bf16"] == rows["published fp32"]["times_published"] == 1
    assert rows["onnx in onnxruntime fp32"]["score_differs_by"] < 1e-3
    assert rows["torch fp32"]["peak_memory_bytes"] > rows["onnx in onnxruntime fp32"]["file_bytes"]
    assert result["settings"]["images"] == 6
    assert result["settings"]["map_size"] == [80, 96]
    assert "torch" in result["machine"]
    benchmark.COMMANDS["deployment"].show(result)
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "small, statistics"
    assert [line.split("  ")[0].strip() for line in printed if "torch bf16 " in line]


def test_senseless_numbers_are_named_together():
    zero = ("--repeats", "--steps", "--starts", "--threads", "--good_images")
    with pytest.raises(InputError, match=r"--good_images.*--steps.*--warm_up.*--image_size"):
        run(*(part for name in zero for part in (name, 0)), "--warm_up", -1, "--image_size", 9)

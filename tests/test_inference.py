"""inference.py: every run, tables, seeds, maps of other people, failures."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from sklearn.metrics import roc_auc_score

import inference
from data.samples import InputError
from models.pdn import pdn_small
from tests.conftest import REPOSITORY, SIZE, fill, make_mvtec_ad, make_product
from tests.running_main import run_main
from utils.devices import processor_name, supports
from utils.presets import parse
from utils.runs import Run

TINY = ["--train_steps", "2", "--image_size", "64", "--workers", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Two datasets and a trained output folder for each of two seeds."""
    world = tmp_path_factory.mktemp("world")
    make_product(world / "bolt")
    make_mvtec_ad(world / "ad", "bottle")
    torch.manual_seed(0)
    torch.save(pdn_small().state_dict(), world / "teacher.pth")
    for seed in ("0", "1"):
        common = ["--weights", f"{world}/teacher.pth", *TINY, "--seed", seed]
        common += ["--output_dir", f"{world}/output{seed}"]
        run_main("--dataset", "folder", "--folder_path", f"{world}/bolt", *common)
        ad = ["--dataset", "mvtec_ad", "--mvtec_ad_path", f"{world}/ad", "--subdataset", "bottle"]
        run_main(*ad, *common)
    return world


def run_inference(*argv: str) -> int:
    return inference.main(parse(inference.get_parser(), [*map(str, argv), "--device", "cpu"]))


def test_it_scores_every_run_and_gets_the_numbers_that_training_got(world, capsys):
    run = Run(world / "output0", "folder", "bolt")
    before = json.loads(run.metrics_file.read_text())
    run.metrics_file.unlink()
    shutil.rmtree(run.maps_folder)
    assert run_inference(world / "output0") == 0
    after = json.loads(run.metrics_file.read_text())
    assert after["classification_au_roc"] == before["classification_au_roc"]
    assert after["au_pro"] == before["au_pro"]
    assert after["glae"]["seconds"]["training"] == before["glae"]["seconds"]["training"]
    assert len(list(run.maps_folder.rglob("*.tiff"))) == 4
    shown = capsys.readouterr().out
    assert "bolt" in shown
    assert "bottle" in shown
    assert "mean" not in shown  # of one category each


@pytest.mark.parametrize(
    ("trained", "asked", "used"),
    [
        ("fp32", "auto", "fp32"),
        ("fp32", "bf16", "bf16"),
        ("bf16", "fp32", "fp32"),
        ("bf16", "auto", "bf16" if supports("bf16", torch.device("cpu")) else "fp32"),
        ("fp16", "auto", "bf16" if supports("bf16", torch.device("cpu")) else "fp32"),
    ],
)
def test_a_detector_is_scored_as_it_was_trained_unless_asked_otherwise(
    world, tmp_path, trained, asked, used
):
    shutil.copytree(world / "output0", tmp_path / "output")
    run = Run(tmp_path / "output", "mvtec_ad", "bottle")
    detector, size, _ = run.load_detector(torch.device("cpu"))
    run.save_detector(detector, "glae", "small", size, trained)
    only = ["--dataset", "mvtec_ad", "--no_maps", "--precision", asked]
    assert run_inference(tmp_path / "output", *only) == 0
    found = json.loads(run.metrics_file.read_text())["glae"]
    assert (found["precision"], found["device"]) == (used, processor_name())


def test_the_batch_size_of_scoring_does_not_change_the_numbers(world, tmp_path):
    shutil.copytree(world / "output0", tmp_path / "output")
    run, found = Run(tmp_path / "output", "mvtec_ad", "bottle"), []
    for size in (1, 4):
        argv = ["--dataset", "mvtec_ad", "--scoring_batch_size", size, "--precision", "fp32"]
        assert run_inference(tmp_path / "output", *argv) == 0
        maps = sorted(run.maps_folder.rglob("*.tiff"))
        found.append(np.stack([tifffile.imread(path) for path in maps]))
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-4)


def test_several_folders_give_mean_and_sample_deviation(world, capsys):
    run_inference(world / "output0", world / "output1", "--format", "csv", "--no_maps")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    row = next(row for row in rows if row["category"] == "bottle")
    files = [Run(world / f"output{i}", "mvtec_ad", "bottle").metrics_file for i in (0, 1)]
    values = [json.loads(file.read_text())["au_pro"] for file in files]
    assert float(row["AU-PRO 0.3"]) == pytest.approx(sum(values) / 2)
    assert float(row["AU-PRO 0.3 std"]) == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    run_inference(world / "output0", world / "output1", "--no_maps")
    assert "±" in capsys.readouterr().out


def test_dataset_and_subdataset_select_runs(world, capsys):
    run_inference(world / "output0", "--dataset", "mvtec_ad", "--no_maps")
    shown = capsys.readouterr().out
    assert "bottle" in shown
    assert "bolt" not in shown
    with pytest.raises(InputError, match="--subdataset"):
        run_inference(world / "output0", "--subdataset", "cable")


def test_results_alone_go_to_stdout(world, run_command):
    line = [REPOSITORY / "inference.py", world / "output0", "--format", "json", "--device", "cpu"]
    done = run_command(line, cwd=world)
    assert done.returncode == 0
    assert {row["category"] for row in json.loads(done.stdout)} == {"bolt", "bottle", "mean"}
    assert "Traceback" not in done.stderr


def test_a_run_whose_images_are_gone_does_not_stop_the_others(world, tmp_path, capsys):
    shutil.copytree(world / "output0", tmp_path / "output")
    config = Run(tmp_path / "output", "folder", "bolt").config_file
    config.write_text(config.read_text().replace(str(world / "bolt"), "gone"))
    assert run_inference(tmp_path / "output") == 2
    shown = capsys.readouterr()
    assert "bottle" in shown.out
    assert "bolt" not in shown.out
    assert "gone" in shown.err
    again = ["--folder_path", world / "bolt", "--dataset", "folder"]
    assert run_inference(tmp_path / "output", *again) == 0  # the dataset has moved


def test_a_category_without_test_images_is_no_error(world, tmp_path, capsys):
    fill(tmp_path / "nut" / "train" / "good", 4)
    own = ["--folder_path", str(tmp_path / "nut"), "--output_dir", str(tmp_path / "output")]
    run_main("--dataset", "folder", *own, "--weights", f"{world}/teacher.pth", *TINY)
    capsys.readouterr()
    assert run_inference(tmp_path / "output") == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "folder/nut has no test images" in shown.err


def test_an_unfinished_run_is_named_with_the_mend(world, tmp_path, capsys):
    shutil.copytree(world / "output0", tmp_path / "output")
    Run(tmp_path / "output", "folder", "bolt").detector_file.unlink()
    assert run_inference(tmp_path / "output", "--no_maps") == 2
    assert "--resume" in capsys.readouterr().err


def test_no_run_at_all_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="holds no trained category"):
        run_inference(tmp_path)


def test_maps_made_elsewhere_are_measured_without_any_run_and_nothing_is_written(
    world, tmp_path, capsys
):
    scores = {"good": [0.1, 0.5, 0.3], "stain": [0.4, 0.6, 0.9]}
    rng = np.random.default_rng(0)
    for defect, values in scores.items():
        folder = tmp_path / "maps" / "bottle" / "test" / defect
        folder.mkdir(parents=True)
        for index, value in enumerate(values):
            noise = rng.uniform(0, value, SIZE[::-1]).astype(np.float32)
            noise[0, 0] = value
            tifffile.imwrite(folder / f"{index:03}.tiff", noise)
    own = ["--dataset", "mvtec_ad", "--mvtec_ad_path", world / "ad", "--format", "json"]
    assert run_inference(tmp_path / "none", "--maps_dir", tmp_path / "maps", *own) == 0
    row = json.loads(capsys.readouterr().out)[0]
    expected = roc_auc_score([0] * 3 + [1] * 3, scores["good"] + scores["stain"])
    assert row["AUROC"] == pytest.approx(expected)
    assert not (tmp_path / "none").exists()


def test_our_own_maps_measured_from_disk_give_our_own_numbers(world, capsys):
    maps = world / "output0" / "anomaly_maps"
    run_inference(world / "output0", "--format", "json", "--no_maps")
    direct = json.loads(capsys.readouterr().out)
    run_inference(world / "output0", "--format", "json", "--maps_dir", maps)
    assert json.loads(capsys.readouterr().out) == direct

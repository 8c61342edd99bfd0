"""main.py as a user meets it: outputs, refusals in one line, interruption, repetition."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import main
from data.images import load_image
from data.samples import InputError
from tests.conftest import REPOSITORY, SIZE, make_mvtec_ad, make_mvtec_loco
from tests.running_main import TINY, arguments, run_main
from utils.runs import Run, find_runs
from utils.teachers import load_teacher, shipped_teacher


def test_a_run_writes_everything_that_the_design_lists(product, teacher, tmp_path, capsys):
    run_main(*arguments(product, teacher, tmp_path))
    run = Run(tmp_path, "folder", "bolt")
    files = {path.name for path in run.folder.iterdir()}
    assert {"detector.safetensors", "config.yaml", "checkpoint.safetensors", "losses.csv"} <= files
    maps = sorted(path.relative_to(run.maps_folder) for path in run.maps_folder.rglob("*.tiff"))
    assert [str(path) for path in maps] == [
        f"test/{defect}/{stem}.tiff" for defect in ("good", "stain") for stem in ("000", "001")
    ]
    one = tifffile.imread(run.maps_folder / maps[0])
    assert one.dtype == np.float32
    assert one.shape == SIZE[::-1]
    metrics = json.loads(run.metrics_file.read_text())
    assert metrics["glae"]["counts"] == {"train": 5, "validation": 1, "test": 4}
    assert metrics["glae"]["seconds"]["training"] > 0
    assert metrics["classification_au_roc"] == metrics["glae"]["auroc_pooled"]
    assert (tmp_path / "results.csv").read_text().count("\n") == 3
    shown = capsys.readouterr()
    assert "bolt" in shown.out
    assert "penalty" in shown.err  # one line says what going without costs
    assert "bolt" not in shown.err.split("penalty")[0]
    assert "good test images are called anomalous" in shown.err


def test_the_runs_config_repeats_it_bit_for_bit(product, teacher, tmp_path):
    run_main(*arguments(product, teacher, tmp_path / "first"))
    config = Run(tmp_path / "first", "folder", "bolt").config_file
    run_main("--config", str(config), "--output_dir", str(tmp_path / "second"))
    runs = [Run(tmp_path / name, "folder", "bolt") for name in ("first", "second")]
    first, second = (run.detector_file.read_bytes() for run in runs)
    assert first == second
    names = [path.relative_to(runs[0].maps_folder) for path in runs[0].maps_folder.rglob("*.tiff")]
    for name in names:
        maps = [(run.maps_folder / name).read_bytes() for run in runs]
        assert maps[0] == maps[1]


def test_training_and_calibration_never_open_a_test_image(product, teacher, tmp_path, monkeypatch):
    opened, trained, real_open, real_train = [], [], Image.open, main.train

    def train(prepared, options):
        trained.append(prepared.images)
        with monkeypatch.context() as patch:
            patch.setattr(Image, "open", lambda p, *a, **k: opened.append(p) or real_open(p))
            real_train(prepared, options)

    monkeypatch.setattr(main, "train", train)
    run_main(*arguments(product, teacher, tmp_path))
    paths = sorted((product / "train" / "good").iterdir())
    known = [load_image(path, tuple(trained[0].shape[2:]))[0] for path in paths]
    assert len(trained[0]) == 5
    assert all(any(torch.equal(image, one) for one in known) for image in trained[0])
    assert len(opened) == 1
    assert not [path for path in opened if "test" in Path(path).relative_to(product).parts]


def test_a_product_without_test_images_is_trained_and_calibrated(tmp_path, teacher, capsys):
    from tests.conftest import fill

    fill(tmp_path / "nut" / "train" / "good", 4)
    run_main(*arguments(tmp_path / "nut", teacher, tmp_path / "out"))
    run = Run(tmp_path / "out", "folder", "nut")
    assert load_file(run.detector_file)["threshold"].isfinite()
    assert not run.metrics_file.exists()
    assert "no test images" in capsys.readouterr().out


def test_loco_without_structural_anomalies_has_null_for_them(tmp_path, teacher):
    make_mvtec_loco(tmp_path / "loco", "kit", logical=False)
    own = ["--mvtec_loco_path", str(tmp_path / "loco"), "--weights", str(teacher), *TINY]
    run_main(*own, "--subdataset", "kit", "--output_dir", str(tmp_path / "out"))
    metrics = json.loads(Run(tmp_path / "out", "mvtec_loco", "kit").metrics_file.read_text())
    auroc = metrics["classification"]["auc_roc"]
    assert auroc["logical_anomalies"] is None
    assert auroc["mean"] is None
    assert auroc["structural_anomalies"] == metrics["glae"]["auroc_pooled"]


def test_a_second_run_is_refused_before_it_loses_anything(product, teacher, tmp_path):
    line = arguments(product, teacher, tmp_path)
    run_main(*line)
    before = Run(tmp_path, "folder", "bolt").detector_file.read_bytes()
    with pytest.raises(InputError, match=r"--resume.*--overwrite"):
        run_main(*line)
    assert Run(tmp_path, "folder", "bolt").detector_file.read_bytes() == before
    run_main(*line, "--resume")  # only evaluates again
    assert Run(tmp_path, "folder", "bolt").detector_file.read_bytes() == before
    run_main(*line, "--overwrite", "--seed", "1")
    assert Run(tmp_path, "folder", "bolt").detector_file.read_bytes() != before


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_overwriting_keeps_the_former_run_until_the_new_one_is_trained(
    product, teacher, tmp_path, monkeypatch
):
    line = arguments(product, teacher, tmp_path)
    run_main(*line)
    run = Run(tmp_path, "folder", "bolt")
    former = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(main, "calibrate", interrupted)
        run_main(*line, "--overwrite", "--seed", "1")
    assert all(path.read_bytes() == content for path, content in former.items())
    assert [found.subdataset for found in find_runs(tmp_path)] == ["bolt"]
    with pytest.raises(InputError, match="seed was 1"):  # it is the new one that goes on
        run_main(*line, "--resume")
    run_main(*line, "--resume", "--seed", "1")
    assert run.read_config()["seed"] == 1
    assert run.detector_file.read_bytes() != former[run.detector_file]
    assert json.loads(run.metrics_file.read_text())["glae"]["seed"] == 1
    assert sorted(path.name for path in run.folder.parent.iterdir()) == ["bolt"]


@pytest.mark.parametrize("moved", range(7))
def test_a_takeover_that_is_cut_off_anywhere_is_made_good(
    product, teacher, tmp_path, monkeypatch, moved
):
    line = arguments(product, teacher, tmp_path)
    run_main(*line)
    moves, move = [], os.replace

    def cut_off(source, target):
        if ".bolt.new" in Path(source).parts and ".bolt.new" not in Path(target).parts:
            moves.append(target)
            if len(moves) > moved:
                raise KeyboardInterrupt
        move(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", cut_off)
        run_main(*line, "--overwrite", "--seed", "1")
    assert len(moves) == moved + 1
    run_main(*line, "--resume", "--seed", "1")
    run = Run(tmp_path, "folder", "bolt")
    run_main(*line, "--output_dir", str(tmp_path / "other"), "--seed", "1")
    expected = Run(tmp_path / "other", "folder", "bolt")
    assert run.detector_file.read_bytes() == expected.detector_file.read_bytes()
    assert run.losses_file.read_text() == expected.losses_file.read_text()
    assert run.metrics_file.exists()


def test_resuming_with_other_options_names_each_of_them(product, teacher, tmp_path):
    run_main(*arguments(product, teacher, tmp_path))
    with pytest.raises(InputError, match=r"seed was 0.*, not 4"):
        run_main(*arguments(product, teacher, tmp_path, "--resume", "--seed", "4"))


def test_a_folder_that_merely_exists_stops_nobody(product, teacher, tmp_path):
    Run(tmp_path, "folder", "bolt").folder.mkdir(parents=True)
    run_main(*arguments(product, teacher, tmp_path))


@pytest.mark.parametrize(
    ("more", "size"),
    [
        ([], "medium"),
        (["--model_size", "small"], "small"),
        (["--weights", "small"], "small"),
        (["--weights", "medium", "--model_size", "medium"], "medium"),
    ],
)
def test_a_teacher_that_ships_goes_by_its_size(product, tmp_path, more, size):
    own = ["--dataset", "folder", "--folder_path", str(product), "--output_dir", str(tmp_path)]
    run_main(*own, *TINY, *more)
    run = Run(tmp_path, "folder", "bolt")
    config = yaml.safe_load(run.config_file.read_text())
    assert config["weights"] == config["model_size"] == size  # no path of this machine
    detector, _, _ = run.load_detector(torch.device("cpu"))
    shipped, _ = load_teacher(shipped_teacher(size))
    assert torch.equal(next(detector.teacher.parameters()), next(shipped.parameters()))


def test_starting_loads_neither_torchvision_nor_scikit_learn_nor_what_draws_pages(run_command):
    """The first two take longer than torch, and a wrong option should be told at once."""
    code = (
        "import sys, main, inference; "
        "sys.exit(len({'torchvision', 'sklearn', 'jinja2', 'plotly'} & set(sys.modules)))"
    )
    assert run_command(["-c", code], cwd=REPOSITORY).returncode == 0


def test_the_teachers_size_decides_the_models(product, teacher, tmp_path):
    run_main(*arguments(product, teacher, tmp_path))
    config = yaml.safe_load(Run(tmp_path, "folder", "bolt").config_file.read_text())
    assert config["model_size"] == "small"
    with pytest.raises(InputError, match="--model_size small"):
        run_main(*arguments(product, teacher, tmp_path / "b", "--model_size", "medium"))


def test_mvtec_ad_and_a_rectangular_image_size_work_with_efficientad(teacher, tmp_path):
    make_mvtec_ad(tmp_path / "ad", "bottle")
    own = ["--dataset", "mvtec_ad", "--mvtec_ad_path", str(tmp_path / "ad"), "--weights"]
    more = ["--subdataset", "bottle", "--model", "efficientad", "--image_size", "48", "72"]
    run_main(*own, str(teacher), *TINY, *more, "--output_dir", str(tmp_path / "out"))
    metrics = json.loads(Run(tmp_path / "out", "mvtec_ad", "bottle").metrics_file.read_text())
    assert 0 <= metrics["au_pro"] <= 1


def test_what_the_missing_penalty_costs_is_told_once_when_training_begins(
    product, teacher, tmp_path, capsys
):
    line = arguments(product, teacher, tmp_path)
    notes = []
    for more in (["--check"], [], ["--resume"], ["--overwrite"]):
        run_main(*line, *more)
        notes.append(capsys.readouterr().err.count("without the penalty"))
    assert notes == [0, 1, 0, 1]

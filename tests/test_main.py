"""main.py as a user meets it: outputs, refusals in one line, interruption, repetition."""

import json
import os
import signal
import subprocess
import sys
import time
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
from models.pdn import pdn_small
from tests.conftest import REPOSITORY, SIZE, make_mvtec_ad, make_mvtec_loco, make_product
from utils.presets import parse
from utils.runs import Run, find_runs
from utils.teachers import load_teacher, shipped_teacher

TINY = ["--train_steps", "3", "--image_size", "64", "--workers", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A small teacher of random weights, in a published layout."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    torch.manual_seed(0)
    torch.save(pdn_small().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def product(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "bolt"
    make_product(root)
    return root


def arguments(product: Path, teacher: Path, output: Path, *more: str) -> list[str]:
    own = ["--dataset", "folder", "--folder_path", str(product), "--weights", str(teacher)]
    return [*own, "--output_dir", str(output), *TINY, *more]


def run_main(*argv: str) -> None:
    main.main(parse(main.get_parser(), list(argv)))


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


def test_starting_loads_neither_torchvision_nor_scikit_learn(run_command):
    """Together they take longer than torch, and a wrong option should be told at once."""
    code = (
        "import sys, main, inference; sys.exit(len({'torchvision', 'sklearn'} & set(sys.modules)))"
    )
    assert run_command(["-c", code], cwd=REPOSITORY).returncode == 0


def test_the_teachers_size_decides_the_models(product, teacher, tmp_path):
    run_main(*arguments(product, teacher, tmp_path))
    config = yaml.safe_load(Run(tmp_path, "folder", "bolt").config_file.read_text())
    assert config["model_size"] == "small"
    with pytest.raises(InputError, match="--model_size small"):
        run_main(*arguments(product, teacher, tmp_path / "b", "--model_size", "medium"))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--folder_path", "nowhere"], "nowhere"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--imagenet_train_path", "nowhere"], "--imagenet_train_path"),
        (["--image_size", "32"], "61"),
        (["--model", "efficientad", "--image_size", "32"], "33"),
        (["--train_steps", "none"], "--train_steps"),
        (["--colour", "red"], "--colour"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_input_is_one_line_that_names_it_and_exit_code_2(
    product, teacher, tmp_path, run_command, more, named
):
    line = arguments(product, teacher, tmp_path / "out", *more)
    done = run_command([REPOSITORY / "main.py", *line], cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    errors = [text for text in done.stderr.replace("\r", "\n").splitlines() if "error" in text]
    assert len(errors) == 1
    assert named in errors[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["train/good/002.png", "test/good/001.png", "test/stain/000.png"])
def test_a_truncated_image_is_named_before_any_step(teacher, tmp_path, place):
    make_product(tmp_path / "nut")
    victim = tmp_path / "nut" / place
    victim.write_bytes(victim.read_bytes()[:500])
    with pytest.raises(InputError) as caught:
        run_main(*arguments(tmp_path / "nut", teacher, tmp_path / "out"))
    assert str(victim) in str(caught.value)
    assert not Run(tmp_path / "out", "folder", "nut").losses_file.exists()


def test_a_truncated_validation_image_is_named_before_any_step(teacher, tmp_path):
    make_mvtec_loco(tmp_path, "juice")
    victim = tmp_path / "juice" / "validation" / "good" / "001.png"
    victim.write_bytes(victim.read_bytes()[:500])
    own = ["--mvtec_loco_path", str(tmp_path), "--subdataset", "juice", "--weights", str(teacher)]
    with pytest.raises(InputError, match=r"validation.*001\.png"):
        run_main(*own, "--output_dir", str(tmp_path / "out"), *TINY)
    assert not Run(tmp_path / "out", "mvtec_loco", "juice").losses_file.exists()


def test_a_mask_of_another_size_is_named_before_any_step(teacher, tmp_path):
    make_product(tmp_path / "nut")
    Image.new("L", (10, 10), 255).save(tmp_path / "nut" / "ground_truth" / "stain" / "001.png")
    with pytest.raises(InputError, match=r"001\.png.*10 x 10.*96 x 80"):
        run_main(*arguments(tmp_path / "nut", teacher, tmp_path / "out"))
    assert not Run(tmp_path / "out", "folder", "nut").losses_file.exists()


def test_an_image_that_breaks_after_training_leaves_the_training(teacher, tmp_path, monkeypatch):
    make_product(tmp_path / "nut")
    victim = tmp_path / "nut" / "test" / "stain" / "001.png"
    whole, train = victim.read_bytes(), main.train
    line = arguments(tmp_path / "nut", teacher, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(main, "train", lambda *a: (train(*a), victim.write_bytes(whole[:500])))
        with pytest.raises(InputError, match=r"001\.png"):
            run_main(*line)
    run = Run(tmp_path / "out", "folder", "nut")
    trained = run.detector_file.read_bytes()
    victim.write_bytes(whole)
    run_main(*line, "--resume")
    assert run.detector_file.read_bytes() == trained
    assert run.metrics_file.exists()


def start(line: list[str]) -> subprocess.Popen:
    """Start main.py and wait until it trains."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, REPOSITORY / "main.py", *line],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    output = Path(line[line.index("--output_dir") + 1])
    losses = Run(output, "folder", "bolt").losses_file
    deadline = time.monotonic() + 120
    while not (losses.exists() and losses.read_text().count("\n") > 5):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.slow
def test_an_interrupted_run_exits_130_says_how_to_go_on_and_does(
    product, teacher, tmp_path, run_command
):
    """As tests/faults do, but as a user's shell does it."""
    line = arguments(product, teacher, tmp_path, "--train_steps", "60")
    process = start(line)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in errors
    assert "Traceback" not in errors
    # Processes of their own, like the first: the number of threads changes the last bits.
    whole = arguments(product, teacher, tmp_path / "whole", "--train_steps", "60")
    for rest in ([*line, "--resume"], whole):
        assert run_command([REPOSITORY / "main.py", *rest], cwd=tmp_path).returncode == 0
    files = [Run(root, "folder", "bolt").detector_file for root in (tmp_path, tmp_path / "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_output_folder_that_cannot_be_is_named(product, teacher, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--output_dir .*file is no folder"):
        run_main(*arguments(product, teacher, tmp_path / "file"))


def test_a_full_disk_is_one_line_and_keeps_what_was_there(product, teacher, tmp_path, monkeypatch):
    run_main(*arguments(product, teacher, tmp_path))
    run = Run(tmp_path, "folder", "bolt")
    before = run.metrics_file.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("evaluation.evaluation.tifffile.imwrite", full)
    with pytest.raises(OSError, match="No space"):
        run_main(*arguments(product, teacher, tmp_path, "--resume"))
    assert run.metrics_file.read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))


def test_mvtec_ad_and_a_rectangular_image_size_work_with_efficientad(teacher, tmp_path):
    make_mvtec_ad(tmp_path / "ad", "bottle")
    own = ["--dataset", "mvtec_ad", "--mvtec_ad_path", str(tmp_path / "ad"), "--weights"]
    more = ["--subdataset", "bottle", "--model", "efficientad", "--image_size", "48", "72"]
    run_main(*own, str(teacher), *TINY, *more, "--output_dir", str(tmp_path / "out"))
    metrics = json.loads(Run(tmp_path / "out", "mvtec_ad", "bottle").metrics_file.read_text())
    assert 0 <= metrics["au_pro"] <= 1

"""main.py when something is wrong: one line for bad input, interruption, a full disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import main
from data.samples import InputError
from tests.conftest import REPOSITORY, make_mvtec_loco, make_product
from tests.running_main import TINY, arguments, run_main
from utils.runs import Run


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


def test_an_image_that_breaks_after_training_leaves_the_training_and_the_other_images(
    teacher, tmp_path, monkeypatch, capsys
):
    make_product(tmp_path / "nut")
    victim = tmp_path / "nut" / "test" / "stain" / "001.png"
    whole, train = victim.read_bytes(), main.train
    line = arguments(tmp_path / "nut", teacher, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(main, "train", lambda *a: (train(*a), victim.write_bytes(whole[:500])))
        assert run_main(*line) == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error")]
    assert len(errors) == 1
    assert str(victim) in errors[0]
    run = Run(tmp_path / "out", "folder", "nut")
    trained = run.detector_file.read_bytes()
    victim.write_bytes(whole)
    assert json.loads(run.metrics_file.read_text())["glae"]["counts"]["test"] == 3
    assert run_main(*line, "--resume") == 0
    assert run.detector_file.read_bytes() == trained
    assert json.loads(run.metrics_file.read_text())["glae"]["counts"]["test"] == 4


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

    monkeypatch.setattr("evaluation.maps.tifffile.imwrite", full)
    with pytest.raises(OSError, match="No space"):
        run_main(*arguments(product, teacher, tmp_path, "--resume"))
    assert run.metrics_file.read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))

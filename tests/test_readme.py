"""Every command that the README shows works as written, on miniature data."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import get_model, vgg16

import main
from models.backbone import published_weights
from models.pdn import pdn_medium, pdn_small
from tests.conftest import (
    REPOSITORY,
    fill,
    make_mvtec_ad,
    make_mvtec_loco,
    make_product,
    make_visa,
)

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
# What is appended so that minutes become seconds; the last of two equal options wins.
SMALLER = {
    "main.py": "--train_steps 2 --image_size 64 --workers 1",
    "sweep.sh": "--train_steps 2 --image_size 64 --workers 1 --device cpu",
    "pretrain.py": "--train_steps 2 --image_size 64 --crop_size 48 --batch_size 2 --workers 1",
    "inference.py": "",
    "benchmark.py train": "--image_size 64 --steps 1 --warm_up 4 --repeats 1 --workers 1",
    "benchmark.py inference": "--image_size 64 --steps 1 --warm_up 4 --repeats 1",
    "benchmark.py evaluation": "--images 2 4 --repeats 1 --workers 1",
}


def script_of(command: str) -> str | None:
    return next((name for name in SMALLER if name in command), None)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A clone with every path that the README names, all miniature."""
    home = tmp_path_factory.mktemp("clone")
    scripts = ("main.py", "inference.py", "pretrain.py", "benchmark.py", "sweep.sh")
    rooms = ("distillation", "training", "evaluation", "scoring", "utils", "data", "models")
    for name in (*scripts, *rooms, "benchmarks", "configs"):
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, home / name)
    make_mvtec_loco(home / "path" / "mvtec_loco", "screw_bag")
    make_mvtec_loco(home / "path" / "mvtec_loco", "juice_bottle")
    make_mvtec_ad(home / "path" / "mvtec_ad", "bottle")
    make_visa(home / "VisA", "pcb1")
    make_product(home / "my_product")
    fill(home / "path" / "imagenet" / "n0", 4)
    torch.manual_seed(0)
    torch.save(pdn_small().state_dict(), home / "path" / "your_model.pth")
    torch.save(pdn_medium().state_dict(), home / "path" / "teacher_medium.pth")
    features = vgg16(weights=None, init_weights=False).features.state_dict()
    save_file(features, home / "path" / "vgg16_features.safetensors")
    python = home / "bin" / "python3"  # the README's python3 is the one that runs the tests
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    torchrun = home / "bin" / "torchrun"
    torchrun.write_text('#!/bin/sh\nexec python3 -m torch.distributed.run "$@"\n')
    for shim in (python, torchrun):
        shim.chmod(0o755)
    return home


def run(command: str, home: Path) -> subprocess.CompletedProcess:
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    environment["TORCH_HOME"] = str(home / "torch")
    return subprocess.run(
        ["bash", "-c", command],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def shown(script: str) -> list[str]:
    """Return the README's commands of one script, in its order."""
    return [command for command in COMMANDS if script_of(command) == script]


def test_the_readme_opens_with_the_two_commands():
    assert COMMANDS[0].split()[:2] == ["make", "demo"]
    assert COMMANDS[1].split()[:2] == ["make", "test"]


def test_every_command_is_of_a_kind_that_is_tested_here():
    others = [command for command in COMMANDS if script_of(command) is None]
    assert [c.split()[0] for c in others] == ["make", "make", "python3", ".", "pip"]


def test_make_demo_runs_the_demos_own_command():
    dry = subprocess.run(
        ["make", "-n", "demo"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "python main.py --dataset demo" in dry.stdout


def test_what_the_readme_says_of_options_is_so():
    known = main.get_parser().format_help()
    table = README.split("| option | meaning")[1].split("\n\n")[0]
    for option in re.findall(r"`(--\w+)", table):
        assert option in known


@pytest.mark.parametrize("file", sorted((REPOSITORY / "benchmarks").glob("*_*.json")), ids=str)
def test_the_table_of_speeds_shows_what_was_measured(file):
    result = json.loads(file.read_text())
    unit = {"train": "step", "inference": "image"}[result["benchmark"]]
    ours, theirs = (1000 * way[f"seconds_per_{unit}"] for way in (result, result["published"]))
    ratio = f"{result['ratio']:.2f} ({result['ratio_min']:.2f}–{result['ratio_max']:.2f})"
    assert f"| {ours:.0f} | {theirs:.0f} | {ratio} | {result['share_of_matmul']:.0%}"[:-1] in README


def provide_downloads(home: Path) -> None:
    """Put random weights where torchvision keeps its downloads, which a test must not make."""
    for name in ("wide_resnet101_2", "efficientnet_v2_s"):
        url = published_weights(name).url
        cached = home / "torch" / "hub" / "checkpoints" / url.rsplit("/", 1)[1]
        cached.parent.mkdir(parents=True, exist_ok=True)
        torch.save(get_model(name, weights=None).state_dict(), cached)


@pytest.mark.slow
def test_every_command_shown_works_in_the_readmes_order(home):
    provide_downloads(home)
    count = 0
    for command in filter(script_of, COMMANDS):
        script = script_of(command)
        if "output_seed0" in command:  # the reader has trained two seeds
            shutil.copytree(home / "output", home / "output_seed0", dirs_exist_ok=True)
            shutil.copytree(home / "output", home / "output_seed1", dirs_exist_ok=True)
        if "--maps_dir" in command:
            maps = home / "output" / "anomaly_maps" / "mvtec_ad"
            shutil.copytree(maps, home / "path" / "maps", dirs_exist_ok=True)
        again = "--overwrite" if script == "main.py" and "--resume" not in command else ""
        done = run(f"{command} {SMALLER[script]} {again}", home)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        count += 1
    assert count == sum(len(shown(script)) for script in SMALLER) >= 15
    assert (home / "output" / "results.csv").is_file()
    assert (home / "output" / "demo.png").is_file()
    teacher = load_file(home / "output_small" / "teacher_small.safetensors")
    assert teacher["0.weight"].dtype == torch.float16

"""Every command that README and docs show works as written, on miniature data."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import get_model, vgg16

import benchmark
import calibrate
import export
import inference
import main
import predict
import pretrain
import report
import sweep
from models.backbone import published_weights
from models.pdn import pdn_medium, pdn_small
from models.recipe import PUBLISHED
from tests.conftest import (
    REPOSITORY,
    fill,
    make_mvtec_ad,
    make_mvtec_loco,
    make_product,
    make_visa,
    picture,
)
from tests.prediction.filming import film, frame, playing_camera
from utils.recipe import recipe_values


def commands_of(text: str) -> list[str]:
    """Return the commands that a page shows, in its order."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]


README = (REPOSITORY / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in sorted((REPOSITORY / "docs").glob("*.md"))}
TEXT = "\n".join((README, *DOCS.values()))
COMMANDS = commands_of(TEXT)
PAGES = {"README.md": README} | {n: text for n, text in DOCS.items() if commands_of(text)}
# What a page's reader has done before, and what is there afterwards.
TRAINED = [c for c in commands_of(README) if c.startswith("python3 main.py --dataset mvtec_ad")]
PRODUCT = [c for c in commands_of(README) if c.startswith("python3 main.py --dataset folder")]
AT_ONCE = [c for c in PRODUCT if "--train_steps 0" in c]
BEFORE = dict.fromkeys(
    ("deploy.md", "predict.md", "runtimes.md", "speed.md", "streams.md"), AT_ONCE
)
BEFORE["metrics.md"] = TRAINED
AFTER = {
    "cluster.md": ["output_grid/model=efficientad/seed=1/metrics/mvtec_ad/bottle.json"],
    "experts.md": ["output_statistics/results.csv", "output_three/demo.png"],
    "report.md": ["output/report/index.html", "report/index.html"],
    "README.md": ["output/results.csv", "output/demo.png", "seen.csv", "seen/lot/001.png"],
    "deploy.md": ["seen/lot/001.png", "output/exports/folder/my_product/detector.bin"],
    "predict.md": [
        *("seen.csv", "seen.jsonl", "seen/a.png", "maps/line3/000.tiff", "new.safetensors"),
    ],
    "runtimes.md": ["seen/lot/001.png", "deployed/detector_80x96.pt2"],
    "streams.md": ["frames.csv", "frames/line/000005.png", "incoming.csv"],
    "metrics.md": ["output/results.csv"],
    "reproduce.md": ["output_glae_0/results.csv"],
    "research.md": ["output_sorted/results.csv", "output_narrow/demo.png"],
    "teachers.md": ["output_small/teacher_small.safetensors"],
}
# What a command goes on for ever for: when it is there, its reader has seen enough.
ENDLESS = {"--watch": "incoming_seen/lot/001.png.png"}
# What is added to a file, which the first line names: at its end, or above a function.
ADDITIONS = re.findall(r"```python\n# ([\w/.]+)(?:, above (\w+))?\n(.*?)```", TEXT, re.DOTALL)
ELSEWHERE = {"--help", "--nproc_per_node", "--logdir", "--generate"}  # no options of ours alone
ELSEWHERE |= {"--onnx", "--saveEngine", "--loadEngine", "--loadInputs", "--exportOutput"}  # trtexec
ELSEWHERE |= {"--minShapes", "--optShapes", "--maxShapes", "--shapes", "--noTF32", "--fp16"}
ELSEWHERE |= {"--head", "--address", "--port", "--node", "--num", "--dashboard", "--working"}  # ray
# What is appended so that minutes become seconds; the last of two equal options wins.
SMALLER = {
    "main.py": "--train_steps 2 --image_size 64 --workers 1",
    "main.py --train_steps 0": "--image_size 64 --workers 1",
    "sweep.": "--train_steps 2 --image_size 64 --workers 1 --device cpu",  # .py and .sh
    "pretrain.py": "--train_steps 2 --image_size 64 --crop_size 48 --batch_size 2 --workers 1",
    "inference.py": "",
    "predict.py": "--workers 1",
    "calibrate.py": "--workers 1",
    "export.py": "",
    "report.py": "--workers 1",
    "benchmark.py train": "--image_size 64 --steps 1 --warm_up 4 --repeats 1 --workers 1",
    "benchmark.py inference": "--image_size 64 --steps 1 --warm_up 4 --repeats 1",
    "benchmark.py evaluation": "--images 2 4 --repeats 1 --workers 1",
    "benchmark.py predict": "--drawn 2 --repeats 1 --memory 2 4 --workers 1",
    "benchmark.py deployment": "--model_size small --detectors statistics --formats onnx "
    "--image_size 64 --threads 1 --warm_up 0 --steps 1 --repeats 1 --starts 1",
    "benchmark.py thresholds": "--splits 3",
}


def script_of(command: str) -> str | None:
    if "--train_steps 0" in command:
        return "main.py --train_steps 0"
    return next((name for name in SMALLER if name in command), None)


@pytest.fixture
def home(tmp_path) -> Path:
    """A clone with every path that a page names, all miniature."""
    home = tmp_path / "clone"
    home.mkdir()
    scripts = ("main.py", "inference.py", "predict.py", "calibrate.py", "export.py", "pretrain.py")
    scripts += ("report.py", "benchmark.py", "sweep.py", "sweep.sh")
    rooms = ("distillation", "prediction", "training", "evaluation", "deployment", "scoring")
    rooms += ("reporting", "sweeping", "utils", "data", "models", "benchmarks", "configs")
    for name in (*scripts, *rooms):
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, home / name)
    make_mvtec_loco(home / "path" / "mvtec_loco", "screw_bag")
    make_mvtec_loco(home / "path" / "mvtec_loco", "juice_bottle")
    make_mvtec_ad(home / "path" / "mvtec_ad", "bottle")
    make_visa(home / "VisA", "pcb1")
    make_product(home / "my_product")
    fill(home / "new_images" / "lot", 2)
    fill(home / "incoming" / "lot", 2)
    fill(home / "line3", 1)
    (home / "more_good").mkdir()
    picture(np.random.default_rng(8), stain=False).save(home / "more_good" / "b.png")
    for name in ("a.png", "new_images/a.jpg"):
        picture(np.random.default_rng(7), stain=True).save(home / name)
    band = np.zeros((80, 96), np.uint8)
    band[:10] = 255  # of the top
    Image.fromarray(band).save(home / "region.png")
    film(home / "line.mp4", [frame(n) for n in range(8)], "mp4v")
    fill(home / "path" / "imagenet" / "n0", 4)
    fill(home / "path" / "sorted" / "bolt" / "ok", 6)
    fill(home / "path" / "sorted" / "bolt" / "ok_test", 2)
    fill(home / "path" / "sorted" / "bolt" / "bad", 2, stain=True)
    for name, function, code in ADDITIONS:
        text = (home / name).read_text() if (home / name).exists() else ""
        place = text.index(f"\ndef {function}(") if function else len(text)
        (home / name).write_text(f"{text[:place]}\n{code}\n{text[place:]}")
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


def settings(home: Path) -> dict:
    """Return how a reader's shell runs a command."""
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    environment["TORCH_HOME"] = str(home / "torch")
    return {"cwd": home, "env": environment, "text": True}


def run(command: str, home: Path) -> subprocess.CompletedProcess:
    if "--camera" in command:
        return run_until_a_row(command, home)
    line = ["bash", "-c", command]
    return subprocess.run(line, capture_output=True, check=False, **settings(home))


def run_until_a_row(command: str, home: Path) -> subprocess.CompletedProcess:
    """Run a command that has no end, with a camera that plays; end it once it has scored."""
    with playing_camera() as camera:
        line = ["bash", "-c", f"exec {command} --camera {camera.url}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(line, **pipes, **settings(home)) as process:
            rows = iter(process.stdout.readline, "")
            row = next((row for row in rows if "#" in row), "")
            process.terminate()  # as Ctrl-C, which shells in the background ignore
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(line, process.returncode, row + out, err)


def ended(command: str) -> str:
    """Return a command that ends: one that goes on for ever is sent SIGTERM, as by its reader."""
    for option, file in ENDLESS.items():
        if option in command:
            wait = f"until [ -e {file} ]; do kill -0 $! || break; sleep 0.1; done"
            return f"{command} & {wait}; kill $!; wait $!"
    return command


def shown(script: str) -> list[str]:
    """Return the commands of one script, in their order."""
    return [command for command in COMMANDS if script_of(command) == script]


def test_the_readme_opens_with_the_two_commands():
    assert COMMANDS[0].split()[:2] == ["make", "demo"]
    assert COMMANDS[1].split()[:2] == ["make", "test"]


def test_every_command_is_of_a_kind_that_is_tested_here():
    others = [command for command in COMMANDS if script_of(command) is None]
    assert [c.split()[0] for c in others] == ["make", "make"]


def test_make_demo_runs_the_demos_own_command():
    dry = subprocess.run(
        ["make", "-n", "demo"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "python main.py --dataset demo" in dry.stdout


def test_a_reader_finds_everything_in_150_lines():
    assert len(README.splitlines()) <= 150
    for name in re.findall(r"\]\((docs/\S+?)\)", README):
        assert (REPOSITORY / name).is_file()
    assert all(f"(docs/{name})" in README for name in DOCS)


def test_every_option_that_is_named_is_one():
    known = {"--sorted_path"}  # of the reader that docs/research.md adds
    scripts = (main, inference, predict, calibrate, export, report, pretrain, sweep)
    for parser in (script.get_parser() for script in scripts):
        known |= parser._option_string_actions.keys()
    for command in benchmark.get_parser()._subparsers._group_actions[0].choices.values():
        known |= command._option_string_actions.keys()
    named = set(re.findall(r"(?<![\w-])--[a-z]\w+", TEXT))
    assert named - known - ELSEWHERE == set()
    assert len(named) > 40


def test_the_table_of_the_recipe_shows_every_option_with_its_default():
    table = DOCS["research.md"].partition("## Change a number")[2].partition("##")[0]
    shown = {}
    for line in re.findall(r"\| (`--.*) \|.*\| (.+) \|", table):
        names, numbers = re.findall(r"`--(\w+)`", line[0]), line[1].split(", ")
        shown |= dict(zip(names, numbers, strict=True))
    shown = {name: [float(number) for number in text.split()] for name, text in shown.items()}
    values = recipe_values(PUBLISHED).items()
    assert shown == {k: v if isinstance(v, list) else [v] for k, v in values}


@pytest.mark.parametrize("file", sorted((REPOSITORY / "benchmarks").glob("[it]*_*.json")), ids=str)
def test_the_table_of_speeds_shows_what_was_measured(file):
    result = json.loads(file.read_text())
    unit = {"train": "step", "inference": "image"}[result["benchmark"]]
    ours, theirs = (1000 * way[f"seconds_per_{unit}"] for way in (result, result["published"]))
    ratio = f"{result['ratio']:.2f} ({result['ratio_min']:.2f}–{result['ratio_max']:.2f})"
    row = f"| {ours:.0f} | {theirs:.0f} | {ratio} | {result['share_of_matmul']:.0%}"
    assert row[:-1] in DOCS["speed.md"]


def provide_downloads(home: Path) -> None:
    """Put random weights where torchvision keeps its downloads, which a test must not make."""
    for name in ("wide_resnet101_2", "efficientnet_v2_s"):
        url = published_weights(name).url
        cached = home / "torch" / "hub" / "checkpoints" / url.rsplit("/", 1)[1]
        cached.parent.mkdir(parents=True, exist_ok=True)
        torch.save(get_model(name, weights=None).state_dict(), cached)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # each command loads torch anew
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_works_in_its_order(home, page):
    provide_downloads(home)
    for command in (*BEFORE.get(page, ()), *filter(script_of, commands_of(PAGES[page]))):
        script = script_of(command)
        for name in re.findall(r" (output_\w+)", command.partition(" --")[0]):
            if not (home / name).exists():  # the reader has trained seeds, and other models
                shutil.copytree(home / "output", home / name)
        if "--maps_dir" in command:
            maps = home / "output" / "anomaly_maps" / "mvtec_ad"
            shutil.copytree(maps, home / "path" / "maps", dirs_exist_ok=True)
        again = "--overwrite" if script.startswith("main.py") and "--resume" not in command else ""
        done = run(ended(f"{command} {SMALLER[script]} {again}"), home)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    assert all((home / name).is_file() for name in AFTER.get(page, ()))


def test_every_page_and_every_kind_of_command_is_among_them():
    pages = ["cluster.md", "deploy.md", "experts.md", "metrics.md", "predict.md", "report.md"]
    pages += ["reproduce.md", "research.md", "runtimes.md", "speed.md", "streams.md", "teachers.md"]
    assert list(PAGES) == ["README.md", *pages, "thresholds.md"]
    assert all(shown(script) for script in SMALLER)
    added = ["data/sorted.py", "data/catalog.py", "models/autoencoder.py"]
    assert [name for name, *_ in ADDITIONS] == added
    assert len(TRAINED) == 1

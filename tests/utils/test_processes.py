"""Distillation by several processes under torchrun: one teacher, one log, one checkpoint."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import REPOSITORY
from tests.distillation.distilling import make_world
from utils.processes import Processes
from utils.tensors import read_about

# pretrain.py, but the teacher is written in full precision, where 1e-5 can be told
IN_FULL = """
import sys
import pretrain
from utils.tensors import save_tensors

def save_teacher(teacher, path, about):
    save_tensors(teacher.state_dict(), path, about)

if __name__ == "__main__":
    pretrain.save_teacher = save_teacher
    sys.exit(pretrain.run_command(pretrain.main, pretrain.get_parser))
"""
LIMIT = 200  # seconds: less than what gloo waits for a process that never comes


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    world = make_world(tmp_path_factory.mktemp("processes"), 12)
    (world / "in_full.py").write_text(IN_FULL)
    return world


def begin(world: Path, output: Path, processes: int, *more: str) -> subprocess.Popen:
    """Start a distillation of 20 steps; more than one process under torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), str(world / "in_full.py")]
    command += ["--imagenet_train_path", str(world), "--backbone", "vgg16", "--model_size", "small"]
    command += ["--backbone_weights", str(world / "vgg16.safetensors"), "--workers", "1"]
    command += ["--image_size", "64", "--crop_size", "48", "--batch_size", "4"]
    command += ["--train_steps", "20", "--device", "cpu", "--precision", "fp32"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [*command, "--output_dir", str(output), *more],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def start(world) -> Iterator[Callable]:
    """Start distillations that end with the test."""
    begun = []

    def start(*arguments) -> subprocess.Popen:
        begun.append(begin(world, *arguments))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()


def finish(process: subprocess.Popen) -> str:
    """Wait for the end; return what was printed, results and the rest."""
    output, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    return output


def assert_same_teacher(one: Path, other: Path) -> None:
    mine, theirs = (load_file(folder / "teacher_small.safetensors") for folder in (one, other))
    assert mine.keys() == theirs.keys()
    for key, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[key], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory) -> Path:
    """What one process makes."""
    folder = tmp_path_factory.mktemp("alone")
    finish(begin(world, folder, 1))
    return folder


@pytest.mark.slow
def test_two_processes_make_the_teacher_of_one(start, alone, tmp_path):
    printed = finish(start(tmp_path, 2))
    assert_same_teacher(alone, tmp_path)
    assert printed.count("explained variance") == 1
    logs = [(folder / "losses.csv").read_text().split() for folder in (alone, tmp_path)]
    assert len(logs[0]) == len(logs[1]) == 2  # the names and step 20
    mine, theirs = (list(map(float, log[1].split(","))) for log in logs)
    assert mine == pytest.approx(theirs, abs=1e-5)
    untrained = tmp_path / "untrained"
    finish(start(untrained, 1, "--train_steps", "0"))
    with pytest.raises(AssertionError):  # so 1e-5 is less than what training changes
        assert_same_teacher(alone, untrained)


@pytest.mark.slow
def test_two_processes_count_the_unreadable_images_of_both(start, world, tmp_path):
    images = shutil.copytree(world, tmp_path / "images")
    for index in range(1, 12, 2):  # the one that is held out is not among them
        (images / f"{index}.png").write_bytes(b"cut")
    counts = []
    for number in (1, 2):
        own = ("--imagenet_train_path", str(images), "--train_steps", "4")
        finish(start(tmp_path / str(number), number, *own))
        about = read_about(tmp_path / str(number) / "teacher_small.safetensors")
        counts.append(about["failed_reads"])
    assert counts[0] == counts[1] > 4


def children(parent: int) -> list[int]:
    """Return the processes that torchrun started, by Linux's own list."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            name, _, fields = stat.read_text().rpartition(")")
            if int(fields.split()[1]) == parent:
                found.append(int(name.split()[0]))
    return sorted(found)


on_linux = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="finds processes in /proc"
)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Return when the file is there."""
    deadline = time.monotonic() + LIMIT
    while not path.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.mark.slow
@on_linux
def test_killing_one_of_two_processes_loses_at_most_an_interval(start, alone, tmp_path):
    checkpoint, more = tmp_path / "checkpoint.safetensors", ("--checkpoint_every", "6")
    process = start(tmp_path, 2, *more)
    wait_for(checkpoint, process)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode != 0
    assert "error: RuntimeError: another process has ended" in errors
    done = read_about(checkpoint)["step"]
    assert done in (6, 12, 18)
    assert not (tmp_path / "teacher_small.safetensors").exists()
    finish(start(tmp_path, 2, *more, "--resume"))
    assert_same_teacher(alone, tmp_path)
    steps = re.findall(r"^(\d+),", (tmp_path / "losses.csv").read_text(), re.MULTILINE)
    assert steps == ["6", "12", "18", "20"]


def send_to_one(process: subprocess.Popen) -> None:
    os.kill(children(process.pid)[0], signal.SIGINT)


def send_to_torchrun(process: subprocess.Popen) -> None:
    """As a cluster does; torchrun passes it on to all processes, those that decode among them."""
    process.terminate()


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("send", [send_to_one, send_to_torchrun])
def test_two_processes_stop_at_the_same_step(start, alone, tmp_path, send):
    process = start(tmp_path, 2, "--checkpoint_every", "5")
    wait_for(tmp_path / "checkpoint.safetensors", process)
    send(process)
    _, errors = process.communicate(timeout=LIMIT)
    (stopped,) = re.findall(r"interrupted after step (\d+)", errors)  # said once
    assert read_about(tmp_path / "checkpoint.safetensors")["step"] == int(stopped)
    finish(start(tmp_path, 1, "--checkpoint_every", "5", "--resume"))  # or any other number
    assert_same_teacher(alone, tmp_path)


@pytest.mark.slow
def test_a_leader_that_fails_ends_the_others_with_its_message(start, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"PK cut")
    process = start(tmp_path, 2, "--resume")
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode != 0
    assert errors.count("checkpoint.safetensors is damaged") == 1


@pytest.mark.slow
def test_what_all_processes_meet_is_said_once(start, tmp_path):
    (tmp_path / "teacher_small.safetensors").write_bytes(b"precious")
    _, errors = start(tmp_path, 2).communicate(timeout=LIMIT)
    assert len(re.findall("^error: .*--overwrite", errors, re.MULTILINE)) == 1


@pytest.mark.parametrize("more", [("--batch_size", "3"), ("--cached_views", "1")])
def test_what_processes_cannot_share_is_refused(world, tmp_path, more):
    command = [sys.executable, str(REPOSITORY / "pretrain.py"), "--imagenet_train_path", str(world)]
    variables = {**os.environ, "TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"}
    variables |= {"LOCAL_RANK": "0"}
    done = subprocess.run(
        [*command, "--output_dir", str(tmp_path), *more],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert more[0] in done.stderr


def test_the_parts_of_a_batch_cover_it():
    parts = [Processes(rank, 4).part(16) for rank in range(4)]
    assert [p for part in parts for p in range(16)[part]] == list(range(16))
    assert range(16)[Processes().part(16)] == range(16)

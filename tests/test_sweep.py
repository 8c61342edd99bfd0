"""sweep.sh: what is finished, what fails, what is interrupted; one product; wrong arguments."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from models.pdn import pdn_small
from tests.conftest import REPOSITORY, fill, make_mvtec_ad, make_product
from tests.faults.test_kills import saved_step
from tests.sweeping.test_cluster import alive
from utils.runs import Run

TINY = ["--train_steps", "2", "--image_size", "64", "--workers", "1", "--device", "cpu"]


@pytest.fixture
def world(tmp_path) -> Path:
    """A folder with a small teacher of random weights."""
    torch.save(pdn_small().state_dict(), tmp_path / "teacher.pth")
    return tmp_path


def sweep(world: Path, output: Path, *more: str, place=("mvtec_ad", "two"), **environment: str):
    line, variables = command(world, output, *more, place=place)
    variables |= environment
    return subprocess.run(line, capture_output=True, text=True, env=variables, check=False)


def command(world: Path, output: Path, *more: str, place=("mvtec_ad", "two")) -> tuple:
    """Return a sweep's command line and environment."""
    line = [REPOSITORY / "sweep.sh", place[0], world / place[1], *TINY, *more]
    line += ["--weights", world / "teacher.pth", "--output_dir", output]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    return list(map(str, line)), variables


@contextmanager
def begun(world: Path, output: Path, *more: str) -> Iterator[subprocess.Popen]:
    """Begin a sweep over one category, which lasts; at the end of the block it is killed."""
    if not (world / "data").exists():
        make_mvtec_ad(world / "data", "bottle")
    more = ("--train_steps", "100000", "--experts", "student", "autoencoder", *more)
    line, variables = command(world, output, *more, place=("mvtec_ad", "data"))
    pipe = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(line, env=variables, **pipe) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(process: subprocess.Popen, there: Callable) -> None:
    """Wait until something is there; the sweep must not end before."""
    deadline = time.monotonic() + 120
    while not there():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def trainings(sweep: int) -> list[int]:
    """Return the processes of main.py that a sweep has started."""
    found = []
    for children in Path(f"/proc/{sweep}/task").glob("*/children"):
        with suppress(OSError):  # one that has just ended
            pids = children.read_text().split()
            found += [int(n) for n in pids if b"main.py" in Path(f"/proc/{n}/cmdline").read_bytes()]
    return found


@pytest.mark.slow
def test_a_sweep_skips_what_is_finished_and_outlives_a_failure(world, tmp_path):
    for name in ("bottle", "cable", "tile"):
        make_mvtec_ad(world / "two", name)
    victim = world / "two" / "cable" / "train" / "good" / "001.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:100])
    first = sweep(world, tmp_path / "out", GPUS="0,1")
    assert first.returncode == 1
    assert "failed: cable" in first.stderr
    assert [name in first.stdout for name in ("bottle", "cable", "tile")] == [True, False, True]

    victim.write_bytes(whole)
    trained = Run(tmp_path / "out", "mvtec_ad", "tile").detector_file
    before = trained.stat().st_mtime_ns
    second = sweep(world, tmp_path / "out", "--report")
    assert second.returncode == 0, second.stderr
    assert "tile: finished already" in second.stderr
    assert trained.stat().st_mtime_ns == before
    assert [name in second.stdout for name in ("bottle", "cable", "tile")] == [True] * 3
    assert second.stdout.splitlines()[-1].startswith("mean")
    page = tmp_path / "out" / "report" / "index.html"
    assert second.stderr.splitlines()[-1] == f"wrote {page}"
    assert second.stderr.count("index.html") == 1  # and not of each category
    assert all(name in page.read_text() for name in ("bottle", "cable", "tile"))


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("loading", [False, True])
def test_an_interrupted_sweep_stops_its_training_and_goes_on_later(world, tmp_path, loading):
    """A terminal sends Ctrl-C to all processes: the sweep waits for what they save."""
    run = Run(tmp_path / "out", "mvtec_ad", "bottle")
    with begun(world, tmp_path / "out") as process:
        wait_for(process, process.stderr.readline if loading else run.losses_file.exists)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)  # until all that write to it have ended
    assert process.returncode == 130
    assert errors.endswith("interrupted: the same command goes on from here\n")
    if not loading:
        assert " --resume\n" in errors
        assert run.checkpoint_file.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot be tethered")
def test_a_killed_sweep_leaves_no_training_behind_and_goes_on_from_its_checkpoint(world, tmp_path):
    run = Run(tmp_path / "out", "mvtec_ad", "bottle")
    more = ("--checkpoint_every", "2")
    with begun(world, tmp_path / "out", *more) as process:
        wait_for(process, lambda: run.checkpoint_file.exists() and saved_step(run) >= 20)
        (training,) = trainings(process.pid)
        assert alive([training]) == [True]
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while alive([training]) == [True] and time.monotonic() < deadline:
            time.sleep(0.01)
        states = alive([training])
        with suppress(ProcessLookupError):
            os.kill(training, signal.SIGKILL)
        assert states == [False]
    seen = [saved_step(run)]
    with begun(world, tmp_path / "out", *more) as process:
        wait_for(process, lambda: seen.append(saved_step(run)) or seen[-1] > seen[0])
    assert seen == sorted(seen)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.skipif(sys.platform != "linux", reason="children are read from /proc")
def test_a_second_interrupt_stops_a_sweep_at_once(world, tmp_path):
    """However long its training takes to save: this one would take for ever."""
    with begun(world, tmp_path / "out") as process:
        wait_for(process, lambda: trainings(process.pid))
        (training,) = trainings(process.pid)
        os.kill(training, signal.SIGSTOP)
        os.kill(process.pid, signal.SIGINT)
        wait_for(process, lambda: "again stops at once" in process.stderr.readline())
        time.sleep(1.5)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("interrupted")
    assert alive([training]) == [False]


@pytest.mark.slow
def test_a_sweep_over_one_product_checks_it(tmp_path):
    make_product(tmp_path / "bolt")
    line = [REPOSITORY / "sweep.sh", "folder", tmp_path / "bolt", "--check", *TINY]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    done = subprocess.run(
        list(map(str, line)),
        capture_output=True,
        text=True,
        env=variables,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ready, recipe, _ = done.stdout.splitlines()
    assert ready == (
        "ready: bolt, 5 training, 1 validation (held out of the training images), "
        "4 test images (good 2, stain 2)"
    )
    assert recipe.startswith("recipe: ")


@pytest.mark.slow
def test_another_line_with_a_product_of_the_same_name_is_told_apart(world, tmp_path):
    for line, count in (("A", 6), ("B", 7)):
        make_product(world / line / "part")
        fill(world / line / "part" / "train" / "good", count)
    first = sweep(world, tmp_path / "out", place=("folder", "A"))
    assert (first.returncode, "part" in first.stdout) == (0, True), first.stderr
    second = sweep(world, tmp_path / "out", place=("folder", "B"))
    assert (second.returncode, second.stdout) == (1, "")
    assert "006.png is new" in second.stderr
    assert "failed: part" in second.stderr
    again = sweep(world, tmp_path / "out", place=("folder", "A"))
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "part: finished already" in again.stderr
    other = sweep(world, tmp_path / "out", "--train_steps", "3", place=("folder", "A"))
    assert other.returncode == 1
    assert "train_steps was 2 in this run, not 3" in other.stderr
    assert "damaged" not in other.stderr


@pytest.mark.parametrize("line", [[], ["mvtec_ad"], ["mvtec_ad", "nowhere"], ["imagenet", "."]])
def test_a_sweep_with_wrong_arguments_exits_2(line):
    variables = {**os.environ, "PYTHON": sys.executable}
    command = [str(REPOSITORY / "sweep.sh"), *line]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 2
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_a_sweep_explains_itself(option):
    variables = {**os.environ, "PYTHON": sys.executable}
    command = [REPOSITORY / "sweep.sh", option]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=True)
    assert "Train and evaluate every category" in done.stdout
    assert "GPUS=" in done.stdout
    assert "./sweep.sh" in done.stdout.partition("examples:")[2]

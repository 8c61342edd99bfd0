"""Whenever a run is killed or interrupted, it goes on to the detector that it would have been."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.faults.running import STEPS, Child, command, finish, run_of
from utils import progress
from utils.runs import Run
from utils.tensors import read_about

pytestmark = pytest.mark.slow


def same_results(run: Run, other: Run) -> bool:
    """Tell whether two runs have the same detector, losses and anomaly maps, byte for byte."""
    files = [run.detector_file, run.losses_file, *run.maps_folder.rglob("*.tiff")]
    assert len(files) == 6
    return all(
        path.read_bytes() == (other.output / path.relative_to(run.output)).read_bytes()
        for path in files
    )


def goes_on(world: Path, output: Path, undisturbed: Run, *more: str) -> bool:
    code, text = finish(command(world, output, "--resume", *more), output / "log")
    assert code == 0, text
    assert not list(output.rglob("*.part"))
    return same_results(run_of(output), undisturbed)


@pytest.fixture(scope="module")
def seconds(world, tmp_path_factory) -> float:
    """How long a run takes, from its start to its end."""
    output = tmp_path_factory.mktemp("timed")
    begun = time.monotonic()
    finish(command(world, output), output / "log")
    return time.monotonic() - begun


@pytest.mark.parametrize("moment", range(20))
def test_killed_at_any_moment(world, undisturbed, seconds, tmp_path, moment):
    child = Child(command(world, tmp_path), tmp_path / "log")
    time.sleep(random.Random(moment).uniform(0, seconds))
    child.kill()
    assert goes_on(world, tmp_path, undisturbed)


@pytest.mark.parametrize("step", [0, 4, STEPS - 2])
def test_killed_while_a_checkpoint_is_written(world, undisturbed, tmp_path, step):
    run = run_of(tmp_path)
    child = Child(command(world, tmp_path), tmp_path / "log")
    if step:
        child.wait_for(lambda: run.checkpoint_file.exists() and saved_step(run) >= step)
    child.wait_for(lambda: list(run.folder.glob(".checkpoint*.part")))
    child.kill()
    if step:
        assert saved_step(run) >= step  # the one before is whole
    assert goes_on(world, tmp_path, undisturbed)


def saved_step(run: Run) -> int:
    return read_about(run.checkpoint_file)["step"]


def test_killed_again_and_again(world, undisturbed, tmp_path):
    run = run_of(tmp_path)
    for step in (2, 6, 10):
        child = Child(command(world, tmp_path, "--resume"), tmp_path / "log")
        child.wait_for(lambda step=step: run.checkpoint_file.exists() and saved_step(run) >= step)
        child.kill()
    assert goes_on(world, tmp_path, undisturbed)


@pytest.mark.parametrize("moment", ["config.yaml", "checkpoint.safetensors"])
def test_killed_while_a_finished_run_is_overwritten(world, undisturbed, tmp_path, moment):
    run = run_of(tmp_path)
    assert finish(command(world, tmp_path, "--seed", "1"), tmp_path / "log")[0] == 0
    former = run.detector_file.read_bytes()
    child = Child(command(world, tmp_path, "--overwrite"), tmp_path / "log")
    child.wait_for(lambda: list(run.folder.parent.glob(f".bolt.new/{moment}")))
    child.kill()
    assert run.detector_file.read_bytes() == former
    assert goes_on(world, tmp_path, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("group", [False, True])
def test_interrupted_it_finishes_its_step_and_says_how_to_go_on(
    world, undisturbed_with_penalty, tmp_path, number, group
):
    """A terminal and a cluster send the signal to the processes that decode images, too."""
    more = ("--imagenet_train_path", str(world / "natural"))
    line = [*command(world, tmp_path, *more), "--checkpoint_every", "1h"]
    child = Child(line, tmp_path / "log", os.setsid)
    child.wait_for(lambda: taken(run_of(tmp_path)) >= 3)
    (os.killpg if group else os.kill)(child.process.pid, number)
    assert child.wait() == 130
    assert "Traceback" not in child.text()
    last = child.text().splitlines()[-1]
    step = saved_step(run_of(tmp_path))
    assert last.startswith(f"interrupted at step {step}; go on with: {sys.executable} main.py")
    assert last.endswith(" --resume")
    assert goes_on(world, tmp_path, undisturbed_with_penalty, *more)


def taken(run: Run) -> int:
    """Return how many steps the log of losses tells of."""
    return max(0, run.losses_file.read_text().count("\n") - 1) if run.losses_file.exists() else 0


def write_bars_at_once() -> None:
    progress.PAUSE = 0


@pytest.mark.parametrize("phase", ["reading images", "scoring"])
def test_interrupted_elsewhere_it_exits_alike(world, undisturbed, tmp_path, phase):
    child = Child(command(world, tmp_path), tmp_path / "log", write_bars_at_once)
    child.wait_for(lambda: phase in child.log.read_text())
    child.send(signal.SIGINT)
    if child.wait() != 0:  # it may just have been done
        assert child.process.exitcode == 130
        last = child.text().splitlines()[-1]
        stored = run_of(tmp_path).has_begun()  # scoring comes before the training, too
        assert last.endswith(" --resume") if stored else last.startswith("interrupted; nothing ")
    assert goes_on(world, tmp_path, undisturbed)


def test_a_run_that_is_refused_leaves_another_ones_takeover_alone(world, undisturbed, tmp_path):
    """It looks like one that a crash cut off, but its process lives."""
    run = run_of(tmp_path)
    assert finish(command(world, tmp_path, "--seed", "1"), tmp_path / "log")[0] == 0
    child = Child(
        command(world, tmp_path, "--overwrite"), tmp_path / "log", stop_before_the_last_move
    )
    child.wait_for((tmp_path / "stopped").exists)
    code, text = finish(command(world, tmp_path, "--resume"), tmp_path / "second")
    assert code == 2
    assert "is in use" in text
    assert (run.folder.parent / ".bolt.new" / "detector.safetensors").exists()
    child.send(signal.SIGCONT)
    assert child.wait() == 0, child.text()
    assert goes_on(world, tmp_path, undisturbed)


def stop_before_the_last_move() -> None:
    move, output = os.replace, Path(sys.argv[sys.argv.index("--output_dir") + 1])
    detector = run_of(output).detector_file

    def stopping(source, target):
        if Path(source).parent.name == ".bolt.new" and Path(target) == detector:
            (Path(target).parents[3] / "stopped").touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        move(source, target)

    os.replace = stopping


def test_what_a_kill_leaves_of_a_replacement_is_made_good(tmp_path):
    run = run_of(tmp_path)
    new = replace(run, replacement=True)
    new.folder.mkdir(parents=True)
    run.finish_take_over()  # all was moved, but the folder
    assert not new.folder.exists()
    new.folder.mkdir()
    for path in (new.detector_file, new.checkpoint_file):
        path.touch()
    unlinked, unlink = [], Path.unlink
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, **k: (unlinked.append(path), unlink(path, **k)))
        new.clear()
    # killed between the two, a detector alone would look like half of a take-over
    assert unlinked.index(new.detector_file) < unlinked.index(new.checkpoint_file)


def test_what_a_killed_process_had_half_written_is_removed(tmp_path):
    run = run_of(tmp_path)
    new = replace(run, replacement=True)
    dead, alive = f"{2**22 + 1}.1.part", f"{os.getpid()}.1.part"  # no such process can be
    places = (new.folder, run.maps_folder / "test" / "good", run.metrics_file.parent, run.output)
    names = (".checkpoint.safetensors", ".000.tiff", ".bolt.json", ".results.csv")
    for place, name in zip(places, names, strict=True):
        place.mkdir(parents=True, exist_ok=True)
        for state in (dead, alive):
            (place / f"{name}.{state}").touch()
    with run.locked():
        left = {path.name for path in tmp_path.rglob("*.part")}
    assert left == {f"{name}.{alive}" for name in names}


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.7])
def test_interrupted_while_it_loads_it_ends_at_once(tmp_path, seconds):
    line = [sys.executable, REPOSITORY / "main.py", "--dataset", "demo", "--check"]
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 or (seconds == 0.3 and process.returncode == -signal.SIGINT)
    assert "Traceback" not in errors or seconds == 0.3  # Python itself may not have begun

"""What a run does when its disk, its folder, its memory, its numbers or its processes fail it."""

import fcntl
import os
import resource
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from data import natural
from tests.faults.running import Child, command, finish, run_of
from tests.faults.test_kills import goes_on, saved_step
from training import loop, loss_log, preparation, steps
from training.checkpoints import Saving

pytestmark = pytest.mark.slow


def error_of(code: int, text: str, expected: int = 1) -> str:
    """Return the one line that a failed run says."""
    assert code == expected, text
    assert "Traceback" not in text
    errors = [line for line in text.splitlines() if line.lstrip().startswith("error: ")]
    assert len(errors) == 1, text
    return errors[0].strip()


# The disk


def fill_disk_after(saves: int) -> None:
    """From some checkpoint on, let no file become larger than half a checkpoint."""
    save = Saving.save

    def filling(self, step: int) -> None:
        if step == 2 * saves:
            half = self.run.checkpoint_file.stat().st_size // 2
            resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))
        save(self, step)

    Saving.save = filling


def test_a_full_disk_keeps_the_checkpoint_before(world, undisturbed, tmp_path):
    run = run_of(tmp_path)
    line = command(world, tmp_path)
    error = error_of(*finish(line, tmp_path / "log", partial(fill_disk_after, 4)))
    assert str(run.checkpoint_file) in error
    assert "make room" in error
    assert "--resume" in error
    assert saved_step(run) == 6
    assert not list(run.folder.glob("*.part"))
    assert goes_on(world, tmp_path, undisturbed)


def small_files_only(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def test_a_disk_that_is_full_after_training_keeps_the_training(world, undisturbed, tmp_path):
    run = run_of(tmp_path)
    assert finish(command(world, tmp_path), tmp_path / "log")[0] == 0
    trained = run.detector_file.read_bytes()
    run.metrics_file.unlink()
    line = command(world, tmp_path, "--resume")
    error = error_of(*finish(line, tmp_path / "log", partial(small_files_only, 1000)))
    assert ".tiff" in error
    assert "make room" in error
    assert run.detector_file.read_bytes() == trained
    assert goes_on(world, tmp_path, undisturbed)


def no_room() -> None:
    preparation.shutil.disk_usage = lambda _: preparation.shutil._ntuple_diskusage(
        10**9, 10**9, 2**20
    )


def test_too_little_room_is_told_before_training(world, tmp_path):
    error = error_of(*finish(command(world, tmp_path), tmp_path / "log", no_room), expected=2)
    assert "MiB are needed" in error
    assert "1 MiB are free" in error
    assert not run_of(tmp_path).losses_file.exists()


def nobody() -> None:
    """Give up the rights of root, who may write anywhere."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def test_an_output_folder_that_is_read_only_is_named(world, tmp_path):
    output = tmp_path / "output"
    output.mkdir(mode=0o555)
    for folder in (*reversed(tmp_path.parents), tmp_path, world):
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    log = tmp_path / "log"
    error = error_of(*finish(command(world, output), log, nobody), expected=2)
    assert f"--output_dir {output}" in error
    assert "cannot be written" in error


# The folder


def test_a_second_run_into_a_folder_is_refused_while_the_first_lives(world, undisturbed, tmp_path):
    run = run_of(tmp_path)
    child = Child(command(world, tmp_path), tmp_path / "log")
    child.wait_for(run.checkpoint_file.exists)
    child.send(signal.SIGSTOP)
    error = error_of(*finish(command(world, tmp_path, "--resume"), tmp_path / "second"), expected=2)
    assert "is in use by another process" in error
    child.send(signal.SIGCONT)
    assert child.wait() == 0
    assert goes_on(world, tmp_path, undisturbed)


def test_a_lock_is_not_held_by_a_dead_process(world, undisturbed, tmp_path):
    run = run_of(tmp_path)
    child = Child(command(world, tmp_path), tmp_path / "log")
    child.wait_for(run.checkpoint_file.exists)
    lock = run.folder / ".lock"
    with lock.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    child.kill()
    assert lock.exists()
    assert goes_on(world, tmp_path, undisturbed)


# The numbers


def spoil_step(bad: int) -> None:
    """Make the loss of one step NaN."""
    take_step, taken = steps.take_step, []

    def spoilt(*arguments):
        terms = take_step(*arguments)
        taken.append(terms)
        return terms * float("nan") if len(taken) == bad else terms

    steps.take_step = spoilt


@pytest.mark.parametrize(("bad", "kept"), [(7, 6), (8, 6), (1, None)])
def test_a_loss_that_is_not_finite_stops_at_its_step(world, undisturbed, tmp_path, bad, kept):
    line = command(world, tmp_path)
    error = error_of(*finish(line, tmp_path / "log", partial(spoil_step, bad)))
    assert f"the loss hard is nan at step {bad}" in error
    assert "--precision fp32" in error
    if kept is None:
        assert "nothing was saved yet" in error
    else:
        assert f"the checkpoint of step {kept} is kept" in error
        assert saved_step(run_of(tmp_path)) == kept
        assert goes_on(world, tmp_path, undisturbed)


def rarely_log() -> None:
    loss_log.MOST_ROWS = 1
    spoil_step(5)


def test_a_loss_is_named_by_its_step_even_where_rows_are_rare(world, tmp_path):
    error = error_of(*finish(command(world, tmp_path), tmp_path / "log", rarely_log))
    assert "at step 5; " in error
    assert "the checkpoint of step 4 is kept" in error


# The memory


def little_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = size + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def test_out_of_memory_says_what_to_lower(world, tmp_path):
    line = command(world, tmp_path, "--batch_size", "2000")
    error = error_of(*finish(line, tmp_path / "log", little_memory))
    assert error.startswith("error: out of memory: lower ")
    for option in ("--batch_size", "--image_size", "--feature_memory", "--workers"):
        assert option in error


def gpu_is_full() -> None:
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    loop.TrainingStep.__call__ = full


def test_a_gpu_out_of_memory_says_the_same(world, tmp_path):
    error = error_of(*finish(command(world, tmp_path), tmp_path / "log", gpu_is_full))
    assert error.startswith("error: out of memory: lower --batch_size or ")


# The processes that decode natural images


def die_of(name: str, after: int) -> None:
    """Let the process that reads an image of this name be killed, as by a want of memory."""
    decode, read = natural.decode, []

    def deadly(path, *more):
        read.append(path)
        if path.name == name and len(read) > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(path, *more)

    natural.decode = deadly


@pytest.mark.parametrize(("name", "after"), [("002.png", 0), ("000.png", 10)])
def test_a_worker_that_dies_is_reported_with_its_image(
    world, undisturbed_with_penalty, tmp_path, name, after
):
    """Pre-flight tries some images itself: none of them may be the deadly one.

    The tenth that is asked for is read when a step has been taken: eight are read ahead.
    """
    folder = tmp_path / "natural"
    folder.mkdir()
    for path in (world / "natural").iterdir():
        Image.open(path).save(folder / path.name)
    more = ("--imagenet_train_path", str(folder))
    line = command(world, tmp_path, *more, "--checkpoint_every", "1h")
    error = error_of(*finish(line, tmp_path / "log", partial(die_of, name, after)))
    assert str(folder / name) in error
    assert "--workers" in error
    if after:
        assert f"the checkpoint of step {saved_step(run_of(tmp_path))} is kept" in error
    assert goes_on(world, tmp_path, undisturbed_with_penalty, *more)


def test_a_worker_that_somebody_kills_is_reported(world, undisturbed_with_penalty, tmp_path):
    more = ("--imagenet_train_path", str(world / "natural"))
    child = Child(command(world, tmp_path, *more), tmp_path / "log")
    child.wait_for(run_of(tmp_path).checkpoint_file.exists)
    for worker in children(child.process.pid):
        os.kill(worker, signal.SIGKILL)
    begun = time.monotonic()
    if child.wait():  # it may have had all its images
        assert time.monotonic() - begun < 30
        assert "was killed" in error_of(child.process.exitcode, child.text())
    assert goes_on(world, tmp_path, undisturbed_with_penalty, *more)


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

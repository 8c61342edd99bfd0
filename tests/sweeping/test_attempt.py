"""One attempt: how main.py is called and followed, what its log says, what a mark is left for.

In main.py's place is a program of a few lines, which does what a training may do.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import main
from sweeping import attempt as module
from sweeping.attempt import Ending, Job, Slot, attempt, followed, last_line, last_step
from sweeping.board import GO_ON, SAVE, STOP, Progress
from sweeping.finished import mark_of
from sweeping.grid import Task
from tests.conftest import REPOSITORY
from utils.presets import parse
from utils.runs import Run

TELL = """
import json, os, sys
seen = {"argv": sys.argv[1:], "cwd": os.getcwd(), "threads": os.environ.get("OMP_NUM_THREADS")}
print(json.dumps(seen))
"""
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('begun', flush=True)"
STUBBORN += "; time.sleep(60)"
SAVING = """
import signal, sys, time
def save(*_):
    print("saved")
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
print("begun", flush=True)
time.sleep(60)
"""


@pytest.fixture
def program(tmp_path, monkeypatch) -> Callable[[str], None]:
    """Put a program in main.py's place."""
    root = tmp_path / "root"
    (root / "sweeping").mkdir(parents=True)
    (root / "sweeping" / "tethered.py").symlink_to(REPOSITORY / "sweeping" / "tethered.py")
    monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(module, "PAUSE", 0.05)
    monkeypatch.setattr(module, "hash_of_tests", lambda *place: str(place))  # there are none
    return (root / "main.py").write_text


def job_of(
    folder: Path, category: str = "bottle", arguments: tuple = (), where: Path | None = None
) -> Job:
    """Return a job whose files lie in a folder, begun in `where` or there."""
    task = Task(category, "mvtec_ad", "data", category, "", arguments)
    output = folder / "out"
    log, cache = output / "logs" / "a.log", folder / "cache"
    return Job(task, "hash of options", output, log, "--resume", cache, 0, where or folder)


def go_on(name: str, progress: Progress) -> int:
    return GO_ON


def asking(what: int, after: str) -> Callable[[str, Progress], int]:
    """Return a `beat` that asks for something as soon as the log ends so."""
    return lambda name, progress: what if progress.line == after else GO_ON


def told(job: Job) -> dict:
    return json.loads(last_line(job.log))


@pytest.mark.parametrize("category", ["-x", "two words", "a'b\"c", "$(touch x)", "a;b|c&", "ä*?"])
def test_arguments_reach_main_as_they_are_and_no_shell(tmp_path, program, category):
    program(TELL)
    values = ("--weights", "$(touch x)", "--experts", "position", "composition")
    job = job_of(tmp_path, category, values)
    assert attempt(job, Slot(), go_on).code == 0
    own = ["--dataset=mvtec_ad", f"--subdataset={category}", "--mvtec_ad_path=data"]
    assert told(job)["argv"] == [*own, f"--output_dir={job.output}", "--resume", *values]
    options = parse(main.get_parser(), told(job)["argv"])
    assert (options.subdataset, options.experts) == (category, ["position", "composition"])
    assert not list(tmp_path.rglob("x"))


@pytest.mark.parametrize(("arguments", "device"), [((), "cuda:3"), (("--device", "cpu"), "cpu")])
def test_the_slots_device_is_taken_unless_the_options_name_one(
    tmp_path, program, arguments, device
):
    program(TELL)
    job = job_of(tmp_path, arguments=arguments)
    ending = attempt(job, Slot("cuda:3", 5), go_on)
    assert parse(main.get_parser(), told(job)["argv"]).device == device
    assert told(job)["threads"] == "5"
    assert ending.node == f"{os.uname().nodename} cuda:3"


def test_without_a_share_of_the_cores_the_environment_stays(tmp_path, program, monkeypatch):
    program(TELL)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    job = job_of(tmp_path)
    ending = attempt(job, Slot(), go_on)
    assert told(job)["threads"] == "7"
    assert ending == Ending(0, last_line(job.log), os.uname().nodename)


def test_it_runs_where_the_sweep_was_begun_if_that_is_on_its_machine(tmp_path, program):
    program(TELL)
    job = job_of(tmp_path)
    attempt(job, Slot(), go_on)
    assert told(job)["cwd"] == str(tmp_path)
    job = job_of(tmp_path, where=tmp_path / "not here")
    attempt(job, Slot(), go_on)
    assert told(job)["cwd"] == os.getcwd()


def test_a_log_has_each_attempts_time_and_command_and_all_that_it_said(tmp_path, program):
    program("import sys; print('a result'); print('a warning', file=sys.stderr); sys.exit(3)")
    job = job_of(tmp_path, "two words")
    assert [attempt(job, Slot(), go_on).code for _ in range(2)] == [3, 3]
    lines = job.log.read_text().splitlines()
    assert sorted(lines[1:3]) == ["a result", "a warning"]
    for line in (lines[0], lines[3]):
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line)
        command = shlex.split(line)[2:]
        assert command[:2] == [sys.executable, str(tmp_path / "root" / "main.py")]
        assert "--subdataset=two words" in command


@pytest.mark.parametrize(("code", "marked"), [(0, True), (1, False), (2, False), (130, False)])
def test_what_ended_well_alone_is_marked_as_finished(tmp_path, program, code, marked):
    program(f"import sys; sys.exit({code})")
    job = job_of(tmp_path)
    assert attempt(job, Slot(), go_on).code == code
    assert mark_of(job.run).exists() == marked
    if marked:
        place = ("mvtec_ad", tmp_path / "data", "bottle")
        assert json.loads(mark_of(job.run).read_text())["tests"] == str(place)


def test_its_progress_is_that_of_the_losses_and_the_log(tmp_path, program):
    program("""
import pathlib, sys, time
folder = pathlib.Path("out/trainings/mvtec_ad/bottle")
folder.mkdir(parents=True)
for step in (10, 20):
    print(f"step {step}", end="\\r", flush=True)
    with (folder / "losses.csv").open("a") as file:
        file.write(f"{step},0.5,0.25\\n{step + 5},0.")  # the second is being written
    while not pathlib.Path(f"seen {step}").exists():
        time.sleep(0.01)
    (folder / "losses.csv").write_text("")
""")
    seen = []

    def beat(name: str, progress: Progress) -> int:
        seen.append((name, *progress))
        (tmp_path / f"seen {progress.step}").touch()
        return GO_ON

    assert attempt(job_of(tmp_path), Slot(), beat).code == 0
    node = os.uname().nodename
    assert {("bottle", node, 10, "step 10"), ("bottle", node, 20, "step 20")} <= {*seen}
    assert {step for _, _, step, _ in seen} == {0, 10, 20}


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("", 0),
        ("step,loss\n", 0),
        ("step,loss\n1,0.5\n", 1),
        ("step,loss\n1,0.5\n2,0.5", 1),
        ("step,loss\n1,0.5\n\0\0\0\n", 0),
        ("9" * 30 + ",1\n", 0),
        ("x" * 9999 + "\n12,1\n", 12),
    ],
)
def test_the_last_step_is_that_of_the_last_whole_row(tmp_path, text, step):
    run = Run(tmp_path, "mvtec_ad", "bottle")
    assert last_step(run) == 0
    run.folder.mkdir(parents=True)
    run.losses_file.write_text(text)
    assert last_step(run) == step


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("one\ntwo\n", "two"),
        ("one\r 50%\r100%\r\n \n", "100%"),
        ("one\n" + "x" * 9999, "x" * module.TAIL),
        ("\u00e4" * 5000, None),
    ],
)
def test_the_last_line_is_the_last_that_says_anything(tmp_path, text, line):
    log = tmp_path / "a.log"
    assert last_line(log) == ""
    log.write_text(text)
    assert last_line(log) == line if line is not None else last_line(log).endswith("\u00e4")


def test_asked_to_save_it_is_waited_for(tmp_path, program):
    program(SAVING)
    ending = attempt(job_of(tmp_path), Slot(), asking(SAVE, "begun"))
    assert (ending.code, ending.line) == (130, "saved")


def test_asked_to_stop_it_is_killed_whatever_it_does(tmp_path, program):
    program(STUBBORN)
    assert attempt(job_of(tmp_path), Slot(), asking(STOP, "begun")).code == -9


def test_a_stop_ends_also_what_saves(tmp_path, program):
    program(STUBBORN)
    asked = []

    def beat(name: str, progress: Progress) -> int:
        asked.append(SAVE if progress.line == "begun" else GO_ON)
        return STOP if asked.count(SAVE) > 3 else asked[-1]

    assert attempt(job_of(tmp_path), Slot(), beat).code == -9


class Cancelled:
    """A process in whose waiting Ray raises KeyboardInterrupt, as it cancels a task."""

    def __init__(self):
        self.endings, self.told = [KeyboardInterrupt(), subprocess.TimeoutExpired("", 0), 130], []

    def wait(self, timeout: float) -> int:
        ending = self.endings.pop(0)
        if isinstance(ending, BaseException):
            raise ending
        return ending

    def terminate(self) -> None:
        self.told.append("save")


def test_what_ray_cancels_saves_and_is_told_so_once():
    process, asked = Cancelled(), iter([GO_ON, SAVE, SAVE])
    assert followed(process, lambda: next(asked)) == 130
    assert process.told == ["save"]


def test_an_exception_in_between_leaves_no_process_behind(tmp_path, program):
    program("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    pids, begun = [], time.monotonic()

    def beat(name: str, progress: Progress) -> int:
        if progress.line.isdecimal():
            pids.append(int(progress.line))
            raise ConnectionError("the board is gone")
        return GO_ON

    with pytest.raises(ConnectionError):
        attempt(job_of(tmp_path), Slot(), beat)
    assert time.monotonic() - begun < 30  # it was not waited for
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_log_that_cannot_be_written_is_named(tmp_path, program):
    program(TELL)
    job = job_of(tmp_path)
    job.output.mkdir()
    job.log.parent.write_text("")
    with pytest.raises(OSError, match="logs"):
        attempt(job, Slot(), go_on)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_of_an_overwrite_a_later_attempt_goes_on_with_what_the_first_has_begun(
    tmp_path, program, again, begun
):
    program("import sys; print(*sys.argv[1:])")
    job = replace(job_of(tmp_path), start="--overwrite", again=again)
    new = replace(job.run, replacement=True)
    if begun:
        new.folder.mkdir(parents=True)
        new.write_config({})
        new.losses_file.write_text("step,total\n7,1\n")
    seen = []
    attempt(job, Slot(), lambda name, progress: seen.append(progress.step) or GO_ON)
    said = job.log.read_text().splitlines()[-1].split()
    assert ("--resume" in said, "--overwrite" in said) == (again and begun, not (again and begun))
    assert seen[0] == (7 if begun else 0)

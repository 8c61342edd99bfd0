"""Ray itself fails a sweep, or ends with it."""

import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

import sweep
from sweeping import on_ray
from sweeping.attempt import Ending, Job
from sweeping.board import GO_ON, SAVE, Board, Progress
from sweeping.driver import Sweep
from sweeping.journal import Journal, read_journal
from sweeping.on_ray import Lost, RayExecutor
from sweeping.standing import DONE, Standing
from tests.sweeping.chaos import make_world, sweeping
from tests.sweeping.cluster import ENVIRONMENT, cluster_of, remaining
from tests.sweeping.playing import job_called

slow = pytest.mark.slow
QUICK = ["--train_steps", "0"]  # statistics alone


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), "bottle")


@pytest.fixture
def marked(monkeypatch) -> str:
    """What all processes have in their environment that this test starts."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MARK", mark := uuid.uuid4().hex)
    return mark


def bearers(mark: str) -> list:
    """Return the processes that have the mark."""
    import psutil

    found = []
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("MARK") == mark:
            found.append(process)
    return found


def needs_ray() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install -r requirements-ray.txt")


@slow
@pytest.mark.parametrize("killed", [False, True])
def test_a_local_ray_ends_with_the_sweep(world, tmp_path, marked, killed):
    needs_ray()
    with sweeping(world, tmp_path, *QUICK * (not killed), "--ray", "local") as driver:
        if killed:
            driver.wait_for(lambda: driver.tasks("begun"))
            assert len(bearers(marked)) > 5
            driver.process.kill()
        else:
            assert driver.wait() == 0, driver.said
            assert driver.tasks("done") == ["bottle"]
            assert driver.said.splitlines()[-1].startswith("0 running, 0 waiting, 1 done")
    assert remaining(bearers(marked)) == []


@slow
def test_a_head_that_dies_ends_the_sweep_with_one_line(world, tmp_path, marked):
    needs_ray()
    with cluster_of(1) as nodes, sweeping(world, tmp_path, "--ray", nodes.address) as driver:
        driver.wait_for(driver.trainings)
        # It has asked the board once; before that only the head knows where the board is.
        driver.wait_for(lambda: driver.tasks("begun"))
        [head] = [one for one in bearers(marked) if "gcs_server" in one.name()]
        head.kill()
        begun = time.monotonic()
        assert driver.wait() == 1
        assert time.monotonic() - begun < 60
        assert remaining([one.process for one in driver.trainings()]) == []
        # Nodes wait for the head for another minute, and may just start a worker.
        while processes := bearers(marked):
            remaining(processes, seconds=0)
    last = driver.said.splitlines()[-1]
    assert last.startswith(f"error: {nodes.address}: the cluster's head is gone: ")
    assert driver.said.count("error") == 1


@pytest.fixture
def executor() -> RayExecutor:
    """What tells the ends of Ray's tasks, joined to no cluster."""
    needs_ray()
    import ray

    executor = object.__new__(RayExecutor)
    executor.ray = ray
    return executor


def test_what_ray_kills_for_its_memory_is_a_failure_and_what_dies_is_lost(executor, monkeypatch):
    """Only a lost attempt costs no retry; what takes too much memory would be lost for ever."""
    errors = executor.ray.exceptions
    own = OSError(28, "No space left on device", "log")
    full, dead, crash, taken_back, failed = (
        errors.OutOfMemoryError("killed"),
        errors.NodeDiedError("gone\nand more"),
        errors.WorkerCrashedError(),
        errors.TaskCancelledError(),
        errors.RayTaskError("attempt", "traceback", own),
    )

    def outcome(error: Exception) -> object:
        def get(ref: object) -> None:
            raise error

        monkeypatch.setattr(executor.ray, "get", get)
        return executor._outcome(None)

    assert outcome(full) is full
    assert [type(outcome(error)) for error in (dead, crash)] == [Lost, Lost]
    assert str(outcome(dead)) == "gone"
    assert outcome(taken_back) is None
    assert outcome(failed) is own


def test_a_board_that_ray_begins_anew_asks_to_save_again(executor, monkeypatch):
    def played(board: Board) -> SimpleNamespace:
        return SimpleNamespace(exchange=SimpleNamespace(remote=board.exchange))

    first, second = Board(), Board()
    monkeypatch.setattr(executor.ray, "get", lambda found: found)
    executor.board, executor.asked, executor.refs, executor.begun = played(first), GO_ON, {}, set()
    executor.save()
    assert first.beat("a", Progress("here")) == SAVE
    executor.board = played(second)
    assert second.beat("a", Progress("here", 3)) == GO_ON  # it knows nothing yet
    assert executor.progress() == {"a": Progress("here", 3)}
    assert second.beat("a", Progress("here")) == SAVE


def test_a_head_that_is_silent_for_a_moment_is_waited_for(executor, monkeypatch):
    now, there = 0.0, False
    monkeypatch.setattr(on_ray.time, "monotonic", lambda: now)
    monkeypatch.setattr(on_ray, "is_there", lambda head: there)
    monkeypatch.setattr(executor.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2}}])
    executor.looked, executor.head, executor.nodes = 0.0, "h:1", []
    now = on_ray.GONE
    executor.look()
    there = True
    executor.look()
    assert executor.nodes == [{"CPU": 2}]
    there, now = False, 2 * on_ray.GONE + 0.1
    with pytest.raises(OSError, match="the cluster's head is gone") as caught:
        executor.look()
    assert caught.value.filename == "h:1"


class Silent:
    """An executor whose first attempt is lost before it has told where it is."""

    slots = 1

    def __init__(self):
        self.endings = [Lost("gone"), Ending(0, "", "n")]

    def start(self, job: Job) -> None:
        self.job = job

    def ended(self, seconds: float) -> list:
        return [(self.job, self.endings.pop(0))]

    def progress(self) -> dict:
        return {}


def test_a_node_that_dies_before_a_training_has_begun_costs_it_no_retry(tmp_path):
    said, standing = [], Standing("bottle")
    display = SimpleNamespace(say=said.append, show=lambda: None)
    with Journal(tmp_path / "journal") as journal:
        job = job_called("bottle")
        Sweep(Silent(), [standing], display, journal, retries=0).run([job])
    assert said == ["bottle: its node is lost, it goes on elsewhere"]
    assert (standing.state, standing.attempt, standing.node) == (DONE, 2, "n")
    assert [entry["event"] for entry in read_journal(tmp_path / "journal")] == ["lost", "done"]


def test_without_a_cluster_or_ray_one_line_says_so(world, tmp_path, monkeypatch, outcome):
    line = ["mvtec_ad", world / "data", *QUICK, "--weights", world / "teacher.pth"]
    line += ["--output_dir", tmp_path / "out", "--device", "cpu", "--image_size", "64"]
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    code, out, [error] = outcome(sweep, [*line, "--ray", "auto"])
    assert (code, out) == (2, "")
    assert error.startswith("error: --ray auto: no cluster of Ray is found here: start one by")
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, [error] = outcome(sweep, [*line, "--ray", "local"])
    assert (code, out) == (2, "")
    assert error == "error: --ray needs ray: pip install -r requirements-ray.txt"

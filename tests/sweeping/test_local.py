"""Attempts on this machine: how many at once, on which device, by how many cores."""

import threading
from collections.abc import Callable, Iterator

import pytest

from sweeping import local
from sweeping.attempt import Ending, Job, Slot, data_of
from sweeping.board import GO_ON, SAVE, STOP, Progress
from sweeping.local import LocalExecutor, slots_here
from tests.sweeping.playing import job_called

GIB = 2**30
SECONDS = 20  # that anything here may take


@pytest.fixture(autouse=True)
def machine(monkeypatch) -> None:
    """Eight cores, 64 GiB of memory."""
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GIB // 4096}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)


@pytest.mark.parametrize(
    ("gpus", "gpus_per_run", "cpus_per_run", "expected"),
    [
        ([], None, None, [Slot()]),  # one after the other, of all cores
        ([], None, 1, [Slot(None, 1)] * 8),
        ([], None, 3, [Slot(None, 3)] * 2),
        ([], None, 100, [Slot(None, 100)]),
        ([], 0.25, None, [Slot()]),
        (["0"], None, None, [Slot("cuda:0")]),
        (["0", "2"], None, None, [Slot("cuda:0", 4), Slot("cuda:2", 4)]),
        (["1"], 0.25, None, [Slot("cuda:1", 2)] * 4),
        (["0", "1"], 0.5, 1, [*[Slot("cuda:0", 1)] * 2, *[Slot("cuda:1", 1)] * 2]),
        (["0"], 0.3, None, [Slot("cuda:0", 2)] * 3),
        (["0"], 0.05, None, [Slot("cuda:0", 1)] * 20),
        (["0"], 1 / 3, None, [Slot("cuda:0", 2)] * 3),
    ],
)
def test_a_slot_is_a_part_of_a_gpu_or_of_the_cores(gpus, gpus_per_run, cpus_per_run, expected):
    assert slots_here(gpus, gpus_per_run, cpus_per_run, GIB) == expected


@pytest.mark.parametrize(("memory", "number"), [(16 * GIB, 4), (17 * GIB, 3), (99 * GIB, 1)])
def test_no_more_run_at_once_than_the_memory_holds(memory, number, capsys):
    share = 8 // number if number > 1 else None
    expected = [Slot(f"cuda:{index // 2}", share) for index in range(number)]
    assert slots_here(["0", "1", "2", "3"], 0.5, None, memory) == expected
    said = capsys.readouterr().err
    assert said == f"warning: of 8 trainings at once the memory holds {number}: so many run\n"


class Attempts:
    """Attempts that end when they are let, or do what is asked of them."""

    def __init__(self):
        self.lock, self.let = threading.Lock(), threading.Event()
        self.now, self.most, self.slots = 0, 0, []

    def __call__(self, job: Job, slot: Slot, beat: Callable[[str, Progress], int]) -> Ending:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.slots.append(slot)
        if job.task.name == "broken":
            raise OSError(28, "No space left on device")
        asked = GO_ON
        while asked == GO_ON and not self.let.wait(0.01):
            asked = beat(job.task.name, Progress("here", 3, "line"))
        with self.lock:
            self.now -= 1
        return Ending({GO_ON: 0, SAVE: 130, STOP: -9}[asked], job.task.name, "here")


@pytest.fixture
def attempts(monkeypatch) -> Iterator[Attempts]:
    attempts = Attempts()
    monkeypatch.setattr(local, "attempt", attempts)
    yield attempts
    attempts.let.set()


def begun(names: str, slots: list[Slot], attempts: Attempts) -> LocalExecutor:
    """Start tasks; wait until all slots are taken."""
    executor = LocalExecutor(slots)
    for name in names:
        executor.start(job_called(name))
    wait_for(lambda: attempts.now == min(len(names), len(slots)))
    return executor


def wait_for(there: Callable[[], bool]) -> None:
    for _ in range(100 * SECONDS):
        if there():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came")


def all_ended(executor: LocalExecutor, count: int) -> dict[str, object]:
    found: dict[str, object] = {}
    while len(found) < count:
        ended = executor.ended(SECONDS)
        assert ended
        found |= {one.task.name: ending for one, ending in ended}
    return found


def test_each_slot_has_one_attempt_at_a_time(attempts):
    slots = [Slot(f"cuda:{number}") for number in range(3)]
    executor = begun("abcdefgh", slots, attempts)
    assert executor.slots == 3
    assert {*attempts.slots} == {*slots}
    attempts.let.set()
    assert {ending.code for ending in all_ended(executor, 8).values()} == {0}
    assert attempts.most == 3
    executor.close()


def test_there_may_be_more_slots_than_tasks_and_none_without_any(attempts):
    executor = begun("ab", [Slot()] * 5, attempts)
    attempts.let.set()
    assert len(all_ended(executor, 2)) == 2
    executor.close()
    none = LocalExecutor([])
    assert (none.slots, none.ended(0.01), none.progress()) == (0, [], {})
    none.close()


def test_while_nothing_ends_its_progress_is_known(attempts):
    executor = begun("a", [Slot()], attempts)
    wait_for(lambda: executor.progress() == {"a": Progress("here", 3, "line")})
    assert executor.ended(0.01) == []
    executor.close()


def test_what_an_attempt_raises_is_its_ending(attempts):
    executor = LocalExecutor([Slot()])
    executor.start(job_called("broken"))
    [(one, error)] = executor.ended(SECONDS)
    assert (one.task.name, error.errno) == ("broken", 28)
    attempts.let.set()
    executor.start(job_called("next"))  # has the slot
    assert all_ended(executor, 1)["next"].code == 0
    executor.close()


def test_to_save_is_asked_of_what_runs_and_nothing_more_begins(attempts):
    executor = begun("abcd", [Slot()] * 2, attempts)
    executor.save()
    found = all_ended(executor, 4)
    assert [found[name].code for name in "ab"] == [130, 130]
    assert [found[name] for name in "cd"] == [None, None]
    assert len(attempts.slots) == 2
    executor.close()


def test_closed_it_stops_what_runs_and_begins_nothing(attempts):
    executor = begun("abcd", [Slot()] * 2, attempts)
    executor.close()
    assert (attempts.now, len(attempts.slots)) == (0, 2)
    assert [ending.code for _, ending in executor.ended(SECONDS) if ending] == [-9, -9]


def test_a_home_folder_is_found_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    where = data_of(job_called("a"), "~/data")
    assert where == ("mvtec_ad", tmp_path / "data", "a")

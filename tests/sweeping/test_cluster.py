"""The cluster that tests lose nodes of: what is lost with a node, and what is not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.sweeping.cluster import Nodes, descendants

pytestmark = pytest.mark.slow
TETHER = REPOSITORY / "sweeping" / "tethered.py"


@pytest.fixture(scope="module")
def ray(ray_cluster):
    import ray

    ray.init(ray_cluster.address, log_to_driver=False, logging_level="error")
    return ray


def start_sleepers(ray, folder: Path, count: int):
    """Start tasks that wait for a tethered and a free process; return their references.

    Each leaves the numbers of its node's, its own and their processes in a file, as soon as the
    tether is tied, which it is when its program has begun.
    """

    @ray.remote(num_cpus=1, max_retries=0)
    def sleep() -> None:
        tether = [sys.executable, "-I", str(TETHER), str(os.getpid())]
        tethered, free = (subprocess.Popen([*line, "/bin/sleep", "60"]) for line in (tether, []))
        while Path(f"/proc/{tethered.pid}/comm").read_text() != "sleep\n":
            time.sleep(0.1)
        numbers = (os.getppid(), os.getpid(), tethered.pid, free.pid)
        aside = folder / f".{os.getpid()}"
        aside.write_text(" ".join(map(str, numbers)))
        aside.rename(folder / f"{os.getpid()}.pids")
        free.wait()

    return [sleep.remote() for _ in range(count)]


def started(folder: Path, count: int) -> dict[int, list[int]]:
    """Wait for tasks; return the numbers that they leave, by their nodes'."""
    deadline = time.monotonic() + 60
    while len(files := list(folder.glob("*.pids"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    rows = [[int(number) for number in file.read_text().split()] for file in files]
    return {node: rest for node, *rest in rows}


def alive(pids: list[int]) -> list[bool]:
    """Tell of each process whether it is alive; a zombie is not."""
    states = []
    for pid in pids:
        try:
            states.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
        except OSError:
            states.append("Z")
    return [state != "Z" for state in states]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot be tethered")
def test_a_lost_node_takes_with_it_what_is_tethered_and_nothing_of_the_others(
    ray, ray_cluster: Nodes, tmp_path
):
    tasks = start_sleepers(ray, tmp_path, 3)
    pids = started(tmp_path, 3)
    assert len(pids) == 3  # one on each node
    lost = ray_cluster.raylet(0).pid
    ray_cluster.kill(0)
    ended, running = ray.wait(tasks, num_returns=1, timeout=30)
    assert len(running) == 2
    with pytest.raises(ray.exceptions.NodeDiedError):
        ray.get(ended[0])
    of_lost = pids.pop(lost)
    deadline = time.monotonic() + 30
    while any((states := alive(of_lost))[:2]) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(of_lost[-1], signal.SIGKILL)
    assert states == [False, False, True]
    assert [alive(rest) for rest in pids.values()] == [[True] * 3] * 2

    ray_cluster.add()
    for task in running:
        ray.cancel(task, force=True)
    assert ray.cluster_resources()["CPU"] == 3


def test_it_listens_on_the_loopback_interface_alone(ray_cluster: Nodes):
    import psutil

    ours = {process.pid for process in descendants()}
    sockets = [socket for socket in psutil.net_connections("tcp") if socket.pid in ours]
    hosts = [socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN]
    assert len(hosts) > 10
    assert {host.removeprefix("::ffff:") for host in hosts} <= {"127.0.0.1", "::1"}

"""A cluster of Ray on this machine, listening on its loopback interface alone, to lose nodes of."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

HOST = "127.0.0.1"
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray listens on every interface
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}
SMALL = {"node_ip_address": HOST, "object_store_memory": 80 * 2**20}  # bytes
HEALTH = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500}
HEALTH |= {"health_check_timeout_ms": 2000, "health_check_failure_threshold": 2}


class Nodes:
    """A head that runs no task, and `count` nodes of one core each; `address` is the cluster's."""

    def __init__(self, count: int, folder: str):
        from ray.cluster_utils import Cluster

        head = SMALL | {"num_cpus": 0, "include_dashboard": False, "temp_dir": folder}
        head |= {"_system_config": HEALTH}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self.cluster.address
        self.nodes = []
        for _ in range(count):
            self.add()

    def add(self) -> None:
        """Start a node."""
        self.nodes.append(self.cluster.add_node(num_cpus=1, **SMALL))

    def raylet(self, index: int):
        import psutil  # Ray brings it along

        return psutil.Process(self.nodes[index].all_processes["raylet"][0].process.pid)

    def kill(self, index: int) -> None:
        """Lose a node as a machine is lost: at once, without a word to the others.

        All that Ray runs there is killed; what its tasks have started is left to itself.
        """
        raylet = self.raylet(index)
        raylet.suspend()  # or it would tell of workers that die, and start others
        for process in (*raylet.children(), raylet):
            process.kill()
        self.cluster.remove_node(self.nodes.pop(index), allow_graceful=False)


@contextmanager
def cluster_of(count: int) -> Iterator[Nodes]:
    """Give a cluster; at the end of the block no process and no file of it is left."""
    import ray

    handler = signal.getsignal(signal.SIGTERM)  # Ray sets one of its own
    others = descendants()  # such as a server that other tests need
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        nodes = Nodes(count, folder)
        try:
            yield nodes
        finally:
            processes = [process for process in descendants() if process not in others]
            ray.shutdown()
            nodes.cluster.shutdown()
            signal.signal(signal.SIGTERM, handler)
            left = remaining(processes)
        assert left == []


def descendants() -> list:
    import psutil

    return psutil.Process().children(recursive=True)


def remaining(processes: list, seconds: float = 10) -> list[str]:
    """Kill what is alive after some seconds; return what that was."""
    import psutil

    _, alive = psutil.wait_procs(processes, timeout=seconds)
    names = [f"{process.pid} {process.name()}" for process in alive]
    for process in alive:
        process.kill()
    return names

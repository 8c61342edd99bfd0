"""Attempts on the nodes of a Ray cluster, which places them by what they need."""

from typing import Any

from data.samples import InputError
from sweeping.attempt import Ending, Job, Slot, attempt
from sweeping.board import SAVE, STOP, Board, Progress
from utils.ray_cluster import connect

CORES = 4  # of a training, which decodes its images on them


class Lost(Exception):
    """An attempt ended with the node or the worker that made it."""


class RayExecutor:
    """Makes attempts as tasks of Ray: each takes a part of a GPU, cores and bytes of memory.

    Raises InputError when no node has as much.
    """

    def __init__(self, address: str, gpus: float | None, cpus: int | None, memory: int):
        self.ray = ray = connect(address)
        self.nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = min(1, self.most("GPU")) if gpus is None else gpus
        cpus = min(CORES, self.most("CPU")) if cpus is None else cpus
        self.needs = {"GPU": gpus, "CPU": cpus, "memory": memory}
        if not self.slots:
            raise InputError(
                f"no node of the cluster has {gpus:g} GPUs, {cpus:g} cores and "
                f"{memory / 2**30:.1f} GiB for a training: see --gpus_per_run and --cpus_per_run"
            )
        here = ray.get_runtime_context().get_node_id()  # with this node all ends anyway
        where = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        self.board = ray.remote(num_cpus=0, scheduling_strategy=where)(Board).remote()
        self.refs: dict[Any, Job] = {}
        self.begun: set[str] = set()  # names of tasks
        limits = {"num_gpus": gpus, "num_cpus": cpus, "memory": memory}
        self.attempt = ray.remote(max_retries=0, **limits)(attempt_on_a_node)

    def most(self, resource: str) -> float:
        """Return how much of a resource the node has that has most of it."""
        return max(node.get(resource, 0) for node in self.nodes)

    @property
    def slots(self) -> int:
        """How many attempts fit at once."""
        fit = (
            min(int(node.get(k, 0) / v) for k, v in self.needs.items() if v) for node in self.nodes
        )
        return sum(fit)

    def start(self, job: Job) -> None:
        """Make an attempt as soon as a node has room."""
        ref = self.attempt.options(name=job.task.name).remote(job, self.board)
        self.refs[ref] = job

    def ended(self, seconds: float) -> list[tuple[Job, Ending | Exception | None]]:
        """Return how attempts have ended since the last call, see `LocalExecutor.ended`."""
        done, _ = self.ray.wait(list(self.refs), num_returns=1, timeout=seconds)
        return [(self.refs.pop(ref), self._outcome(ref)) for ref in done]

    def _outcome(self, ref) -> Ending | Exception | None:
        errors = self.ray.exceptions
        try:
            return self.ray.get(ref)
        except errors.TaskCancelledError:
            return None
        except errors.RayTaskError as error:
            return error.cause
        except errors.OutOfMemoryError as error:
            return error
        except errors.RayError as error:
            return Lost(str(error).partition("\n")[0])

    def progress(self) -> dict[str, Progress]:
        found = self.ray.get(self.board.progress.remote())
        self.begun |= found.keys()
        return found

    def save(self) -> None:
        """Let what runs save and end; begin nothing more."""
        self.ray.get(self.board.ask.remote(SAVE))
        self.progress()
        for ref, job in self.refs.items():
            if job.task.name not in self.begun:
                self.ray.cancel(ref)

    def close(self) -> None:
        """End what still runs, at once."""
        self.ray.get(self.board.ask.remote(STOP))
        self.ray.shutdown()


def attempt_on_a_node(job: Job, board) -> Ending:
    """Make an attempt on the device that Ray has given this process."""

    def beat(name: str, progress: Progress) -> int:  # in `ray.get` it would lend its cores
        return board.beat.remote(name, progress).future().result()

    return attempt(job, Slot(), beat)

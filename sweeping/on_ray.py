"""Attempts on the nodes of a Ray cluster, which places them by what they need."""

import errno
import time
from contextlib import suppress
from typing import Any

from data.samples import InputError
from sweeping.attempt import Ending, Job, Slot, attempt
from sweeping.board import GO_ON, SAVE, STOP, Board, Progress
from utils.ray_cluster import PATIENCE, beside_driver, connect, is_there

CORES = 4  # of a training, which decodes its images on them
LOOK, GONE = 5.0, 30.0  # seconds between two looks at the cluster; that its head may be silent


class Lost(Exception):
    """An attempt ended with the node or the worker that made it."""


class RayExecutor:
    """Makes attempts as tasks of Ray: each takes a part of a GPU, cores and bytes of memory.

    Raises InputError when no node has as much.
    """

    def __init__(self, address: str, gpus: float | None, cpus: int | None, memory: int):
        self.ray = ray = connect(address)
        self.looked = float("-inf")
        self.head = ray.get_runtime_context().gcs_address
        self.look()
        gpus = min(1, self.most("GPU")) if gpus is None else gpus
        cpus = max(1, min(CORES, self.most("CPU"))) if cpus is None else cpus
        self.needs = {"GPU": gpus, "CPU": cpus, "memory": memory}
        if not self.slots:
            raise InputError(
                f"no node of the cluster has {gpus:g} GPUs, {cpus:g} cores and "
                f"{memory / 2**30:.1f} GiB for a training: wait for its nodes, or lower "
                "--gpus_per_run or --cpus_per_run"
            )
        self.board, self.asked = beside_driver(ray, Board), GO_ON
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

    def look(self) -> None:
        """Learn which nodes there are by now.

        Raises OSError when the head is gone: Ray would try for longer, then end this process.
        """
        now = time.monotonic()
        if now - self.looked < LOOK:
            return
        if is_there(self.head):
            nodes = self.ray.nodes()
            self.nodes = [node["Resources"] for node in nodes if node["Alive"]]
            self.looked = now
        elif now - self.looked > GONE:
            text = "the cluster's head is gone: with a new one the same command goes on from here"
            raise OSError(errno.EHOSTDOWN, text, self.head)

    def start(self, job: Job) -> None:
        """Make an attempt as soon as a node has room."""
        self.begun.discard(job.task.name)
        ref = self.attempt.options(name=job.task.name).remote(job, self.board)
        self.refs[ref] = job

    def ended(self, seconds: float) -> list[tuple[Job, Ending | Exception | None]]:
        """Return how attempts have ended since the last call, see `LocalExecutor.ended`.

        Raises OSError when the cluster is gone.
        """
        self.look()
        done, _ = self.ray.wait(list(self.refs), num_returns=1, timeout=seconds)
        return [(self.refs.pop(ref), self._outcome(ref)) for ref in done]

    def _outcome(self, ref) -> Ending | Exception | None:
        errors = self.ray.exceptions
        lost = (errors.WorkerCrashedError, errors.NodeDiedError, errors.LocalRayletDiedError)
        try:
            return self.ray.get(ref)
        except errors.TaskCancelledError:
            return None
        except errors.RayTaskError as error:
            return error.cause or error
        except (*lost, errors.ObjectLostError) as error:
            return Lost(str(error).partition("\n")[0])
        except errors.RayError as error:
            return error

    def progress(self) -> dict[str, Progress]:
        found = self.ray.get(self.board.exchange.remote(self.asked))
        self.begun |= found.keys()
        return found

    def save(self) -> None:
        """Let what runs save and end; begin nothing more."""
        self.asked = SAVE
        self.progress()
        for ref, job in self.refs.items():
            if job.task.name not in self.begun:
                self.ray.cancel(ref)

    def close(self) -> None:
        """End what still runs, at once."""
        with suppress(self.ray.exceptions.RayError):  # the cluster may be gone
            self.ray.get(self.board.exchange.remote(STOP), timeout=PATIENCE)
        self.ray.shutdown()


def attempt_on_a_node(job: Job, board) -> Ending:
    """Make an attempt on the device that Ray has given this process."""

    def beat(name: str, progress: Progress) -> int:  # in `ray.get` it would lend its cores
        return board.beat.remote(name, progress).future().result()

    return attempt(job, Slot(), beat)

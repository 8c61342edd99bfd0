"""The processes that torchrun started, on one machine or many; one alone without it."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from data.samples import InputError

PATIENCE = 3  # seconds


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Tell whether this one prints, logs, reads and writes for all."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """Return which places of a batch are this process's: all have equally many."""
        share = batch_size // self.count
        return slice(self.rank * share, (self.rank + 1) * share)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Turn each process's tensor into the sum of all, in place; return it."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def from_leader(self, value: Any) -> Any:
        """Return the leading process's value, of plain objects and tensors on the CPU."""
        box = [value]
        if self.count > 1:
            distributed.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Return when all processes have called this."""
        if self.count > 1:
            distributed.barrier()

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network whose gradients are the mean of all processes'."""
        return DistributedDataParallel(network) if self.count > 1 else network


def process_count(where: str = "WORLD_SIZE") -> int:
    """Return how many processes torchrun started, or on this machine (LOCAL_WORLD_SIZE)."""
    return int(os.environ.get(where, "1")) if distributed.is_torchelastic_launched() else 1


def own_gpu() -> str:
    """Return the name of the GPU that torchrun means for this process."""
    return f"cuda:{os.environ['LOCAL_RANK']}"


@contextmanager
def said_once() -> Iterator[None]:
    """Let one process on each machine report an InputError that all of them meet alike."""
    try:
        yield
    except InputError:
        if process_count() > 1 and os.environ["LOCAL_RANK"] != "0":
            time.sleep(PATIENCE)  # torchrun ends the others when the first ends
            sys.exit(2)
        raise


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Meet the other processes, and part from them when all are done."""
    if process_count() == 1:
        yield Processes()
        return
    on_cuda = device.type == "cuda"
    distributed.init_process_group(
        "nccl" if on_cuda else "gloo", device_id=device if on_cuda else None
    )
    processes = Processes(distributed.get_rank(), distributed.get_world_size())
    try:
        yield processes
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            text = "another process has ended: see its error, then go on with --resume"
            raise RuntimeError(text) from error
        raise
    # a process that fails must not come here: both calls wait for others, who wait for it
    processes.wait()
    distributed.destroy_process_group()

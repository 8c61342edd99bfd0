"""The processes that torchrun started, on one machine or many; one alone without it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Tell whether this one prints, logs and writes for all."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """Return which places of a batch are this process's: all have equally many."""
        share = batch_size // self.count
        return slice(self.rank * share, (self.rank + 1) * share)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of all the processes' tensors, in every process."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network whose gradients are the mean of all processes'."""
        return DistributedDataParallel(network) if self.count > 1 else network


def world_size() -> int:
    """Return how many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_device() -> str:
    """Return the name of the device that torchrun means for this process."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Meet the other processes, and part from them when all are done."""
    if world_size() == 1:
        yield Processes()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend)
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
        distributed.barrier()  # only where nobody failed: a failed one never arrives
    finally:
        distributed.destroy_process_group()

"""Where and how to compute: device, precision, CUDA graphs."""

import argparse
import contextlib
import platform
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from data.samples import InputError
from utils.options import PRECISIONS

DTYPES = dict(zip(PRECISIONS, (torch.float32, torch.bfloat16, torch.float16), strict=True))


@dataclass(frozen=True)
class Compute:
    """Where and how to compute; `pick_compute` makes it from the options."""

    device: torch.device
    precision: str = "fp32"
    compiler: str = "none"
    scoring_batch_size: int = 1

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    @property
    def on_cuda(self) -> bool:
        """Whether a host's memory is worth pinning, for a GPU to fetch it meanwhile."""
        return self.device.type == "cuda"

    def place(self, network: nn.Module) -> nn.Module:
        """Put a network on the device, channels last: faster everywhere, by half on a CPU."""
        return network.to(self.device, memory_format=torch.channels_last)

    def autocast(self) -> contextlib.AbstractContextManager:
        """Run a block's matrix products in the precision; fp32 changes nothing."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a host's tensor where a GPU can fetch it while the program goes on."""
        return tensor.pin_memory() if self.on_cuda and tensor.device.type == "cpu" else tensor


def set_up(device: torch.device) -> torch.device:
    """Make `device` this process's own; return it."""
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # graphs and page-locked memory belong to one
        torch.backends.cudnn.benchmark = True  # there are few shapes,
        torch.backends.cudnn.benchmark_limit = 0  # for which all algorithms are tried, not ten
    return device


def pick_compute(options: argparse.Namespace) -> Compute:
    """Return how to compute by the machine options; raises InputError for what is not here."""
    device = set_up(pick_device(options))
    batch_size = getattr(options, "scoring_batch_size", None)
    batch_size = batch_size or (1 if device.type == "cpu" else 16)
    return Compute(
        device,
        pick_precision(options, device),
        pick_compiler(options, device),
        batch_size,
    )


def as_trained(compute: Compute, asked: str, trained: str) -> Compute:
    """Return how to score where --precision auto is the precision that it was `trained` in."""
    if asked == "auto" and supports(trained, compute.device):
        return replace(compute, precision=trained)
    return compute


def device_name(device: torch.device) -> str:
    """Return what a device is called: a GPU's model, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name() if device.type == "cpu" else device.type


def processor_name() -> str:
    """Return what the processor is called, as far as the system says."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return name


def pick_compiler(options: argparse.Namespace, device: torch.device) -> str:
    """Return --compile, one of COMPILERS; auto is a CUDA graph where there is CUDA."""
    if options.compile == "auto":
        return "graph" if device.type == "cuda" else "none"
    if options.compile == "graph" and device.type != "cuda":
        warnings.warn(f"--compile graph needs CUDA: running eagerly on {device}", stacklevel=2)
        return "none"
    return options.compile


def pick_device(options: argparse.Namespace) -> torch.device:
    """Return the device of --device or --device_gpu.

    Raises InputError when the device asked for by name is not on this machine. `--device_gpu N`,
    which scripts carry from machine to machine, falls back to the CPU with a warning.
    """
    name = options.device
    if options.device_gpu is not None:
        if not torch.cuda.is_available():
            warnings.warn(
                f"no CUDA device here: --device_gpu {options.device_gpu} is ignored, using the CPU",
                stacklevel=2,
            )
            return torch.device("cpu")
        name = f"cuda:{options.device_gpu}"
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", name):
        raise InputError(f"--device {name}: choose auto, cpu, cuda, cuda:N or mps")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: there is no Apple GPU here; use --device auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise InputError(f"--device {name}: {count} CUDA devices here; use --device auto")
    return device


def pick_precision(options: argparse.Namespace, device: torch.device) -> str:
    """Return --precision, one of PRECISIONS; auto is bf16 where the hardware multiplies it."""
    if options.precision == "auto":
        return "bf16" if supports("bf16", device) else "fp32"
    if options.precision == "fp16" and not supports("fp16", device):
        raise InputError("--precision fp16 needs a CUDA device; use bf16 or fp32")
    return options.precision


def supports(precision: str, device: torch.device) -> bool:
    """Tell whether the device's hardware multiplies in a precision."""
    if precision == "fp16":
        return device.type == "cuda"
    if precision == "bf16" and device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if precision == "bf16":
        # AVX-512 BF16 or AMX instructions; without them bf16 is emulated, slower than fp32
        kinds = (torch.cpu._is_avx512_bf16_supported, torch.cpu._is_amx_tile_supported)
        return device.type == "cpu" and any(kind() for kind in kinds)
    return True


def in_float64(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in double precision, which an Apple GPU lacks: then on the CPU."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def seed_everything(seed: int) -> None:
    """Seed what cannot take a generator: initial weights and dropout."""
    torch.manual_seed(seed)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its work; timings need it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

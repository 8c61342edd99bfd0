"""What a figure depends on beside the code: the machine, its memory, how fast it multiplies."""

import os
import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.memory import peak_memory
from benchmarks.timing import repeated, time_blocks
from deployment.compiled import compile_model
from evaluation.evaluation import versions
from utils.devices import Compute, processor_name

MATRIX_SIDES = {"cuda": 8192, "cpu": 2048}  # large enough to be bound by arithmetic
MATRIX_REPEATS = 10


def machine(compute: Compute | None = None) -> dict:
    """Describe this machine, and the device that was used."""
    found = {"processor": processor_name(), "cores": os.cpu_count(), "system": platform.system()}
    found |= versions()
    if compute:
        found |= {"device": compute.device.type, "threads": torch.get_num_threads()}
        if compute.device.type == "cuda":
            found |= {"device": torch.cuda.get_device_name(compute.device)}
    return found


def speed_settings(compute: Compute) -> dict[str, str]:
    """Return how a detector computed."""
    return {"precision": compute.precision, "compile": compute.compiler}


def in_fresh_process(function, *arguments):
    """Return what `function` returns in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def forget_peaks(compute: Compute) -> None:
    """Begin to look for peaks of memory anew."""
    if compute.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(compute.device)
    with suppress(OSError):  # Linux alone can forget a process's
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_memories(compute: Compute) -> dict[str, int]:
    """Return the peaks so far in bytes: of the device, which may be the host, and of the host."""
    host = peak_memory()
    on_cuda = compute.device.type == "cuda"
    device = torch.cuda.max_memory_reserved(compute.device) if on_cuda else host
    return {"peak_memory_bytes": device, "peak_host_memory_bytes": host}


@torch.no_grad()
def matmul_rate(compute: Compute) -> float:
    """Return the operations a second of a large square matrix product, the best of several.

    In the device's precision: what no network of convolutions can exceed by much. The product is
    taken by the library of matrix products and, as a 1 x 1 convolution, by that of convolutions,
    since either may be poor on a device.
    """
    side = MATRIX_SIDES.get(compute.device.type, 2048)
    a, b = (torch.randn(side, side, device=compute.device).to(compute.dtype) for _ in range(2))
    image = a.view(1, side, 1, side).permute(0, 3, 1, 2)  # (1, C, side, 1), channels last
    kernel = b.t().reshape(side, side, 1, 1).contiguous(memory_format=torch.channels_last)
    ways = {"mm": repeated(lambda: a @ b), "conv": repeated(lambda: F.conv2d(image, kernel))}
    time_blocks(ways, compute.device, 2, 1, 1)
    seconds = time_blocks(ways, compute.device, 0, 1, MATRIX_REPEATS)
    return 2 * side**3 / min(s for blocks in seconds.values() for s in blocks)


def int8_rate(threads: int) -> float:
    """Return the operations a second of a large square product of int8, the best of several.

    By torch and, where it is installed, by OpenVINO, since either may be poor on a machine.
    """
    side = MATRIX_SIDES["cpu"]
    a, b = (torch.randint(-128, 128, (side, side), dtype=torch.int8) for _ in range(2))
    ways = {"torch": repeated(lambda: torch._int_mm(a, b))}
    with suppress(ImportError):
        ways["openvino"] = repeated(openvino_product(a.numpy(), threads))
    device = torch.device("cpu")
    time_blocks(ways, device, 2, 1, 1)
    seconds = time_blocks(ways, device, 0, 1, MATRIX_REPEATS)
    return 2 * side**3 / min(s for blocks in seconds.values() for s in blocks)


def openvino_product(weights: np.ndarray, threads: int) -> Callable[[], object]:
    """Return what multiplies bytes by `weights`, int8, in OpenVINO: as networks of INT8 do it.

    Both sides of the product are rounded to 256 levels, which is what makes it one of int8.
    """
    import openvino
    from openvino import opset13

    def rounded(values, *ends: float):
        return opset13.fake_quantize(values, *map(np.float32, 2 * ends), levels=256)

    image = opset13.parameter(weights.shape, np.uint8)
    levels = rounded(opset13.convert(image, "f32"), 0, 255)
    scaled = opset13.multiply(opset13.convert(opset13.constant(weights), "f32"), np.float32(0.01))
    product = rounded(opset13.matmul(levels, scaled, False, True), -1e4, 1e4)
    model = openvino.Model([product], [image])
    hints = {"INFERENCE_NUM_THREADS": threads}
    request = compile_model(model, "CPU", hints).create_infer_request()
    request.set_input_tensor(openvino.Tensor(weights.view(np.uint8)))
    return request.infer

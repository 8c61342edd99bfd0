"""Time steps of work, alone or against another way to do it."""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from utils.devices import Compute, synchronise

# A way to do the work: entering it starts what works in the background, and gives one step.
Contender = Callable[[], AbstractContextManager[Callable[[], object]]]
OURS = "ours"


def repeated(step: Callable[[], object]) -> Contender:
    """Return a contender that needs nothing in the background."""
    return lambda: nullcontext(step)


def time_blocks(
    contenders: dict[str, Contender], device: torch.device, warm_up: int, steps: int, repeats: int
) -> dict[str, list[float]]:
    """Time contenders in turn, A B A B …, so that all meet the machine in the same moods.

    Returns for each the seconds per step of every block. A block is `warm_up` steps that do not
    count, then `steps` that do, with the device waited for before and after.
    """
    seconds = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            with contender() as step:
                for _ in range(warm_up):
                    step()
                synchronise(device)
                begun = time.perf_counter()
                for _ in range(steps):
                    step()
                synchronise(device)
                seconds[name].append((time.perf_counter() - begun) / steps)
    return seconds


def spread(values: list[float], name: str) -> dict[str, float]:
    """Return the median, the smallest and the largest of several figures, by name."""
    return {name: statistics.median(values), f"{name}_min": min(values), f"{name}_max": max(values)}


def blocks(options: argparse.Namespace, compute: Compute) -> tuple[int, int, int]:
    """Return the warm-up, the timed steps and the repeats of a benchmark's blocks.

    A GPU's steps take milliseconds, so that a block needs more of them.
    """
    steps = options.steps or (200 if compute.device.type == "cuda" else 10)
    return options.warm_up, steps, options.repeats


def compared(seconds: dict[str, list[float]], unit: str, scale: int = 1) -> dict:
    """Return our seconds per `unit` and, beside another way's, the ratio block by block.

    `seconds` as from `time_blocks`; a step is `scale` units.
    """
    per_unit = {name: [s / scale for s in blocks] for name, blocks in seconds.items()}
    result = spread(per_unit[OURS], f"seconds_per_{unit}")
    for name in per_unit.keys() - {OURS}:
        result[name] = spread(per_unit[name], f"seconds_per_{unit}")
        ratios = [b / a for a, b in zip(per_unit[OURS], per_unit[name], strict=True)]
        result |= spread(ratios, "ratio")
    return result

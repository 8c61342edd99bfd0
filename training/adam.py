"""An optimiser's state as named tensors, to be stored beside a network's."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

MOMENTS, STEP = ("exp_avg", "exp_avg_sq"), "step"  # what Adam knows of a parameter


def prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put a prefix before each key."""
    return {f"{prefix}.{key}": tensor for key, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return those that `prefixed` has marked, under their former keys."""
    start = f"{prefix}."
    return {key[len(start) :]: t for key, t in tensors.items() if key.startswith(start)}


def adam_tensors(adam: torch.optim.Adam) -> dict[str, torch.Tensor]:
    """Return an optimiser's state as named tensors."""
    state = adam.state_dict()["state"]
    return {f"{i}.{name}": state[i][name] for i in state for name in (*MOMENTS, STEP)}


def empty_adam_tensors(parameters: Iterable[nn.Parameter]) -> dict[str, torch.Tensor]:
    """Return what `adam_tensors` gives after a step, without memory."""
    found = {}
    for index, parameter in enumerate(parameters):
        found |= {f"{index}.{m}": torch.empty(parameter.shape, device="meta") for m in MOMENTS}
        found[f"{index}.{STEP}"] = torch.empty((), device="meta")
    return found


def restore_adam(adam: torch.optim.Adam, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give an optimiser the state that `adam_tensors` returned; its own settings stay."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = tensor
    groups = adam.state_dict()["param_groups"]  # this device's, not the former one's
    adam.load_state_dict({"state": state, "param_groups": groups})
    for parameter, kept in adam.state.items():  # the fused step wants one memory format
        for name in MOMENTS:
            kept[name] = torch.empty_like(parameter.detach()).copy_(kept[name])

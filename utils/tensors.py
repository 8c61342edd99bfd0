"""Files of tensors: equal ones of equal tensors, read without trust."""

import json
from collections.abc import Container, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from data.samples import require_file
from utils.files import written_aside

DTYPE_NAMES = {
    torch.int64: "I64",
    torch.bool: "BOOL",
    torch.float32: "F32",
    torch.uint8: "U8",
}  # of what we store and read again


def save_tensors(tensors: dict[str, torch.Tensor], path: Path, about: dict) -> None:
    """Write a .safetensors file; equal arguments give equal bytes.

    `about` is stored as JSON under one key: safetensors orders several keys at random.
    """
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with written_aside(path) as aside:
        aside.write_bytes(save(plain, {"about": json.dumps(about)}))


def opened(path: Path) -> safe_open:
    """Open a .safetensors file. Raises DAMAGED for what is none."""
    require_file(path)
    return safe_open(path, framework="pt")


def read_about(path: Path) -> dict:
    """Return what `save_tensors` stored beside the tensors.

    Raises DAMAGED for a file that is not ours or not whole.
    """
    with opened(path) as file:
        about = json.loads((file.metadata() or {})["about"])
    if not isinstance(about, dict):
        raise ValueError("its description is none of ours")
    return about


def check_tensors(
    path: Path, like: Mapping[str, torch.Tensor], optional: Container[str] = ()
) -> None:
    """Compare what a .safetensors file says it holds with `like`, which may be on "meta".

    Reads the header alone. Raises DAMAGED, naming the first of the tensors that it lacks, unless it
    is `optional`, has of another shape or type, or has beside them.
    """
    with opened(path) as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        for key, tensor in like.items():
            if key not in slices and key in optional:
                continue
            if key not in slices:
                raise ValueError(f"it holds no {key}")
            found = slices[key].get_dtype(), tuple(slices[key].get_shape())
            expected = DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)
            if found != expected:
                raise ValueError(f"{key} is {describe(*found)}, not {describe(*expected)}")
    for key in slices.keys() - like.keys():
        raise ValueError(f"it holds {key}, which does not belong there")


def describe(dtype: str, shape: tuple[int, ...]) -> str:
    """Return a tensor's type and shape for people: F32 384 x 3."""
    return f"{dtype} {' x '.join(map(str, shape)) or 'number'}"


def read_tensors(
    path: Path,
    like: Mapping[str, torch.Tensor],
    former: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> dict[str, torch.Tensor]:
    """Read a .safetensors file that must hold what `like` does; raises as `check_tensors`.

    So no more memory is taken than `like` says, whatever the file does. `former` stands in for what
    files of earlier versions lack.
    """
    check_tensors(path, like, former)
    # copies: those of `load_file` hold on to the file, which is to be replaced
    return {key: tensor.clone() for key, tensor in {**former, **load_file(path)}.items()}

"""The formats that export.py writes, each with what it needs."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from deployment.description import Description
from deployment.graph import ScoringGraph
from deployment.onnx_file import check_onnx, write_onnx
from deployment.openvino_file import check_openvino, write_openvino
from deployment.quantisation import Good
from deployment.torch_file import write_torch


class Format(NamedTuple):
    """A kind of file."""

    suffix: str
    runtimes: str  # that run it, in words
    precisions: tuple[str, ...]  # of the networks; that of the description is what is written
    check: Callable[[], None]  # raises InputError when what writes it is not installed
    write: Callable[[ScoringGraph, Description, Path, Good | None], None]


FORMATS = {
    "onnx": Format(".onnx", "ONNX Runtime, OpenVINO, TensorRT", ("fp32",), check_onnx, write_onnx),
    "openvino": Format(
        ".xml", "OpenVINO", ("fp32", "bf16", "int8"), check_openvino, write_openvino
    ),
    "torch": Format(".pt2", "PyTorch", ("fp32", "bf16"), lambda: None, write_torch),
}

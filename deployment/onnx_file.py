"""Write a graph as one ONNX file, which says what it does."""

import warnings
from pathlib import Path

import torch

from data.samples import InputError
from deployment.description import INPUT, OUTPUTS, Description
from deployment.graph import ScoringGraph
from utils.files import written_aside

OPSET = 18  # the oldest that torch writes by itself
EXAMPLE = (2, 67, 71)  # images, height, width: none is special, all may differ


def check_onnx() -> None:
    """Raise InputError when what writes ONNX is not installed."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--format onnx needs {error.name}: pip install -r requirements-onnx.txt"
        ) from error


def write_onnx(graph: ScoringGraph, description: Description, path: Path, _: object) -> None:
    """Write `graph` to `path`, whole or not at all: weights inside, nothing of this machine."""
    program = traced(graph, bool(description.experts))
    program.model.metadata_props.update(description.texts())
    with written_aside(path) as aside:
        program.save(aside, external_data=False)


def traced(graph: ScoringGraph, experts: bool) -> "torch.onnx.ONNXProgram":
    """Return `graph` in ONNX: with scores of `experts` or not, nothing of this machine.

    Numbers of images are free, and so are their sizes where the graph resizes.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    number, *sides = EXAMPLE
    free = {0: torch.export.Dim("N", min=1)}
    if graph.resizes:
        free |= {1: torch.export.Dim("H", min=1), 2: torch.export.Dim("W", min=1)}
    else:
        sides = graph.size
    example = torch.zeros(number, *sides, 3, dtype=torch.uint8)
    graph(example)  # makes constants, which a trace must not
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's own ways
        program = torch.onnx.export(
            graph,
            (example,),
            input_names=[INPUT],
            output_names=[name for name in OUTPUTS if name != "experts" or experts],
            opset_version=OPSET,
            dynamic_shapes=(free,),
            dynamo=True,
            verbose=False,
        )
    ClearMetadataAndDocStringPass()(program.model)  # paths of source files among them
    return program

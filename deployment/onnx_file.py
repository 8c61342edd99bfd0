"""Write a graph as one ONNX file, which says what it does."""

import warnings
from pathlib import Path

import torch

from data.samples import InputError
from deployment.description import INPUT, OUTPUTS, Description
from deployment.graph import ScoringGraph, expressing, traced
from utils.files import written_aside

OPSET = 18  # the oldest that torch writes by itself


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
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    names = [name for name in OUTPUTS if name != "experts" or description.experts]
    with expressing("onnx"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own ways
        program = torch.onnx.export(
            traced(graph),
            input_names=[INPUT],
            output_names=names,
            dynamic_shapes=(graph.free,),  # as words, or the axes have no names
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    ClearMetadataAndDocStringPass()(program.model)  # paths of source files among them
    program.model.metadata_props.update(description.texts())
    with written_aside(path) as aside:
        program.save(aside, external_data=False)

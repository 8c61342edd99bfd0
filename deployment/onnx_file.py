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
    program = onnx_program(graph, description)
    suit_tensorrt(program.model.graph)
    program.model.metadata_props.update(description.texts())
    with written_aside(path) as aside:
        program.save(aside, external_data=False)


def onnx_program(graph: ScoringGraph, description: Description) -> torch.onnx.ONNXProgram:
    """Return `graph` in ONNX; as yet it says nothing of itself."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    with expressing("onnx"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own ways
        program = torch.onnx.export(
            traced(graph),
            input_names=[INPUT],
            output_names=[name for name in OUTPUTS if name != "experts" or description.experts],
            dynamic_shapes=(graph.free,),  # as words, or the axes have no names
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    ClearMetadataAndDocStringPass()(program.model)  # paths of source files among them
    return program


def suit_tensorrt(graph) -> None:
    """Say in words that TensorRT takes what an onnx_ir.Graph says; the numbers stay the same.

    It knows uint8 only as an input that is cast at once, compares no bools, sorts what TopK gives,
    and wants Squeeze to name its axes. Source: onnx-tensorrt, docs/operators.md.
    """
    import onnx_ir as ir

    def cast(value: ir.Value, kind: ir.DataType, before: ir.Node) -> ir.Value:
        node = ir.node("Cast", [value], {"to": kind.value})
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(kind), value.shape
        graph.insert_before(before, node)
        return node.outputs[0]

    image, readers = graph.inputs[0], graph.inputs[0].uses()
    floats = cast(image, ir.DataType.FLOAT, graph[0])
    for node, place in readers:
        node.replace_input_with(place, floats)
    first = ir.Value(name="first_axis", const_value=ir.tensor([0], name="first_axis"))
    for node in graph:
        for value in node.outputs:
            if value.dtype == image.dtype:
                value.type = floats.type
        if node.op_type == "Equal" and node.inputs[0].dtype == ir.DataType.BOOL:
            for place, value in enumerate(node.inputs):
                node.replace_input_with(place, cast(value, ir.DataType.INT32, node))
        elif node.op_type == "TopK":
            node.attributes["sorted"] = ir.AttrInt64("sorted", 1)
        elif node.op_type == "Squeeze" and len(node.inputs) == 1:  # of one of Shape's values
            node.resize_inputs(2)
            node.replace_input_with(1, first)
            graph.initializers[first.name] = first

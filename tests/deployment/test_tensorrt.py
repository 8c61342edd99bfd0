"""What TensorRT, which is not here, is known to take: the graph has nothing else."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deployment.graph import ScoringGraph
from deployment.onnx_file import write_onnx
from tests.conftest import disagreeing_detector
from tests.deployment.test_runtimes import HONEST

# Operators by the types that TensorRT 10.15 knows them with, as far as a graph of ours has them.
# Source: onnx-tensorrt, docs/operators.md.
FLOATS, INTEGERS = {TensorProto.FLOAT}, {TensorProto.INT32, TensorProto.INT64}
NUMBERS, BOOLS = FLOATS | INTEGERS, {TensorProto.BOOL}
OPERATORS = {
    "AveragePool Clip Conv Floor MatMul Reciprocal Resize Sqrt": FLOATS,
    "Abs Add Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mod Mul": NUMBERS,
    "Pad Pow Range ReduceL2 ReduceMax ReduceMean ReduceSum Relu Sub TopK": NUMBERS,
    "Concat Expand Gather Reshape Shape Split Squeeze Transpose Unsqueeze Where": NUMBERS | BOOLS,
    "Cast": NUMBERS | BOOLS | {TensorProto.UINT8},
    "And Not": BOOLS,
}
TYPES = {name: types for names, types in OPERATORS.items() for name in names.split()}


@pytest.fixture(params=["statistics", "networks", "without_resize"])
def model(request, exported, tmp_path) -> onnx.ModelProto:
    """A graph of each kind, with the types of all that is in it."""
    path: Path = exported
    if request.param != "statistics":
        path = tmp_path / "detector.onnx"
        detector = disagreeing_detector("glae", (64, 96)).eval()
        graph = ScoringGraph(detector, (64, 96), request.param == "networks").eval()
        write_onnx(graph, HONEST._replace(experts=()), path, None)
    return onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)


def test_tensorrt_knows_every_operator_with_its_types(model):
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    types = {name: tensor.data_type for name, tensor in constants.items()}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    for node in graph.node:
        assert types[node.input[0]] in TYPES[node.op_type], node
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "TopK":
            assert attributes["sorted"] == 1
            assert numpy_helper.to_array(constants[node.input[1]]) < 3840
        if node.op_type in ("Squeeze", "Unsqueeze") or node.op_type.startswith("Reduce"):
            assert node.input[1] in constants  # its axes
        if node.op_type == "Resize":
            assert (attributes["mode"], attributes["antialias"]) == (b"linear", 0)

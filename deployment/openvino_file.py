"""Write a graph as OpenVINO's pair of files: detector.xml, and detector.bin with its weights."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from deployment.description import Description, spread_of
from deployment.exported import REQUIREMENTS, digest, required
from deployment.graph import ScoringGraph
from deployment.onnx_file import check_onnx, onnx_program
from deployment.quantisation import Good, correct_bias, quantised, seen
from deployment.runtimes import convolve_in_bf16
from utils.files import written_aside


def check_openvino() -> None:
    """Raise InputError when what writes OpenVINO's files is not installed."""
    check_onnx()  # it is the way there
    required("openvino", REQUIREMENTS)


def write_openvino(
    graph: ScoringGraph, description: Description, path: Path, good: Good | None
) -> None:
    """Write `graph` to `path` and its weights beside it, whole or not at all.

    In fp32; with convolutions in bf16; or with most of them in INT8, by `good` images. Raises
    InputError when what is below fp32 is not accurate.
    """
    import openvino

    precision = description.precision
    written = graph if precision == "fp32" else graph.lowered(precision)
    content = onnx_program(written, description).model_proto.SerializeToString()
    model = openvino.Core().read_model(content)
    if precision != "fp32":
        exact, images = model.clone(), good and seen(good, graph)
        model = quantised(model, images.train) if precision == "int8" else model
        convolve_in_bf16(model)
        if images:
            correct_bias(exact, model, images, spread_of(description.good_scores))
    for index, node in enumerate(model.get_ordered_ops()):  # its own names count on and on
        if node.get_type_name() not in ("Parameter", "Result"):
            node.set_friendly_name(f"{node.get_type_name()}_{index}")
    for key, text in description.texts().items():
        model.set_rt_info(text, ["framework", key])
    with (
        TemporaryDirectory() as folder,
        written_aside(path) as aside,
        written_aside(path.with_suffix(".bin")) as weights,
    ):
        whole = Path(folder) / path.name  # OpenVINO takes no other suffix
        openvino.serialize(model, whole)  # twice, since the text names its weights
        model.set_rt_info(digest(whole.with_suffix(".bin").read_bytes()), ["framework", "weights"])
        openvino.serialize(model, whole)
        shutil.copyfile(whole.with_suffix(".bin"), weights)
        shutil.copyfile(whole, aside)

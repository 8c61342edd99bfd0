"""Run an exported file without PyTorch: `load_exported`, then `predict`. See docs/deploy.md.

Nothing that is imported here needs torch: this folder and `data` are all of the project that a
machine needs which only scores.
"""

from pathlib import Path

import numpy as np

from data.samples import InputError
from deployment.description import INPUT
from deployment.exported import Arrays, Exported, content_of, required

SHOWN = 200  # characters of what a runtime says
# What ONNX Runtime computes with, and what with where that cannot.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}


class OnnxRuntime(Exported):
    """ONNX Runtime, in fp32; `device` is one of PROVIDERS."""

    def load(self, path: Path, device: str, precision: str, threads: int) -> dict[str, str]:
        onnxruntime = required("onnxruntime", "requirements-onnx.txt")
        if device not in PROVIDERS:
            raise InputError(f"ONNX Runtime's devices are {', '.join(PROVIDERS)}, not {device}")
        if precision != "fp32":
            raise InputError(
                f"ONNX Runtime computes in fp32, OpenVINO also in bf16: not {precision}"
            )
        first = PROVIDERS[device][0]
        if first not in onnxruntime.get_available_providers():
            raise InputError(f"this ONNX Runtime has no {first}: install one that has")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        self.session = onnxruntime.InferenceSession(content_of(path), options, PROVIDERS[device])
        if first not in self.session.get_providers():  # it would go on without
            raise InputError(f"{first} does not start here: look for its libraries")
        return self.session.get_modelmeta().custom_metadata_map

    def run(self, images: np.ndarray) -> Arrays:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {INPUT: images}), strict=True))


class OpenVino(Exported):
    """OpenVINO, in fp32 or bf16; `device` is any that it knows, such as cpu or gpu."""

    def load(self, path: Path, device: str, precision: str, threads: int) -> dict[str, str]:
        if precision not in ("fp32", "bf16"):
            raise InputError(f"OpenVINO computes in fp32 or bf16 here: not in {precision}")
        core = required("openvino", "requirements-openvino.txt").Core()
        model = core.read_model(content_of(path))
        if precision == "bf16":
            convolve_in_bf16(model)
        # else it would compute all in bf16 where the hardware does, resizing and distances included
        hints = {"INFERENCE_PRECISION_HINT": "f32"}
        hints["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0  # nor what is multiplied by bytes in INT8
        hints |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
        self.compiled = core.compile_model(model, device.upper(), hints)
        return model.get_rt_info(["framework"]).value

    def run(self, images: np.ndarray) -> Arrays:
        found = self.compiled({INPUT: images})
        return {output.any_name: values for output, values in found.items()}


def convolve_in_bf16(model) -> None:
    """Let an openvino.Model compute its convolutions in bf16, and all else as before."""
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution":
            readers = node.output(0).get_target_inputs()
            for value in node.inputs():
                lower = opset13.convert(value.get_source_output(), "bf16")
                value.replace_source_output(lower.output(0))
            for reader in readers:
                reader.replace_source_output(opset13.convert(node.output(0), "f32").output(0))
    model.validate_nodes_and_infer_types()


RUNTIMES = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}
USUAL = {".onnx": "onnxruntime"}  # suffix -> the runtime that is taken unless another is named


def load_exported(
    path: str | Path,
    runtime: str | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    threads: int = 0,
) -> Exported:
    """Open a file of export.py with one of RUNTIMES; 0 `threads` are as many as it likes.

    Without a `runtime` it is that of USUAL.
    `device` and `precision` are the runtime's. Raises InputError when the file is missing, damaged,
    or not one of ours, or the machine lacks what is asked for.
    """
    runtime = runtime or USUAL.get(Path(path).suffix, "onnxruntime")
    if runtime not in RUNTIMES:
        raise InputError(f"there is no runtime {runtime}: choose {' or '.join(RUNTIMES)}")
    try:
        return RUNTIMES[runtime](Path(path), device, precision, threads)
    except InputError:
        raise
    except Exception as error:  # a runtime fails in ways of its own
        said = " ".join(str(error).split())[:SHOWN]
        raise InputError(
            f"{path} is damaged, or was not written by export.py ({said}): export it again"
        ) from error

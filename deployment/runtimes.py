"""Run an exported file without PyTorch: `load_exported`, then `predict`. See docs/runtimes.md.

Nothing that is imported here needs torch: this folder and `data` are all of the project that a
machine needs which only scores.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.samples import InputError
from deployment.archive import check_archive
from deployment.compiled import compile_model
from deployment.description import INPUT
from deployment.exported import (
    REQUIREMENTS,
    Arrays,
    Exported,
    content_of,
    contents_of,
    digest,
    required,
    said_by,
)

# Else OpenVINO would compute all in bf16 where the hardware does, resizing and distances included,
# and in INT8 what is multiplied by bytes.
AS_WRITTEN = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
BEHIND = ("Add", "Relu", "AvgPool")  # a convolution, computed with it
# What ONNX Runtime computes with, and what with where that cannot.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}


class OnnxRuntime(Exported):
    """ONNX Runtime, in fp32; `device` is one of PROVIDERS."""

    reads = (".onnx",)

    def load(self, path: Path, device: str, precision: str | None, threads: int) -> dict[str, str]:
        onnxruntime = required("onnxruntime", "requirements-onnx.txt")
        if device not in PROVIDERS:
            raise InputError(f"ONNX Runtime's devices are {', '.join(PROVIDERS)}, not {device}")
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
    """OpenVINO, of its own files or ONNX; `device` is any that it knows, such as cpu or gpu."""

    reads, lowers = (".onnx", ".xml"), ("bf16",)  # of the networks

    def load(self, path: Path, device: str, precision: str | None, threads: int) -> dict[str, str]:
        core = required("openvino", REQUIREMENTS).Core()
        content, *weights = contents_of(path) if path.suffix == ".xml" else (content_of(path),)
        model = core.read_model(content, *weights)
        texts = model.get_rt_info(["framework"]).value
        if weights and texts["weights"] != digest(*weights):
            raise InputError(f"{path} is of another export than the .bin beside it: copy both")
        if precision == "bf16" and texts["about.precision"] == "fp32":
            convolve_in_bf16(model)
        hints = AS_WRITTEN | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
        self.compiled = compile_model(model, device.upper(), hints)
        return texts

    def run(self, images: np.ndarray) -> Arrays:
        found = self.compiled({INPUT: images})
        return {output.any_name: values for output, values in found.items()}


def convolve_in_bf16(model) -> None:
    """Let an openvino.Model compute its convolutions in bf16, and all else as before.

    With what is between two of them: else values would be written as fp32 and read again. Those of
    which something is quantised stay.
    """
    lowered = set()
    for node in model.get_ordered_ops():
        sources = [value.get_source_output() for value in node.inputs()]
        inside = [source.get_node().get_friendly_name() in lowered for source in sources]
        kinds = {source.get_node().get_type_name() for source in sources}
        begins = is_convolution(node) and "FakeQuantize" not in kinds
        if begins or (node.get_type_name() in BEHIND and inside[0]):
            lowered.add(node.get_friendly_name())
        elif not any(inside):
            continue
        wanted = "bf16" if node.get_friendly_name() in lowered else "f32"
        for value, source in zip(node.inputs(), sources, strict=True):
            if source.get_element_type().to_string() in ("f32", "bf16"):
                value.replace_source_output(cast(source, wanted))
        node.validate_and_infer_types()
    model.validate_nodes_and_infer_types()


def is_convolution(node) -> bool:
    """Tell whether an openvino.Node is a convolution of a network; statistics may have others."""
    if node.get_type_name() != "Convolution":
        return False
    weights = node.input_value(1).get_node()
    while weights.get_type_name() != "Constant":
        weights = weights.input_value(0).get_node()
    return "statistics" not in weights.get_friendly_name()


def cast(output, kind: str):
    """Return an openvino.Output in another precision; a constant is stored in it."""
    from openvino import Type, opset13

    node = output.get_node()
    if node.get_type_name() == "Constant":
        return opset13.constant(node.data, dtype=getattr(Type, kind)).output(0)
    return opset13.convert(output, kind).output(0)


class Torch(Exported):
    """PyTorch, in the precision of the file; `device` is cpu or cuda, `threads` are the process's.

    A file that was compiled runs on the kind of machine that it was compiled on.
    """

    reads = (".pt2",)

    def load(self, path: Path, device: str, precision: str | None, threads: int) -> dict[str, str]:
        torch = required("torch", "requirements.txt")
        if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
            raise InputError(
                f"PyTorch's devices are cpu, and cuda where there is one: not {device}"
            )
        if threads:
            torch.set_num_threads(threads)
        check_archive(path)
        self.torch, self.device = torch, device
        self.model, texts = open_archive(path, device)
        return texts

    def run(self, images: np.ndarray) -> Arrays:
        with self.torch.no_grad():
            found = self.model(self.torch.from_numpy(np.array(images)).to(self.device))
        return {name: values.cpu().numpy() for name, values in found.items()}


def open_archive(path: Path, device: str) -> tuple[Callable, dict[str, str]]:
    """Return what a .pt2 file runs, and its texts. Raises InputError for another machine's code."""
    from torch.export.pt2_archive._package import load_pt2

    found = load_pt2(str(path))
    if "model" in found.exported_programs:
        from torch.export.passes import move_to_device_pass

        program = found.exported_programs["model"]
        program = program if device == "cpu" else move_to_device_pass(program, device)
        return program.module(), found.extra_files
    from torch._inductor.codecache import get_device_information

    model = found.aoti_runners["model"]
    here, written = get_device_information(device), model.get_metadata()
    for key, value in (here | {"AOTI_DEVICE_KEY": device}).items():
        if written.get(key) != value:
            raise InputError(
                f"{path} was compiled for {written.get(key)}, not {value}: export it here"
            )
    return model, found.extra_files


RUNTIMES = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "torch": Torch}
# suffix -> the runtime that is taken unless another is named
USUAL = {".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "torch"}


def load_exported(
    path: str | Path,
    runtime: str | None = None,
    device: str = "cpu",
    precision: str | None = None,
    threads: int = 0,
    trusted: bool = False,
) -> Exported:
    """Open a file of export.py with one of RUNTIMES; 0 `threads` are as many as it likes.

    Without a `runtime` it is that of USUAL, without a `precision` that of the file; OpenVINO lowers
    it to bf16 if asked. `device` is one of the runtime's. A .pt2 file can do whatever a program
    can, so it has to be `trusted`. Raises InputError when the file is missing, damaged, or not one
    of ours, or the machine lacks what is asked for.
    """
    runtime = runtime or USUAL.get(Path(path).suffix, "onnxruntime")
    if runtime not in RUNTIMES:
        raise InputError(f"there is no runtime {runtime}: choose {' or '.join(RUNTIMES)}")
    if Path(path).suffix in USUAL and Path(path).suffix not in RUNTIMES[runtime].reads:
        raise InputError(f"{path} runs in {USUAL[Path(path).suffix]}, not in {runtime}")
    if runtime == "torch" and not trusted:  # PyTorch evaluates what is in it, and runs its code
        raise InputError(
            f"{path} can do whatever a program can: if it is your own, say --trusted, or "
            "load_exported(..., trusted=True)"
        )
    try:
        return RUNTIMES[runtime](Path(path), device, precision, threads)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no file {error.filename}: copy it there") from error
    except Exception as error:  # a runtime fails in ways of its own
        raise InputError(
            f"{path} is damaged, or was not written by export.py ({said_by(error)}): export it "
            "again"
        ) from error

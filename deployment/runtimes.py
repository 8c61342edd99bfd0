"""Run an exported file without PyTorch: `load_exported`, then `predict`. See docs/deploy.md.

Nothing that is imported here needs torch: this folder and `data` are all of the project that a
machine needs which only scores.
"""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.pictures import Picture, rgb_of
from data.samples import ANOMALOUS, GOOD, InputError, require_file
from deployment.description import INPUT, OUTPUTS, read_description

MOST_BYTES = 2**31  # of an ONNX file: protobuf's limit
# A tensor whose values lie in another file has an entry with the key "location", however its tag
# (10) and length (8) are spelt. Source: onnx.proto, TensorProto; Protocol Buffers, varints.
EXTERNAL = re.compile(rb"(\x0a|\x8a\x80*\x00)(\x08|\x88\x80*\x00)location")
SHOWN = 200  # characters of what a runtime says
# What ONNX Runtime computes with, and what with where that cannot.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
Arrays = dict[str, np.ndarray]  # output -> its values for N images


class Result(NamedTuple):
    """What an exported detector says of one picture."""

    anomalous: bool  # its score is above the threshold
    score: float
    p_value: float
    anomaly_map: np.ndarray  # float32 (H, W) of the picture
    experts: dict[str, float]  # each expert's own score, where there are statistics

    @property
    def verdict(self) -> str:
        return ANOMALOUS if self.anomalous else GOOD


class Exported:
    """An exported file at work; a runtime's own class opens it, in `load`, and gives `run`."""

    def __init__(self, path: Path, device: str, precision: str, threads: int):
        self.path = path
        texts = self.load(content_of(path), device, precision, threads)
        self.description = read_description(texts)

    def load(self, content: bytes, device: str, precision: str, threads: int) -> dict[str, str]:
        """Make a file's content ready to run; return the texts of its description."""
        raise NotImplementedError

    def run(self, images: np.ndarray) -> Arrays:
        """Return `OUTPUTS` of images, uint8 (N, H, W, 3), RGB."""
        raise NotImplementedError

    def predict(self, picture: Picture) -> Result:
        """Return what the detector says of a picture: a path, a PIL image, or uint8 (H, W, 3), RGB.

        Raises InputError for a file that cannot be read, ValueError for what is no picture.
        """
        return self.look(rgb_of(picture, self.description.bits))

    def look(self, image: Image.Image) -> Result:
        """Return what the detector says of an RGB image."""
        seen = image
        if not self.description.resizes:
            height, width = self.description.image_size
            seen = image.resize((width, height), Image.Resampling.BILINEAR)
        found = self.checked(self.run(np.asarray(seen)[None]), seen)
        anomaly_map, experts = found["anomaly_map"][0], self.description.experts
        if seen is not image:
            whole = Image.fromarray(anomaly_map).resize(image.size, Image.Resampling.BILINEAR)
            anomaly_map = np.asarray(whole)
        numbers = (found[name].item() for name in ("anomalous", "score", "p_value"))
        own = found["experts"][0].tolist() if experts else ()
        return Result(*numbers, anomaly_map, dict(zip(experts, own, strict=True)))

    def checked(self, found: Arrays, image: Image.Image) -> Arrays:
        """Return outputs as they are. Raises InputError where they are not what they should be."""
        experts = self.description.experts
        shapes = {"anomaly_map": (1, image.height, image.width), "experts": (1, len(experts))}
        for name, text in OUTPUTS.items():
            if name == "experts" and not experts:
                continue
            values, shape = found[name], shapes.get(name, (1,))
            if values.shape != shape or values.dtype != text.split()[0]:
                raise InputError(
                    f"{self.path} gives a {name} of {values.dtype} {values.shape}: it was not "
                    "written by export.py"
                )
        return found


class OnnxRuntime(Exported):
    """ONNX Runtime, in fp32; `device` is one of PROVIDERS."""

    def load(self, content: bytes, device: str, precision: str, threads: int) -> dict[str, str]:
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
        self.session = onnxruntime.InferenceSession(content, options, PROVIDERS[device])
        if first not in self.session.get_providers():  # it would go on without
            raise InputError(f"{first} does not start here: look for its libraries")
        return self.session.get_modelmeta().custom_metadata_map

    def run(self, images: np.ndarray) -> Arrays:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {INPUT: images}), strict=True))


class OpenVino(Exported):
    """OpenVINO, in fp32 or bf16; `device` is any that it knows, such as cpu or gpu."""

    def load(self, content: bytes, device: str, precision: str, threads: int) -> dict[str, str]:
        if precision not in ("fp32", "bf16"):
            raise InputError(f"OpenVINO computes in fp32 or bf16 here: not in {precision}")
        core = required("openvino", "requirements-openvino.txt").Core()
        model = core.read_model(content)
        if precision == "bf16":
            convolve_in_bf16(model)
        # else it would compute all in bf16 where the hardware does, resizing and distances included
        hints = {"INFERENCE_PRECISION_HINT": "f32"}
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


def load_exported(
    path: str | Path,
    runtime: str = "onnxruntime",
    device: str = "cpu",
    precision: str = "fp32",
    threads: int = 0,
) -> Exported:
    """Open a file of export.py with one of RUNTIMES; 0 `threads` are as many as it likes.

    `device` and `precision` are the runtime's. Raises InputError when the file is missing, damaged,
    or not one of ours, or the machine lacks what is asked for.
    """
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


def required(package: str, file: str) -> ModuleType:
    """Import a package. Raises InputError, which names the requirements `file`, without it."""
    try:
        return import_module(package)
    except ImportError as error:
        raise InputError(f"{package} is not installed: pip install -r {file}") from error


def content_of(path: Path) -> bytes:
    """Return an exported file's bytes. Raises OSError or ValueError for what cannot be one."""
    require_file(path)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError("it is larger than ONNX can be")
    content = path.read_bytes()
    if b"location" in content and EXTERNAL.search(content):  # a second faster
        raise ValueError("it wants values from another file")
    return content

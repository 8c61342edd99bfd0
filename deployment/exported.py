"""What every exported file gives, whatever runs it. Nothing here needs torch."""

import hashlib
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.pictures import Picture, rgb_of
from data.samples import ANOMALOUS, GOOD, InputError, require_file
from deployment.description import OUTPUTS, read_description

SHOWN = 200  # characters of what a runtime says
MOST_BYTES = 2**31  # of an ONNX file: protobuf's limit
# A tensor whose values lie in another file has an entry with the key "location", however its tag
# (10) and length (8) are spelt. Source: onnx.proto, TensorProto; Protocol Buffers, varints.
EXTERNAL = re.compile(rb"(\x0a|\x8a\x80*\x00)(\x08|\x88\x80*\x00)location")
MOST_XML = 2**26  # bytes of OpenVINO's text, which says what is done with the weights beside it
REQUIREMENTS = "requirements-openvino.txt"
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

    lowers: tuple[str, ...] = ()  # precisions that the runtime makes of fp32
    reads: tuple[str, ...] = ()  # suffixes of files

    def __init__(self, path: Path, device: str, precision: str | None, threads: int):
        self.path = path
        texts = self.load(path, device, precision, threads)
        self.description = read_description(texts)
        written = self.description.precision
        allowed = {None, written} | {*(self.lowers if written == "fp32" else ())}
        if precision not in allowed:
            raise InputError(f"{path} is in {written}, not in {precision}: export it so")

    def load(self, path: Path, device: str, precision: str | None, threads: int) -> dict[str, str]:
        """Make a file ready to run; return the texts of its description."""
        raise NotImplementedError

    def run(self, images: np.ndarray) -> Arrays:
        """Return `OUTPUTS` of images, uint8 (N, H, W, 3), RGB."""
        raise NotImplementedError

    def predict(self, picture: Picture) -> Result:
        """Return what the detector says of a picture: a path, a PIL image, or uint8 (H, W, 3), RGB.

        Raises InputError for a file that cannot be read, ValueError for what is no picture.
        """
        return self.look(self.read(picture))

    def read(self, picture: Picture) -> Image.Image:
        """Return a picture as an RGB image; raises as `predict`, also for a size it cannot take."""
        image, fixed = rgb_of(picture, self.description.bits), self.description.fixed_size
        if fixed and fixed != (image.height, image.width):
            name = picture if isinstance(picture, str | Path) else "the picture"
            raise InputError(
                f"{name} is {image.height} x {image.width} pixels, height x width; {self.path} "
                "takes only {} x {}: export one without --fixed_size".format(*fixed)
            )
        return image

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


def said_by(error: Exception) -> str:
    """Return what an error says, short and as one line."""
    return " ".join(str(error).split())[:SHOWN]


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


def digest(weights: bytes) -> str:
    """Return what tells the weights of a file from those of another export."""
    return hashlib.sha256(weights).hexdigest()


def contents_of(path: Path) -> tuple[bytes, bytes]:
    """Return the bytes of OpenVINO's file, and of its weights beside it; raises as `content_of`.

    Handed over as bytes, it cannot name other weights; it says the `digest` of its own.
    """
    weights = path.with_suffix(".bin")
    for file, most in ((path, MOST_XML), (weights, MOST_BYTES)):
        require_file(file)
        if file.stat().st_size > most:
            raise ValueError(f"{file.name} is larger than any that export.py writes")
    return path.read_bytes(), weights.read_bytes()

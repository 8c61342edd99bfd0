"""Read a teacher from any published checkpoint layout; write ours."""

import hashlib
import io
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors.torch import load_file
from torch import nn

from data.samples import InputError, require_file
from models.pdn import PDNS, TEACHER_CHANNELS
from utils.files import user_path
from utils.tensors import save_tensors

SHIPPED = Path(__file__).resolve().parent.parent / "models" / "weights"
MOST_BYTES = 2**29  # of a teacher's file: the medium one takes 2**26 in double precision
MAGIC = (b"PK", b"\x80")  # of PyTorch's files: a zip archive, or before 1.6 a pickle
# what a pickle of tensors names, as pickletools shows it
TENSORS = (
    r"torch (\w+Storage|Size|device|bool|(b?float|u?int|complex)\w*)|collections OrderedDict|"
    r"torch._utils _rebuild_(tensor_v[23]|parameter)"
)
MOST_PICKLE = 2**20  # bytes, of names and shapes; a WideResNet's take 2**16
WRAPPERS = ("state_dict", "model_state_dict", "model", "teacher")


def shipped_teacher(model_size: str) -> Path:
    """Return the file of the teacher of `model_size` that ships."""
    return SHIPPED / f"teacher_{model_size}.safetensors"


def teacher_name(text: str) -> str | Path:
    """Read --weights: the size of a teacher that ships stays a name, all else is a path."""
    return text if text in PDNS else user_path(text)


def find_teacher(weights: str | Path) -> Path:
    """Return the file of what `teacher_name` read. Raises InputError when there is none."""
    path = shipped_teacher(weights) if weights in PDNS else weights
    if not path.is_file():
        names = " and ".join(PDNS)
        raise InputError(f"--weights {path} is no file; the teachers that ship are called {names}")
    return path


def first_bytes(path: Path) -> bytes:
    """Return the two bytes that tell a file's format."""
    with path.open("rb") as file:
        return file.read(2)


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read named tensors from a .safetensors or PyTorch file; no other object is unpickled.

    Raises InputError naming the file and why it cannot be used.
    """
    try:
        require_file(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        if not first_bytes(path).startswith(MAGIC):
            raise ValueError("it is not in PyTorch's format")
        check_pickle(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"there is no weights file {path}") from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is refused: {error}, so it is a pickled Python object (a whole module), and "
            "unpickling runs any code inside; load it where you trust it and save its state_dict()"
        ) from error
    except Exception as error:  # a cut pickle fails in any way: IndexError, struct.error, ...
        raise InputError(f"{path} is damaged or no weights file: {error}") from error
    while isinstance(content, dict) and (key := next((k for k in WRAPPERS if k in content), None)):
        content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and torch.is_tensor(value) for key, value in content.items()
    ):
        raise InputError(f"{path} holds no state dict: save the teacher's state_dict() in it")
    return content


def check_pickle(path: Path) -> None:
    """Refuse a PyTorch file that is more than tensors as `torch.save` makes it.

    Even with weights_only, a few bytes can ask for objects of any size, and a packed archive can
    become larger than any memory. Raises UnpicklingError for other objects, ValueError.
    """
    if not first_bytes(path).startswith(b"PK"):  # of PyTorch before 1.6: five, then the numbers
        with path.open("rb") as file:
            for _ in range(5):
                check_names(file)
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("its archive is compressed")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its archive holds more than the file")
        for member in members:
            if member.filename.lower().endswith(".pkl"):  # PyTorch does not mind the case
                check_names(io.BytesIO(archive.read(member)))


def check_names(pickled: BinaryIO) -> None:
    """Raise UnpicklingError when a pickle names anything but what tensors are made of."""
    for operation, argument, position in pickletools.genops(pickled):
        if position > MOST_PICKLE:
            raise ValueError(f"its names take more than {MOST_PICKLE} bytes")
        known = operation.name == "GLOBAL" and re.fullmatch(TENSORS, argument)
        if operation.name in ("GLOBAL", "INST", "STACK_GLOBAL") and not known:
            raise pickle.UnpicklingError(f"it names {argument}")


def load_teacher(path: Path, model_size: str | None = None) -> tuple[nn.Sequential, str]:
    """Read a teacher: (PDN in evaluation mode, its size).

    Every published layout has the same layers in the same order under other names (`0.weight`,
    `pdn.0.weight`, `conv1.weight`), so layers are matched by order and shape. Raises InputError
    when they are not those of a PDN, or not of `model_size`.
    """
    if path.exists() and path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} is larger than {MOST_BYTES} bytes: no PDN teacher is")
    tensors = _in_layer_order(read_state_dict(path))
    shapes = [tensor.shape for tensor in tensors]
    teachers = {size: build() for size, build in PDNS.items()}
    fitting = [s for s, t in teachers.items() if [p.shape for p in t.parameters()] == shapes]
    if not fitting:
        raise InputError(f"{path} does not hold a PDN teacher of {TEACHER_CHANNELS} channels")
    size = fitting[0]
    if model_size not in (None, size):
        raise InputError(
            f"{path} is a {size} teacher: use --model_size {size}, or --weights of a "
            f"{model_size} teacher"
        )
    teacher = teachers[size]
    teacher.load_state_dict(
        dict(zip(teacher.state_dict(), (t.float() for t in tensors), strict=True))
    )
    if not all(p.isfinite().all() for p in teacher.parameters()):
        raise InputError(f"{path} holds weights that are not finite numbers")
    return teacher.eval().requires_grad_(False), size


def weights_hash(network: nn.Module) -> str:
    """Return what tells a network's weights from others'."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _in_layer_order(state_dict: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Sort as the layers come (10 after 9), each weight before its bias."""

    def natural(key: str) -> list:
        layer, _, kind = key.rpartition(".")
        parts = re.split(r"([0-9]{1,9})", layer)  # every second one is a number
        numbers = [(int(part), "") if odd % 2 else (-1, part) for odd, part in enumerate(parts)]
        return [*numbers, (0 if kind == "weight" else 1, kind)]

    return [state_dict[key] for key in sorted(state_dict, key=natural)]


def save_teacher(teacher: nn.Sequential, path: Path, recipe: dict) -> None:
    """Write a teacher in half precision under plain Sequential keys, with its recipe."""
    save_tensors({key: t.half() for key, t in teacher.state_dict().items()}, path, recipe)

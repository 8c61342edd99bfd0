"""What several test files need: miniature datasets, a way to run a command as a user would."""

import json
import os
import signal
import subprocess
import sys
import uuid
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from models.building import build_detector
from models.detector import Detector
from models.pdn import pdn_small
from utils import commands

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
SIZE = (96, 80)  # width, height of the miniature images, in pixels
# Ray reads it when it is first imported, in whichever test: else it would not stay on loopback.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def picture(rng: np.random.Generator, stain: bool) -> Image.Image:
    """Draw a striped surface, or one with a dark square in the middle."""
    width, height = SIZE
    pixels = np.full((height, width, 3), 150.0) + 40 * np.sin(np.arange(width) / 3)[None, :, None]
    if stain:
        pixels[30:50, 30:50] = 10
    return Image.fromarray(np.clip(pixels + rng.normal(0, 3, pixels.shape), 0, 255).astype("uint8"))


def stain_mask(value: int = 255) -> Image.Image:
    """Draw the square's ground truth."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[30:50, 30:50] = value
    return Image.fromarray(mask)


def fill(folder: Path, count: int, stain: bool = False, suffix: str = ".png") -> None:
    """Put `count` images into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture(np.random.default_rng(index), stain).save(folder / f"{index:03}{suffix}")


def deep(path: Path, bits: int, seed: int = 0, stain: bool = False) -> Path:
    """Save a grey image as a camera of `bits` does: values from 0 up in a file of 16 bits."""
    grey = np.asarray(picture(np.random.default_rng(seed), stain).convert("L")).astype(float)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, (grey / 255 * (2**bits - 1)).round().astype(np.uint16))
    return path


def make_mvtec_ad(root: Path, name: str) -> None:
    """Make a miniature category of MVTec AD."""
    fill(root / name / "train" / "good", 6)
    fill(root / name / "test" / "good", 3)
    fill(root / name / "test" / "stain", 3, stain=True)
    truth = root / name / "ground_truth" / "stain"
    truth.mkdir(parents=True)
    for index in range(3):
        stain_mask().save(truth / f"{index:03}_mask.png")


def make_mvtec_loco(root: Path, name: str, logical: bool = True) -> None:
    """Make a miniature category of MVTec LOCO AD."""
    folder = root / name
    fill(folder / "train" / "good", 5)
    fill(folder / "validation" / "good", 2)
    fill(folder / "test" / "good", 2)
    for defect in ("structural_anomalies", *(("logical_anomalies",) if logical else ())):
        fill(folder / "test" / defect, 2, stain=True)
        for index in range(2):
            truth = folder / "ground_truth" / defect / f"{index:03}"
            truth.mkdir(parents=True)
            stain_mask(254).save(truth / "000.png")
    entry = {"defect_name": "stain", "pixel_value": 254}
    entry |= {"saturation_threshold": 0.5, "relative_saturation": True}
    (folder / "defects_config.json").write_text(json.dumps([entry]))


def make_visa(root: Path, name: str) -> None:
    """Make a miniature raw VisA tree."""
    fill(root / name / "Data" / "Images" / "Normal", 6, suffix=".JPG")
    fill(root / name / "Data" / "Images" / "Anomaly", 2, stain=True, suffix=".JPG")
    masks = root / name / "Data" / "Masks" / "Anomaly"
    masks.mkdir(parents=True)
    rows = ["object,split,label,image,mask"]
    for index in range(6):
        split = "train" if index < 4 else "test"
        rows.append(f"{name},{split},normal,{name}/Data/Images/Normal/{index:03}.JPG,")
    for index in range(2):
        stain_mask().save(masks / f"{index:03}.png")
        image = f"{name}/Data/Images/Anomaly/{index:03}.JPG"
        rows.append(f"{name},test,anomaly,{image},{name}/Data/Masks/Anomaly/{index:03}.png")
    (root / "split_csv").mkdir(exist_ok=True)
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows) + "\n")


def make_product(root: Path) -> None:
    """Make a miniature product folder."""
    fill(root / "train" / "good", 6)
    fill(root / "test" / "good", 2)
    fill(root / "test" / "stain", 2, stain=True)
    (root / "ground_truth" / "stain").mkdir(parents=True)
    for index in range(2):
        stain_mask().save(root / "ground_truth" / "stain" / f"{index:03}.png")


def disagreeing_detector(model: str, size: tuple[int, int]) -> Detector:
    """Make a small detector whose three networks disagree about something."""
    torch.manual_seed(3)
    detector = build_detector(model, "small", size)
    for network in (detector.teacher, detector.student, detector.autoencoder):
        for parameter in network.parameters():
            parameter.data *= 1.5
    detector.teacher_mean.normal_(0, 0.05)
    detector.teacher_std.uniform_(0.1, 0.4)
    return detector


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with slow tests, and the longest, so that no process has one left in the end."""
    items.sort(key=lambda item: ("every_command" not in item.name, "slow" not in item.keywords))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A small teacher of random weights, in a published layout."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    torch.manual_seed(0)
    torch.save(pdn_small().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def product(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "bolt"
    make_product(root)
    return root


@pytest.fixture(scope="module")
def alone(product, teacher, tmp_path_factory):
    """A run of the statistics alone."""
    from tests.running_main import ALONE, trained

    return trained(product, teacher, tmp_path_factory.mktemp("alone"), *ALONE)


@pytest.fixture(scope="module")
def fused(product, teacher, tmp_path_factory):
    """A run of all experts."""
    from tests.running_main import ALL, trained

    return trained(product, teacher, tmp_path_factory.mktemp("fused"), *ALL)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """A real S3 server, in a process of its own."""
    from tests.s3_server import running

    with running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """An empty bucket, s3://<its name>; what reaches it is in the environment."""
    from tests.s3_server import Bucket

    for name, value in s3_server.variables.items():
        monkeypatch.setenv(name, value)
    return Bucket(s3_server, f"bucket-{uuid.uuid4().hex}")


@pytest.fixture
def shared() -> Path:
    """The real images, where this checkout has them beside it."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared: the real images are not part of the project")
    return SHARED


@pytest.fixture
def run_command():
    """Run a script in a process of its own, on one thread, as a user's shell would."""

    def run(arguments: list, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
        command = [sys.executable, *map(str, arguments)]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        return subprocess.run(
            command, cwd=cwd, env=variables, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def outcome(monkeypatch, capfd):
    """Run a script in this process; return its exit code, its results and its error lines."""

    def call(script: ModuleType, line: list) -> tuple[int, str, list[str]]:
        former = signal.getsignal(signal.SIGTERM)
        try:
            with monkeypatch.context() as patch, warnings.catch_warnings():
                patch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, line)])
                code = commands.run_command(script.main, script.get_parser)
        finally:
            signal.signal(signal.SIGTERM, former)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        lines = [text.strip() for text in err.replace("\r", "\n").splitlines()]
        return code, out, [text for text in lines if text.startswith("error: ")]

    return call


@pytest.fixture
def interruptible():
    """Undo what a background shell passes on: SIGINT would be ignored, and bash could not
    trap it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)

"""Thousands of altered detectors, checkpoints and teachers: read, or refused in one line."""

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from models.building import build_detector
from models.experts import EXPERTS, NETWORKS, STATISTICS
from models.pdn import pdn_small
from tests.faults.fuzzing import changed, fuzz, rewriting
from tests.faults.planting import Planting
from tests.faults.running import run_of
from training.checkpoints import Saving, load_checkpoint
from training.steps import TERMS, Optimisation
from utils.devices import Compute
from utils.teachers import load_teacher, save_teacher

pytestmark = pytest.mark.slow
IMAGE = (64, 64)  # height, width of what the networks see


# Of large files, only some places are changed, and back again.


class Patched:
    """A large file whose beginning and end may be altered in place."""

    def __init__(self, path: Path, reach: int = 6000):
        self.path, self.whole = path, path.read_bytes()
        middle = len(self.whole) // 2
        self.windows = [
            slice(0, min(reach, middle)),
            slice(max(middle, len(self.whole) - reach), None),
        ]

    def change(self, changes: list[tuple]) -> None:
        window = self.windows[changes[0][3] % 4 == 0]  # more often the beginning
        part = self.whole[window]
        altered = changed(part, changes)
        if window.start == 0:
            altered = altered[: len(part)].ljust(len(part), b" ")
        with self.path.open("r+b") as file:
            file.seek(window.start)
            file.write(altered)
            if window.start:
                file.truncate()

    def restore(self) -> None:
        with self.path.open("r+b") as file:
            for window in self.windows:
                file.seek(window.start)
                file.write(self.whole[window])


def patching(path: Path, read: Callable[[], object]) -> Callable[[list[tuple]], object]:
    patched = Patched(path)

    def change(changes: list[tuple]) -> object:
        patched.change(changes)
        try:
            return read()
        finally:
            patched.restore()

    return change


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return build_detector("glae", "small", IMAGE)


@pytest.mark.parametrize("experts", [NETWORKS, STATISTICS, EXPERTS], ids=len)
def test_detectors(tmp_path, experts):
    torch.manual_seed(0)
    detector = build_detector("glae", "small", IMAGE, experts=experts)
    detector.good_scores = torch.arange(20.0).repeat(len(detector.rated), 1)
    for statistic in detector.statistics.values():
        statistic.count.fill_(20)
    run = run_of(tmp_path)
    run.folder.mkdir(parents=True)
    run.save_detector(detector, "glae", "small", IMAGE, "fp32")
    read = patching(run.detector_file, lambda: run.load_detector(torch.device("cpu")))
    fuzz(tmp_path, 700, read)


def test_checkpoints(tmp_path, detector):
    run, compute = run_of(tmp_path), Compute(torch.device("cpu"))
    run.folder.mkdir(parents=True)
    optimisation = Optimisation(detector, 9, compute)
    loss = sum(parameter.square().sum() for parameter in detector.trained_parameters())
    optimisation.step(loss)
    log = SimpleNamespace(check=lambda: None, unwritten=lambda: [[1.0] * len(TERMS)])
    Saving(run, detector, optimisation, log, {"seconds": 0.0, "step": 0}, "1m").save(1)
    read = patching(run.checkpoint_file, lambda: load_checkpoint(run, detector, optimisation))
    fuzz(tmp_path, 1000, read)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_teachers(tmp_path, kind):
    teacher = pdn_small()
    path = tmp_path / ("teacher.safetensors" if kind == "safetensors" else "teacher.pth")
    if kind == "safetensors":
        save_teacher(teacher, path, {})
    else:
        half = {key: tensor.half() for key, tensor in teacher.state_dict().items()}
        torch.save(half, path, _use_new_zipfile_serialization=kind == "zip")
    fuzz(tmp_path, 1000, patching(path, lambda: load_teacher(path)))


def test_pickles_with_code(tmp_path):
    """Altered anywhere, they never do what they were made for."""
    path, planted = tmp_path / "teacher.pth", tmp_path / "planted"
    path.write_bytes(pickle.dumps({"0.weight": Planting(planted)}, protocol=2))

    def read() -> None:
        try:
            load_teacher(path)
        finally:
            assert not planted.exists()

    fuzz(tmp_path, 1000, rewriting(path, read))

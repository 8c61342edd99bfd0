"""sweep.py --storage: what a lost machine had sent goes on elsewhere; nothing else is needed."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import torch

from models.pdn import pdn_small
from sweeping.finished import mark_of
from tests.conftest import REPOSITORY, make_mvtec_ad
from tests.s3_server import SECRET
from utils.runs import Run

pytest.importorskip("pyarrow", reason="needs requirements-ray.txt")
pytestmark = pytest.mark.slow
TINY = ["--image_size", "64", "--workers", "1", "--device", "cpu", "--checkpoint_every", "2"]
STEPS = 40


@pytest.fixture(params=["file", "s3"])
def storage(request, tmp_path) -> str:
    """The URL of a storage, empty as yet."""
    if request.param == "file":
        return (tmp_path / "store").as_uri()
    return f"s3://{request.getfixturevalue('bucket').name}/store"


@pytest.fixture
def machine(tmp_path, storage):
    """Run the sweep as on a machine of the given name, which has nothing of any other."""
    make_mvtec_ad(tmp_path / "data", "bottle")
    torch.save(pdn_small().state_dict(), tmp_path / "teacher.pth")

    def start(name: str, *more: str) -> subprocess.Popen:
        line = [sys.executable, REPOSITORY / "sweep.py", "mvtec_ad", tmp_path / "data", *TINY]
        line += ["--train_steps", STEPS, "--weights", tmp_path / "teacher.pth"]
        line += ["--output_dir", tmp_path / name / "output", *more]
        return subprocess.Popen(
            [*map(str, line)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def stored(name: str) -> list[str]:
        return ["--storage", storage, "--cache", str(tmp_path / name / "cache")]

    yield lambda name, alone=False: start(name, *([] if alone else stored(name)))


def ended(process: subprocess.Popen) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def kill(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def losses(run: Run) -> list[list[str]]:
    with run.losses_file.open() as file:
        return [*csv.reader(file)]


def test_a_lost_machines_training_goes_on_elsewhere_as_if_undisturbed(
    machine, storage, tmp_path, request
):
    from utils.storage import Store

    store, checkpoint = Store(storage), "trainings/mvtec_ad/bottle/checkpoint.safetensors"
    first = machine("first")
    try:
        deadline = time.monotonic() + 200
        while checkpoint not in store.listing("trainings"):
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        kill(first)
    shutil.rmtree(tmp_path / "first")  # the machine and all that it had

    said = ended(machine("second"))
    assert "bottle" in said
    log = store.read("logs/mvtec_ad/bottle.log").decode()
    assert len(re.findall(r"main\.py.* --resume", log)) == 2  # both attempts'
    again = ended(machine("third"))
    assert "bottle: finished already" in again
    table = "\n".join(said.splitlines()[-4:])
    assert again.endswith(table + "\n")
    alone = ended(machine("alone", alone=True))
    assert alone.endswith(table + "\n")

    undisturbed = Run(tmp_path / "alone" / "output", "mvtec_ad", "bottle")
    for name in ("second", "third"):
        run = Run(tmp_path / name / "output", "mvtec_ad", "bottle")
        assert losses(run) == losses(undisturbed)
        assert mark_of(run).exists()
        assert not run.detector_file.exists()  # tables need none
    detector = "trainings/mvtec_ad/bottle/detector.safetensors"
    assert store.read(detector) == undisturbed.detector_file.read_bytes()
    maps = list(undisturbed.maps_folder.rglob("*.tiff"))
    names = [path.relative_to(undisturbed.output).as_posix() for path in maps]
    assert {*names} == {*store.listing("anomaly_maps")}
    assert all(store.read(n) == p.read_bytes() for n, p in zip(names, maps, strict=True))

    for folder in ("second", "third"):
        left = [path for path in (tmp_path / folder / "cache").rglob("*") if path.is_file()]
        assert [path for path in left if path.suffix != ".lock"] == []
    seen = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert SECRET.encode() not in seen
    assert SECRET not in said + again + log

"""Thousands of altered files: each is read, or refused in one line, soon and in little memory."""

import pickle
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import main
from data.catalog import DATASETS, survey_category
from data.images import decode, image_size
from data.masks import regions
from data.mvtec import read_defects_config
from data.samples import InputError, Sample
from data.shards import Shards, list_members
from evaluation.evaluation import read_map
from models.detector import build_detector
from models.pdn import pdn_small
from tests.conftest import SIZE, make_mvtec_loco, make_product, make_visa, picture, stain_mask
from tests.faults.running import command, run_of
from tests.faults.test_untrusted import Planting
from training.checkpoints import Saving, load_checkpoint
from training.steps import TERMS, Optimisation
from utils.devices import Compute
from utils.presets import parse
from utils.runs import Run
from utils.teachers import load_teacher, save_teacher

pytestmark = pytest.mark.slow

SECONDS = 10  # for one file
MEMORY = 2 * 2**30  # bytes
IMAGE = (64, 64)  # height, width of what the networks see

# What a hostile hand would write.
TOKENS = [
    *(b"../", b"/etc/passwd", b"\0", b"\xff\xfe", b"\r", b"\n", b",", b'"', b"'", b": ", b"- "),
    *(
        b"[" * 500,
        b"{" * 500,
        b"NaN",
        b"-1",
        b"1e999",
        b"9" * 5000,
        b"null",
        b"true",
        b"0x7fffffff",
    ),
    *(b"&a ", b"*a ", b"<<: ", b"!!python/object/apply:os.system ", b"!!binary ", b"--help", b"%"),
    *(b"\x7f\xff\xff\xff", b"\xff" * 8, b"\0" * 8, b"\0\0\0\x80", b"F64", b"\xf0\x9f\x92\xa9"),
]
PIECES = st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from(TOKENS))
CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),  # where
        st.sampled_from(["overwrite", "insert", "delete", "repeat", "cut"]),
        PIECES,
        st.integers(1, 64),
    ),
    min_size=1,
    max_size=5,
)


def changed(content: bytes, changes: list[tuple]) -> bytes:
    """Apply changes one after another."""
    for where, kind, piece, length in changes:
        place = int(where * len(content))
        if kind == "overwrite":
            content = content[:place] + piece + content[place + len(piece) :]
        elif kind == "insert":
            content = content[:place] + piece + content[place:]
        elif kind == "delete":
            content = content[:place] + content[place + length :]
        elif kind == "repeat":
            content = content[: place + length] + content[place:]
        elif place % 4 == 0:  # most cuts leave nothing to look at
            content = content[:place]
    return content


class Hang(BaseException):
    """A file took too long."""


def out_of_time(*_) -> None:
    raise Hang


@contextmanager
def soon() -> Iterator[None]:
    """Raise Hang unless the block ends in time."""
    former = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def memory(kind: str) -> int:
    """Return this process's memory in bytes: VmRSS now, or VmHWM, the most since `watched`."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{kind}:")[1].split()[0])


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Check memory, and that no file comes or goes in or beside `folder`, or where we are."""

    def files() -> list[Path]:
        return sorted([*folder.rglob("*"), *folder.parent.iterdir(), *Path().iterdir()])

    Path("/proc/self/clear_refs").write_text("5")  # begin VmHWM anew
    before, there = memory("VmRSS"), files()
    yield
    assert memory("VmHWM") - before < MEMORY
    assert files() == there


def fuzz(folder: Path, number: int, read: Callable[[list[tuple]], object]) -> None:
    """Call `read` with `number` lists of changes: it may only return, or raise InputError."""
    refused = []  # the texts alone: an error keeps all that its frames hold

    @settings(
        max_examples=number,
        deadline=timedelta(seconds=SECONDS),
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(CHANGES)
    def each(changes: list[tuple]) -> None:
        with soon():
            try:
                read(changes)
            except InputError as error:
                refused.append(str(error))
                assert all(str(fault).strip() for fault in error.args)

    with watched(folder):
        each()
    assert len(refused) > number / 20  # or the changes would not reach what is read


# Small files are written anew for each change.


def rewriting(path: Path, read: Callable[[], object]) -> Callable[[list[tuple]], object]:
    whole = path.read_bytes()

    def change(changes: list[tuple]) -> object:
        path.write_bytes(changed(whole, changes))
        return read()

    return change


FORMATS = {  # how PIL saves, how many inputs
    "png": ({}, 2000),
    "jpeg": ({"quality": 90}, 1500),
    "jpeg progressive": ({"progressive": True}, 500),
    "tiff": ({}, 1500),
    "tiff packed": ({"compression": "tiff_lzw"}, 500),
    "webp": ({}, 500),
    "bmp": ({}, 500),
    "ppm": ({}, 500),
    "gif": ({}, 500),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_images(tmp_path, kind):
    more, number = FORMATS[kind]
    path = tmp_path / f"image.{kind.split()[0]}"
    image = picture(np.random.default_rng(0), stain=False).resize((24, 20))
    image.save(path, **more)

    def read() -> None:
        decoded = decode(path)
        assert decoded.mode == "RGB"
        assert image_size(path) == (decoded.height, decoded.width)

    fuzz(tmp_path, number, rewriting(path, read))


def test_masks(tmp_path):
    path = tmp_path / "mask.png"
    stain_mask().save(path)
    entry = {"pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True}
    fuzz(tmp_path, 1000, rewriting(path, lambda: regions((path,), SIZE[::-1], [entry])))


def test_anomaly_maps(tmp_path):
    image = tmp_path / "image.png"
    Image.new("L", (24, 20)).save(image)
    path = tmp_path / "test" / "good" / "image.tiff"
    path.parent.mkdir(parents=True)
    tifffile.imwrite(path, np.random.default_rng(0).random((20, 24), "float32"))
    sample = Sample(image, 0, "good")
    fuzz(tmp_path, 1500, rewriting(path, lambda: read_map(tmp_path, sample)))


def test_shards(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", "b.png"):
            tar.add(tmp_path / "a.png", name)

    def read() -> None:
        list_members.cache_clear()
        for member in Shards([path]).members():
            member.decode()

    fuzz(tmp_path, 1000, rewriting(path, read))


@pytest.mark.filterwarnings("ignore")
def test_presets(tmp_path):
    path = tmp_path / "preset.yaml"
    path.write_text("# a product\ndataset: demo\nimage_size: [64, 96]\ntrain_steps: 5\nseed: 3\n")
    parser = main.get_parser()
    fuzz(tmp_path, 2000, rewriting(path, lambda: parse(parser, ["--config", str(path)])))


def test_tables_of_defects(tmp_path):
    make_mvtec_loco(tmp_path, "kit")
    path = tmp_path / "kit" / "defects_config.json"
    fuzz(tmp_path, 2500, rewriting(path, lambda: read_defects_config(path.parent)))


def test_splits(tmp_path):
    make_visa(tmp_path / "visa", "pcb1")
    (tmp_path / "passwd.png").write_bytes(b"")
    path = tmp_path / "visa" / "split_csv" / "1cls.csv"

    def read() -> None:
        for name in DATASETS["visa"].find(tmp_path / "visa"):
            category = survey_category("visa", tmp_path / "visa", name, seed=0)
            outside = [s for s in category.samples if "passwd" in s.image.name]
            assert bool(outside) <= bool(category.faults)
            assert Run(tmp_path, "visa", name).folder.parent == tmp_path / "trainings" / "visa"
            if category.faults:
                raise InputError(*category.faults)

    fuzz(tmp_path, 2500, rewriting(path, read))


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


def test_detectors(tmp_path, detector):
    run = run_of(tmp_path)
    run.folder.mkdir(parents=True)
    run.save_detector(detector, "glae", "small", IMAGE, "fp32")
    fuzz(
        tmp_path, 1500, patching(run.detector_file, lambda: run.load_detector(torch.device("cpu")))
    )


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


# What passes the check must pass the run.


def test_a_product_that_passes_the_check_is_trained(tmp_path, outcome):
    """Any file of it altered: refused with code 2, or everything works."""
    make_product(tmp_path / "bolt")
    torch.manual_seed(0)
    torch.save(pdn_small().state_dict(), tmp_path / "teacher.pth")
    files = sorted(path for path in (tmp_path / "bolt").rglob("*") if path.is_file())
    whole = {path: path.read_bytes() for path in files}
    codes = []

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(files), CHANGES)
    def each(path: Path, changes: list[tuple]) -> None:
        path.write_bytes(changed(whole[path], changes))
        line = command(tmp_path, tmp_path / "out", "--train_steps", "1")
        try:
            code, _, errors = outcome(main, [*line, "--check"])
            assert code == (2 if errors else 0)
            codes.append(code)
            if code == 0:
                code, _, errors = outcome(main, line)
                assert (code, errors) == (0, [])
        finally:
            path.write_bytes(whole[path])
            shutil.rmtree(tmp_path / "out", ignore_errors=True)

    each()
    assert {0, 2} == set(codes)

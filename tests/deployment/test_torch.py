"""PyTorch's own files: the detector's numbers, and nothing run that nobody trusts."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch

import predict
from data.samples import InputError
from deployment.archive import check_archive
from deployment.runtimes import load_exported
from prediction.predictor import load_detector
from tests.conftest import REPOSITORY
from tests.deployment.conftest import run_export
from tests.prediction.conftest import MACHINE, rgb, rows_of
from utils.presets import parse

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")


@pytest.fixture(scope="module")
def program(alone) -> Path:
    assert run_export(alone.folder, "--format", "torch") == 0
    return alone.exports_folder / "detector.pt2"


@pytest.fixture(scope="module")
def compiled(alone) -> Path:
    assert run_export(alone.folder, "--format", "torch", "--compiled") == 0
    return alone.exports_folder / "detector_compiled.pt2"


@pytest.fixture(scope="module")
def stained(product) -> np.ndarray:
    return rgb(product / "test" / "stain" / "001.png")


def agrees(file: Path, folder: Path, images: np.ndarray, precision: str = "fp32") -> None:
    """Compare a file, for each of images (N, H, W, 3), with its detector."""
    found = load_exported(file, trusted=True).run(images)
    detector = load_detector(folder, "cpu", precision)
    for number, image in enumerate(images):
        theirs = detector.predict(image)
        assert found["score"][number] == pytest.approx(theirs.score, rel=1e-4, abs=1e-4)
        assert found["p_value"][number] == pytest.approx(theirs.p_value)
        assert found["anomalous"][number] == theirs.anomalous
        whole = pytest.approx(theirs.anomaly_map, rel=1e-4, abs=1e-3)
        assert found["anomaly_map"][number] == whole


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 30, 200), (2, 333, 41)])
def test_a_program_takes_images_of_any_number_and_size(program, alone, shape):
    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    agrees(program, alone.folder, images)


@pytest.mark.slow
def test_what_is_compiled_says_the_same_for_any_number_and_size(compiled, alone, stained):
    rng = np.random.default_rng(0)
    for images in (stained[None], rng.integers(0, 256, (3, 30, 200, 3), dtype=np.uint8)):
        agrees(compiled, alone.folder, images)
    assert load_exported(compiled, trusted=True).description.compiled == "cpu"


def test_bf16_is_that_of_predict(alone, stained, tmp_path):
    run = [alone.folder, "--format", "torch", "--precision", "bf16", "--out", tmp_path]
    assert run_export(*run) == 0
    file = tmp_path / "detector_bf16.pt2"
    assert load_exported(file, trusted=True).description.precision == "bf16"
    agrees(file, alone.folder, stained[None], "bf16")
    exact = load_detector(alone.folder, "cpu", "fp32").predict(stained).score
    assert load_exported(file, trusted=True).predict(stained).score != exact


def test_of_what_training_kept_only_what_scores_is_in_the_file(program, exported, alone, tmp_path):
    assert program.stat().st_size < 1.2 * exported.stat().st_size + 2**19  # without sums to fit by
    content = program.read_bytes()
    assert b"site-packages" not in content
    assert str(REPOSITORY).encode() not in content
    assert run_export(alone.folder, "--format", "torch", "--out", tmp_path) == 0
    assert (tmp_path / "detector.pt2").read_bytes() == content


def test_a_program_needs_only_two_folders_and_torch(program, product):
    picture = str(product / "test" / "stain" / "001.png")
    code = (
        "import sys; from deployment.runtimes import load_exported; "
        f"print(load_exported({str(program)!r}, trusted=True).predict({picture!r}).verdict); "
        "own = {'models', 'scoring', 'utils', 'prediction', 'training'} & set(sys.modules); "
        "assert not own, own"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() in (["anomalous"], ["good"])


def test_predict_runs_a_trusted_file_alone(program, alone, product, tmp_path):
    rows = {}
    for name, source in {"file": program, "run": alone.folder}.items():
        line = [source, product / "test", "--csv", tmp_path / f"{name}.csv", *MACHINE]
        words = [*map(str, line), "--precision", "fp32"]
        if name == "file":
            with pytest.raises(InputError, match=r"say --trusted"):
                predict.main(parse(predict.get_parser(), words))
            assert not (tmp_path / "file.csv").exists()
        assert predict.main(parse(predict.get_parser(), [*words, "--trusted"])) == 0
        rows[name] = [(row["image"], row["verdict"], row["p_value"]) for row in rows_of(line[3])]
    assert rows["file"] == rows["run"]


class Harm:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def rewritten(file: Path, path: Path, changed: dict[str, bytes], **how) -> Path:
    """Copy an archive with other or more records: of names that end so."""
    with ZipFile(file) as old, ZipFile(path, "w", **how) as new:
        records = {name: old.read(name) for name in old.namelist()}
        for end, content in changed.items():
            known = [name for name in records if name.endswith(end)]
            records[known[0] if known else f"archive/{end}"] = content
        for name, content in records.items():
            new.writestr(name, content)
    return path


def test_pickles_in_a_file_are_never_read(program, tmp_path):
    harm = pickle.dumps(Harm(tmp_path / "harmed"))
    wrong = [
        "data/sample_inputs/model.pt",
        "data/weights/model.pt",
        "data/constants/opaque_obj_0",
        "data/constants/custom_obj_0",
        "data/aotinductor/../../evil.so",
    ]
    for name in wrong:
        path = rewritten(program, tmp_path / "a.pt2", {name: harm})
        with pytest.raises(InputError, match=f"a.pt2 is damaged.*{name[:12]}.*does not belong"):
            load_exported(path, trusted=True)
    with ZipFile(program) as archive:
        name = next(n for n in archive.namelist() if n.endswith("model_weights_config.json"))
        config = json.loads(archive.read(name))
    entry = next(iter(config["config"].values()))
    entry["use_pickle"] = True
    weights = {f"data/weights/{entry['path_name']}": harm}
    weights["model_weights_config.json"] = json.dumps(config).encode()
    with pytest.raises(InputError, match="weights that are pickled"):
        load_exported(rewritten(program, tmp_path / "b.pt2", weights), trusted=True)
    assert not (tmp_path / "harmed").exists()


def test_a_bomb_and_what_is_no_archive_are_refused_in_one_line(program, tmp_path):
    content = program.read_bytes()
    bomb = rewritten(program, tmp_path / "bomb.pt2", {}, compression=ZIP_DEFLATED)
    files = {"bomb.pt2": bomb.read_bytes(), "cut.pt2": content[:-5000], "late.pt2": content[5000:]}
    files |= {"empty.pt2": b"", "text.pt2": b"no model"}
    for name, wrong in files.items():
        (tmp_path / name).write_bytes(wrong)
        with pytest.raises(InputError, match=f"{name} is damaged, or was not") as error:
            load_exported(tmp_path / name, trusted=True)
        assert "\n" not in str(error.value)
    with ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("archive/archive_format", "pt3")
    torch.save({"a": torch.zeros(3)}, tmp_path / "weights.pt2")
    for name in ("other.pt2", "weights.pt2", "none.pt2"):
        with pytest.raises(InputError, match=f"{name} is damaged, or was not|there is no file"):
            load_exported(tmp_path / name, trusted=True)


def test_parts_that_overlap_are_refused(program, tmp_path):
    with ZipFile(program) as archive:
        largest = max(record.file_size for record in archive.infolist())
    path = tmp_path / "a.pt2"
    with ZipFile(path, "w") as archive:
        for number in range(2):
            archive.writestr(f"a/data/weights/weight_{number}", bytes(largest))
        entries = archive.filelist
        entries[1].header_offset = entries[0].header_offset
    path.write_bytes(path.read_bytes()[largest:])
    with pytest.raises(ValueError, match="larger than it is"):
        check_archive(path)


def test_a_device_or_precision_that_a_file_has_not_is_named(program, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for device in ("cuda", "tpu"):
        with pytest.raises(InputError, match=f"devices are cpu, .*not {device}"):
            load_exported(program, device=device, trusted=True)
    with pytest.raises(InputError, match="is in fp32, not in bf16"):
        load_exported(program, precision="bf16", trusted=True)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"pip install -r requirements\.txt"):
        load_exported(program, trusted=True)


@pytest.mark.slow
def test_code_for_another_machine_is_not_run(compiled, monkeypatch):
    other = {"AOTI_MACHINE": "aarch64", "AOTI_CPU_ISA": "NEON"}
    monkeypatch.setattr("torch._inductor.codecache.get_device_information", lambda _: dict(other))
    with pytest.raises(InputError, match="not aarch64: export it here"):
        load_exported(compiled, trusted=True)


def test_without_a_compiler_one_line_says_so(alone, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = [alone.folder, "--out", tmp_path, "--compiled"]
    without_compiler = torch._inductor.config.patch({"cpp.cxx": ("no_such_compiler",)})
    with without_compiler, pytest.raises(InputError, match=r"needs a C\+\+ compiler: install"):
        run_export(*run, "--format", "torch")
    with pytest.raises(InputError, match="no CUDA device here"):
        run_export(*run, "cuda", "--format", "torch")
    with pytest.raises(InputError, match="--compiled is for --format torch alone"):
        run_export(*run, "--format", "onnx", "torch")
    assert not [*tmp_path.iterdir()]

"""calibrate.py: good pictures are taken in, once; the detector as it was is kept."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import calibrate
import inference
from data.fingerprints import hash_of
from data.samples import InputError
from models.experts import NETWORKS
from prediction.predictor import load_detector
from scoring.thresholds import rank
from tests.conftest import picture
from tests.faults.running import CONTEXT, LIMIT
from tests.prediction.conftest import MACHINE
from tests.running_main import arguments, run_main, trained
from utils import detectors
from utils.detectors import read_detector
from utils.files import locked_folder
from utils.presets import parse
from utils.runs import Run
from utils.tensors import read_about, save_tensors

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")
CPU = torch.device("cpu")


def run_calibrate(*argv: object) -> int:
    """Run calibrate.py in this process; return its exit code."""
    return calibrate.main(parse(calibrate.get_parser(), [*map(str, argv), *MACHINE]))


@pytest.fixture
def more_good(tmp_path) -> Path:
    """Six good pictures that the product's folder does not hold."""
    folder = tmp_path / "more_good" / "lot 2"
    folder.mkdir(parents=True)
    for index in range(6):
        drawn = picture(np.random.default_rng(100 + index), stain=False)
        drawn.save(folder / f"{index:03}.png")
    return folder.parent


def copied(run: Run, folder: Path) -> Run:
    """Return a copy of a run, to be changed."""
    shutil.copytree(run.output, folder)
    return Run(folder, run.dataset, run.subdataset)


@pytest.fixture
def own(alone, tmp_path) -> Run:
    """A run of the statistics alone."""
    return copied(alone, tmp_path / "output")


def about_of(run: Run) -> dict:
    return read_about(run.detector_file)


def files_of(run: Run) -> set[str]:
    return {path.name for path in run.folder.glob("detector*")}


def test_the_new_detector_takes_the_name_and_the_old_one_is_kept_byte_for_byte(
    own, more_good, capsys
):
    former = own.detector_file.read_bytes()
    assert run_calibrate(own.output, more_good) == 0
    out = capsys.readouterr().out
    kept = own.folder / "detector_1.safetensors"
    assert kept.read_bytes() == former
    assert f"mv {kept} {own.detector_file}" in out
    trained = read_detector(own.detector_file, CPU)
    assert trained.detector.good_scores.shape[1] == 7 - 1 + 6
    hashes = {hash_of(path) for path in more_good.rglob("*.png")}
    assert {*trained.about["taken_in"]} == hashes
    before, after = load_file(kept), load_file(own.detector_file)
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed >= {"good_scores", "statistics.position.mean", "statistics.composition.count"}
    assert not any(name.startswith(("teacher", "scales", "errors")) for name in changed)


def test_it_says_what_has_changed(own, more_good, capsys):
    before = read_detector(own.detector_file, CPU).detector
    assert run_calibrate(own.folder, more_good, "--false_alarm_rate", 0.25) == 0
    after = read_detector(own.detector_file, CPU).detector
    lines = capsys.readouterr().out.splitlines()
    cells = {line[:25].strip(): line[25:].split() for line in lines}
    assert cells["held-out good images"] == ["6", "12"]
    assert cells["false alarms at most, %"] == ["14.29", "23.08"]  # 1 / 7, 3 / 13
    assert cells["threshold"] == [f"{d.threshold.item():.4g}" for d in (before, after)]
    assert cells["alarms of the 6 new"][0].isdecimal()
    assert any("strangest" in line and "lot 2" in line for line in lines)


def test_a_rate_is_stored_and_what_comes_later_keeps_it(own, more_good):
    assert (
        run_calibrate(own.folder, more_good / "lot 2" / "000.png", "--false_alarm_rate", 0.4) == 0
    )
    assert run_calibrate(own.folder, more_good) == 0
    detector, _, _, about = read_detector(own.detector_file, CPU)
    assert about["false_alarm_rate"] == 0.4
    assert len(about["taken_in"]) == 6
    assert detector.threshold == detector.good_scores[0][rank(12, 0.4) - 1]
    assert files_of(own) == {f"detector{n}.safetensors" for n in ("", "_1", "_2")}


@pytest.mark.parametrize("experts", [NETWORKS, (*NETWORKS, "position")], ids=len)
def test_networks_stay_and_their_scores_are_added(experts, product, teacher, tmp_path, more_good):
    run = trained(product, teacher, tmp_path / "networks", "--experts", *experts)
    before, again = load_file(run.detector_file), tmp_path / "again.safetensors"
    assert run_calibrate(run.folder, more_good, "--out", again) == 0
    after = load_file(again)
    assert all(torch.equal(before[n], after[n]) for n in before if n.startswith("student."))
    assert after["good_scores"].shape == (1 + len(experts), 1 + 6)
    scores = load_detector(run.detector_file, device="cpu", precision="fp32")
    found = scores.predict([*more_good.rglob("*.png")])
    for expert in NETWORKS:  # which have seen neither the one nor the other
        row = after["good_scores"][1 + experts.index(expert)].tolist()
        own = [of.experts[expert] for of in found] if "position" in experts else []
        assert all(min(abs(score - other) for other in row) < 1e-3 for score in own)
    if experts == NETWORKS:
        row = after["good_scores"][0].tolist()
        assert all(min(abs(of.score - other) for other in row) < 1e-4 for of in found)


def test_one_file_alone_learns_and_can_be_written_elsewhere(
    alone, more_good, tmp_path, monkeypatch
):
    """On a colleague's machine: no training image, no config."""
    home = tmp_path / "colleague"
    home.mkdir()
    shutil.copy(alone.detector_file, home / "line.safetensors")
    monkeypatch.chdir(home)
    former = Path("line.safetensors").read_bytes()
    assert run_calibrate("line.safetensors", more_good, "--out", "new/better.safetensors") == 0
    assert Path("line.safetensors").read_bytes() == former
    assert run_calibrate("line.safetensors", more_good) == 0
    assert Path("line_1.safetensors").read_bytes() == former
    written = [Path(name).read_bytes() for name in ("line.safetensors", "new/better.safetensors")]
    assert written[0] == written[1]
    there = {"line.safetensors", "line_1.safetensors", "new"}
    assert {path.name for path in home.iterdir()} == there


def test_an_image_counts_once(own, product, more_good, capsys):
    shutil.copy(more_good / "lot 2" / "000.png", more_good / "the same.png")
    shutil.copy(product / "train" / "good" / "003.png", more_good / "of the training.png")
    with pytest.warns(UserWarning, match="and 1 more: the detector has learnt from it"):
        assert run_calibrate(own.folder, more_good) == 0
    assert len(about_of(own)["taken_in"]) == 6
    former = own.detector_file.read_bytes()
    assert run_calibrate(own.folder, more_good) == 0
    assert "nothing to change" in capsys.readouterr().out
    assert own.detector_file.read_bytes() == former
    assert files_of(own) == {"detector.safetensors", "detector_1.safetensors"}


def test_nothing_is_fitted_on_test_images_wherever_they_lie(own, product, more_good):
    former = own.detector_file.read_bytes()
    shutil.copy(product / "test" / "stain" / "001.png", more_good / "copy.png")
    for images in (product / "test" / "stain", more_good):
        with pytest.raises(InputError, match="test images of folder/bolt"):
            run_calibrate(own.folder, images)
    assert own.detector_file.read_bytes() == former
    assert files_of(own) == {"detector.safetensors"}


def test_where_the_data_set_is_gone_that_is_said(alone, more_good, tmp_path, capsys):
    run = copied(alone, tmp_path / "moved")
    run.write_config(run.read_config() | {"folder_path": str(tmp_path / "nowhere")})
    assert run_calibrate(run.folder, more_good) == 0
    assert "test images would go unnoticed" in capsys.readouterr().err


def test_what_cannot_be_read_is_named_and_nothing_is_taken_in(own, more_good):
    former = own.detector_file.read_bytes()
    (more_good / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (more_good / "gone.png").symlink_to(more_good / "nowhere.png")
    with pytest.raises(InputError) as caught:
        run_calibrate(own.folder, more_good)
    assert len(caught.value.args) == 2
    assert all(
        name in fault for name, fault in zip(("cut", "gone"), caught.value.args, strict=True)
    )
    assert own.detector_file.read_bytes() == former


def test_every_fault_of_a_command_is_told_at_once(own, more_good, tmp_path):
    there = tmp_path / "there.safetensors"
    there.touch()
    line = ("--out", there, "--false_alarm_rate", 1, "--scoring_batch_size", 0)
    with pytest.raises(InputError) as caught:
        run_calibrate(tmp_path / "more_good", tmp_path / "nothing.png", *line)
    named = ("--scoring_batch_size", "--false_alarm_rate", "--out", "detector", "nothing.png")
    assert len(caught.value.args) == 5
    assert all(name in fault for name, fault in zip(named, caught.value.args, strict=True))


def test_a_run_that_another_process_works_on_is_left_alone(own, more_good, tmp_path):
    with locked_folder(own.folder, "--output_dir"):
        with pytest.raises(InputError, match=r"in use by another process.*another --out"):
            run_calibrate(own.folder, more_good)
        assert run_calibrate(own.folder, more_good, "--out", tmp_path / "x.safetensors") == 0
    assert files_of(own) == {"detector.safetensors"}


def test_a_detector_that_kept_no_scores_is_refused(own, more_good):
    tensors = {k: v for k, v in load_file(own.detector_file).items() if k != "good_scores"}
    save_tensors(tensors, own.detector_file, about_of(own) | {"good_images": 0})
    with pytest.raises(InputError, match="is of an earlier version, which kept no good images'"):
        run_calibrate(own.folder, more_good)


def test_a_full_disk_leaves_the_detector_as_it_was(own, more_good, monkeypatch):
    former = own.detector_file.read_bytes()

    def full(tensors, path, about):
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(detectors, "save_tensors", full)
    with pytest.raises(OSError, match=r"No space left.*/detector\.safetensors"):
        run_calibrate(own.folder, more_good)
    assert own.detector_file.read_bytes() == former
    assert not list(own.folder.glob(".*.part"))
    assert files_of(own) == {"detector.safetensors"}


def be_killed(call: str, line: list[str]) -> None:
    """Be calibrate.py, killed as it is about to make a call of the system's for its result."""
    real = getattr(os, call)

    def killing(*arguments, **more):
        if call == "fsync" or Path(arguments[1]).name.startswith("detector"):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **more)

    setattr(os, call, killing)
    run_calibrate(*line)


@pytest.mark.parametrize("call", ["fsync", "link", "replace"])
def test_killed_at_any_moment_it_leaves_the_detector_as_it_was(own, more_good, call):
    former, one = own.detector_file.read_bytes(), str(more_good / "lot 2" / "000.png")
    process = CONTEXT.Process(target=be_killed, args=(call, [str(own.folder), one]))
    process.start()
    process.join(LIMIT)
    assert process.exitcode == -signal.SIGKILL
    assert own.detector_file.read_bytes() == former
    assert run_calibrate(own.folder, one) == 0
    assert own.detector_file.read_bytes() != former
    assert (own.folder / "detector_1.safetensors").read_bytes() == former
    assert not list(own.folder.glob(".*.part"))


def test_without_links_the_old_one_is_copied(own, more_good, monkeypatch):
    former = own.detector_file.read_bytes()

    def not_here(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", not_here)
    assert run_calibrate(own.folder, more_good) == 0
    assert (own.folder / "detector_1.safetensors").read_bytes() == former
    assert own.detector_file.read_bytes() != former


def test_the_run_goes_on_and_is_evaluated_by_what_it_has_become(
    own, product, teacher, more_good, monkeypatch
):
    assert run_calibrate(own.folder, more_good) == 0
    learnt = own.detector_file.read_bytes()
    metrics = own.metrics_file.read_text()
    inference.main(parse(inference.get_parser(), [str(own.output), "--workers", "1"]))
    assert own.metrics_file.read_text() != metrics
    line = arguments(product, teacher, own.output, "--experts", *own.read_config()["experts"])
    again = ("--train_steps", "0", "--precision", "fp32", "--resume")
    assert run_main(*line, *again) == 0
    assert own.detector_file.read_bytes() == learnt


@pytest.mark.parametrize(
    "taken_in",
    [["0" * 32] * 7, "0" * 32, ["0" * 31], [7], {"0": 1}, None],
    ids=["more than images", "text", "short", "number", "table", "none"],
)
def test_what_a_file_says_to_have_taken_in_is_not_believed(own, more_good, taken_in):
    about = about_of(own) | {"taken_in": taken_in}
    save_tensors(load_file(own.detector_file), own.detector_file, about)
    with pytest.raises(InputError, match=r"detector\.safetensors is damaged.*taken in"):
        run_calibrate(own.folder, more_good)

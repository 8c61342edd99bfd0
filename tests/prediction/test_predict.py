"""predict.py: any pictures by one file, with what the evaluation says of the same ones."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from safetensors.torch import load_file

import predict
from data.samples import InputError
from models.detector import LATER
from prediction import output
from prediction import pictures as drawing
from tests.conftest import fill
from tests.prediction.conftest import MACHINE, rgb, rows_of
from utils.commands import run_command
from utils.tensors import read_about, save_tensors

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")


@pytest.mark.parametrize("which", ["alone", "fused"])
def test_scores_verdicts_and_maps_are_those_of_the_evaluation(
    which, request, product, run_predict, tmp_path
):
    run = request.getfixturevalue(which)
    line = (run.folder, product / "test", "--csv", tmp_path / "a.csv", "--maps", tmp_path / "maps")
    assert run_predict(*line) == 0
    expected, found = rows_of(run.results_file), rows_of(tmp_path / "a.csv")
    assert [Path(row["image"]) for row in found] == [
        product / "test" / row["image"] for row in expected
    ]
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("score", "p_value", "verdict", *run.read_config()["experts"]):
            assert ours[name] == theirs[name]
        place = Path(theirs["image"]).with_suffix(".tiff")
        written = (tmp_path / "maps" / place).read_bytes()
        assert written == (run.maps_folder / "test" / place).read_bytes()


def test_one_file_alone_is_the_whole_detector(alone, run_predict, pictures, tmp_path, monkeypatch):
    """On a colleague's machine: an empty folder, the file under another name, the pictures."""
    home = tmp_path / "colleague"
    home.mkdir()
    shutil.copy(alone.detector_file, home / "line 3.safetensors")
    monkeypatch.chdir(home)
    for name, table in (("line 3.safetensors", "a.csv"), (alone.output, "b.csv")):
        assert run_predict(name, pictures, "--csv", table) == 0
    ours, theirs = (
        [{k: v for k, v in row.items() if k != "milliseconds"} for row in rows_of(home / name)]
        for name in ("a.csv", "b.csv")
    )
    assert ours == theirs
    assert sorted(path.name for path in home.iterdir()) == ["a.csv", "b.csv", "line 3.safetensors"]


def test_folders_files_and_patterns_are_each_taken_once(alone, run_predict, pictures, capsys):
    names = (f"{pictures}/*.bmp", pictures / "größe.jpg", pictures, f"{pictures}/**/000.png")
    assert run_predict(alone.detector_file, *names) == 0
    out, err = capsys.readouterr()
    shown = [line[line.index(str(pictures)) :] for line in out.splitlines()[1:]]
    expected = ("grey.bmp", "größe.jpg", "Prüfplatz 2/000.png", "Prüfplatz 2/001.png")
    assert shown == [str(pictures / name) for name in expected]
    assert "4 pictures, " in err


def test_json_on_stdout_is_all_that_is_there_and_tells_what_the_csv_does(
    alone, run_predict, pictures, capsys, tmp_path
):
    assert run_predict(alone.folder, pictures, "--jsonl", "-", "--csv", tmp_path / "a.csv") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for ours, row in zip(found, rows_of(tmp_path / "a.csv"), strict=True):
        assert {k: "" if v is None else str(v) for k, v in ours.items()} == row
    assert run_predict(alone.folder, pictures, "--jsonl", tmp_path / "a.jsonl") == 0
    again = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]
    assert [row["score"] for row in again] == [row["score"] for row in found]


def test_a_region_is_where_the_map_is_highest(alone, run_predict, product, tmp_path, capsys):
    stained = product / "test" / "stain" / "000.png"
    line = (alone.folder, stained, "--jsonl", "-", "--maps", tmp_path)
    assert run_predict(*line, "--pictures", tmp_path / "seen") == 0
    row = json.loads(capsys.readouterr().out)
    anomaly_map = tifffile.imread(tmp_path / "000.tiff")
    top, left = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
    assert row["left"] <= left < row["right"]
    assert row["top"] <= top < row["bottom"]
    assert 0 < row["area"] <= (anomaly_map > row["map_threshold"]).sum()
    assert (rgb(tmp_path / "seen" / "000.png") == (0, 255, 255)).all(2).any()  # its contour


def test_an_anomaly_can_be_an_exit_code(alone, run_predict, product):
    assert run_predict(alone.folder, product / "test", "--fail_on_anomaly") == 3
    assert run_predict(alone.folder, product / "test") == 0
    assert run_predict(alone.folder, product / "train", "--fail_on_anomaly") == 0


def test_another_rate_is_another_threshold(alone, run_predict, product, tmp_path):
    found = []
    for rate in (0.5, 0.9):
        line = ("--csv", tmp_path / "a.csv", "--false_alarm_rate", rate)
        assert run_predict(alone.folder, product / "test", *line) == 0
        found.append({float(row["threshold"]) for row in rows_of(tmp_path / "a.csv")})
    good = load_file(alone.detector_file)["good_scores"][0].tolist()
    assert found == [{good[3]}, {good[0]}]


def test_what_cannot_be_read_is_named_and_the_others_are_scored(
    alone, run_predict, pictures, tmp_path, capsys
):
    (pictures / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (pictures / "gone.png").symlink_to(pictures / "nowhere.png")
    assert run_predict(alone.folder, pictures, "--csv", tmp_path / "a.csv") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 2
    assert all(name in line for name, line in zip(("a.png", "gone.png"), errors, strict=True))
    assert len(rows_of(tmp_path / "a.csv")) == 4
    with pytest.raises(InputError, match="no picture could be read"):
        run_predict(alone.folder, pictures / "a.png")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf_8_is_written_as_it_is(alone, run_predict, tmp_path):
    fill(tmp_path / "new", 1)
    odd = tmp_path / "new" / os.fsdecode(b"gr\xf6\xdfe.png")
    (tmp_path / "new" / "000.png").rename(odd)
    line = ("--csv", tmp_path / "a.csv", "--jsonl", tmp_path / "a.jsonl")
    assert run_predict(alone.folder, tmp_path / "new", *line, "--pictures", tmp_path / "seen") == 0
    assert os.fsencode(odd) in (tmp_path / "a.csv").read_bytes()
    assert json.loads((tmp_path / "a.jsonl").read_text())["image"] == str(odd)
    assert [path.stem for path in (tmp_path / "seen").iterdir()] == [odd.stem]


def test_a_picture_that_goes_while_it_is_scored_is_named_and_has_its_row(
    alone, run_predict, pictures, tmp_path, monkeypatch, capsys
):
    def gone(path, **_) -> None:
        raise InputError(f"cannot read the image {path}: gone")

    monkeypatch.setattr(output, "decode", gone)
    line = ("--csv", tmp_path / "a.csv", "--pictures", tmp_path / "seen")
    assert run_predict(alone.folder, pictures / "grey.bmp", *line) == 2
    assert "grey.bmp: gone" in capsys.readouterr().err
    assert len(rows_of(tmp_path / "a.csv")) == 1


def test_every_fault_of_a_command_is_told_at_once(alone, run_predict, pictures, tmp_path):
    line = ("--false_alarm_rate", 2, "--pictures", pictures / "seen", "--workers", 0)
    with pytest.raises(InputError) as caught:
        run_predict(alone.folder, pictures, *line[:4])
    assert [fault.split()[0] for fault in caught.value.args] == ["--false_alarm_rate", "--pictures"]
    with pytest.raises(InputError, match=r"nothing\.png is no image"):
        run_predict(alone.folder, pictures, tmp_path / "nothing.png")
    picture = pictures / "Prüfplatz 2" / "000.png"
    for option, value in (("--pictures", picture.parent), ("--csv", picture)):
        with pytest.raises(InputError, match=rf"^{option}: .*000.png would be replaced"):
            run_predict(alone.folder, picture, option, value)
    with pytest.raises(InputError, match=r"^--csv: .*detector.safetensors would be replaced"):
        run_predict(alone.folder, picture, "--csv", alone.detector_file)
    with pytest.raises(InputError, match=r"^--jsonl: .*rows would be replaced"):
        run_predict(alone.folder, picture, "--csv", tmp_path / "rows", "--jsonl", tmp_path / "rows")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"^--jsonl .*pipe is there, and no file"):
        run_predict(alone.folder, picture, "--jsonl", tmp_path / "pipe")
    with pytest.raises(InputError, match=r"^--csv -: name a file"):
        run_predict(alone.folder, picture, "--csv", "-")
    assert not (pictures / "seen").exists()


def test_a_picture_is_scored_once_and_its_results_lie_below_their_folder(
    alone, run_predict, tmp_path, monkeypatch
):
    fill(tmp_path / "new", 2)
    fill(tmp_path / "work" / "here", 1)
    (tmp_path / "new" / "notes.txt").write_text("no picture, though a pattern fits")
    monkeypatch.chdir(tmp_path / "work")
    names = ("here", "../new/*", "../new", tmp_path / "new" / "000.png")
    Path("seen.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert run_predict(alone.folder, *names, "--maps", "maps", "--csv", "seen.csv") == 0
    assert [row["image"] for row in rows_of(Path("seen.csv"))] == [
        "here/000.png",
        "../new/000.png",
        "../new/001.png",
    ]
    assert (tmp_path / "elsewhere.csv").is_file()  # not the link is replaced
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.tiff")}
    below = ("new/000", "new/001", "work/here/000")
    assert made == {f"work/maps/{place}.tiff" for place in below}


def test_a_folder_without_a_detector_or_with_several_is_refused(alone, run_predict, tmp_path):
    with pytest.raises(InputError, match=r"holds no detector\.safetensors"):
        run_predict(tmp_path, alone.output)
    output = tmp_path / "output"
    for name in ("bolt", "nut"):
        shutil.copytree(alone.folder, output / "trainings" / "folder" / name)
    fill(tmp_path / "new", 1)
    with pytest.raises(InputError, match=r"holds 2 detectors.*bolt, .*nut"):
        run_predict(output, tmp_path / "new")


def test_a_detector_of_an_earlier_version_gives_verdicts_without_p_values(
    alone, run_predict, pictures, tmp_path, capsys
):
    tensors = {k: v for k, v in load_file(alone.detector_file).items() if k != "good_scores"}
    later = ("good_images", "false_alarm_rate", "preprocessing", "version", "dataset", "subdataset")
    about = {k: v for k, v in read_about(alone.detector_file).items() if k not in later}
    former = tmp_path / "former.safetensors"
    save_tensors(tensors, former, about)
    assert "good_scores" in LATER
    assert run_predict(former, pictures, "--csv", tmp_path / "a.csv") == 0
    assert {row["p_value"] for row in rows_of(tmp_path / "a.csv")} == {""}
    threshold = tensors["threshold"].item()
    assert {float(row["threshold"]) for row in rows_of(tmp_path / "a.csv")} == {threshold}
    assert "at most" not in capsys.readouterr().err
    with pytest.raises(InputError, match=r"former\.safetensors is of an earlier version"):
        run_predict(former, pictures, "--false_alarm_rate", 0.1)


def test_interrupted_it_ends_between_two_pictures_and_keeps_their_rows(
    alone, tmp_path, monkeypatch, capfd, interruptible
):
    fill(tmp_path / "new", 40)
    real, drawn = drawing.write_picture, []

    def interrupting(*arguments) -> None:
        real(*arguments)
        drawn.append(arguments[0])
        if len(drawn) == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(drawing, "write_picture", interrupting)
    line = [alone.folder, tmp_path / "new", "--csv", tmp_path / "a.csv", *MACHINE]
    line += ["--pictures", tmp_path / "seen"]
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, line)])
    assert run_command(predict.main, predict.get_parser) == 130
    assert "of 40; what was written is whole" in capfd.readouterr().err
    rows = rows_of(tmp_path / "a.csv")
    assert 0 < len(rows) < 40
    assert all(row["milliseconds"] for row in rows)
    assert {rgb(path).ndim for path in (tmp_path / "seen").iterdir()} == {3}
    assert not list(tmp_path.rglob("*.part"))


def test_a_failure_keeps_the_rows_before_it(alone, tmp_path, run_predict, monkeypatch):
    fill(tmp_path / "new", 12)

    def full(path, *_) -> None:
        if "007" in path.name:
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(drawing, "write_picture", full)
    line = ("--csv", tmp_path / "a.csv", "--pictures", tmp_path / "seen")
    with pytest.raises(OSError, match="No space left"):
        run_predict(alone.folder, tmp_path / "new", *line)
    assert len(rows_of(tmp_path / "a.csv")) == 7

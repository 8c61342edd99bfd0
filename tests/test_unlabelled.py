"""main.py and inference.py with pictures that have no label: maps for them, metrics as before."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import inference
import main
from data.samples import InputError
from tests.conftest import fill, make_product
from tests.running_main import arguments, run_main
from training.preparation import room_faults
from utils.options import resolved
from utils.presets import parse
from utils.runs import Run


@pytest.fixture(scope="module")
def world(tmp_path_factory, teacher) -> Path:
    """A product, and a run that was trained on it."""
    world = tmp_path_factory.mktemp("world")
    make_product(world / "bolt")
    run_main(*arguments(world / "bolt", teacher, world / "out"))
    return world


@pytest.fixture
def copied(world, tmp_path) -> Path:
    shutil.copytree(world, tmp_path / "world")
    return tmp_path / "world"


def metrics_of(output: Path) -> dict:
    """Return the metrics of a run, without what differs from time to time."""
    metrics = json.loads(Run(output, "folder", "bolt").metrics_file.read_text())
    del metrics["glae"]["seconds"]
    return metrics


def maps_of(output: Path) -> list[str]:
    folder = Run(output, "folder", "bolt").maps_folder / "test"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tiff"))


def infer(world: Path, *more: str) -> int:
    line = [str(world / "out"), "--folder_path", str(world / "bolt"), "--device", "cpu", *more]
    return inference.main(parse(inference.get_parser(), line))


@pytest.mark.parametrize(
    ("name", "more"), [("unlabelled", []), ("new", ["--unlabelled", "new"])], ids=str
)
def test_new_pictures_get_maps_and_leave_the_metrics_alone(copied, capsys, name, more):
    before, maps = metrics_of(copied / "out"), maps_of(copied / "out")
    fill(copied / "bolt" / "test" / name / "monday", 3)
    assert infer(copied, *more) == 0
    after = metrics_of(copied / "out")
    assert after["glae"]["counts"].pop("unlabelled") == 3
    assert after == before
    new = [f"{name}/monday/{i:03}.tiff" for i in range(3)]
    assert maps_of(copied / "out") == sorted(maps + new)
    lines = [line for line in capsys.readouterr().err.splitlines() if "without a label" in line]
    folder = Run(copied / "out", "folder", "bolt").maps_folder / "test" / name
    assert lines == [f"bolt: wrote 3 anomaly maps of images without a label to {folder}"]


@pytest.mark.parametrize(("gone", "lack"), [("good", "good ones"), ("stain", "defects")])
def test_where_nothing_can_be_measured_it_says_where_verdicts_are(copied, capsys, gone, lack):
    shutil.rmtree(copied / "bolt" / "test" / gone)
    shutil.rmtree(copied / "bolt" / "ground_truth" / gone, ignore_errors=True)
    assert infer(copied) == 0
    results = Run(copied / "out", "folder", "bolt").results_file
    err = capsys.readouterr().err
    assert f"no {lack} among the test images" in err
    assert f"verdicts are in {results}" in err
    assert results.read_text().count("\n") == 3


@pytest.mark.parametrize("masked", [True, False])
def test_a_folder_that_came_after_the_training_is_unlabelled_until_it_is_named(
    copied, capsys, masked
):
    if not masked:
        shutil.rmtree(copied / "bolt" / "ground_truth")
        assert infer(copied) == 0
    fill(copied / "bolt" / "test" / "new", 1)
    before = metrics_of(copied / "out")
    with pytest.warns(UserWarning, match="--labelled new"):
        assert infer(copied) == 0
    after = metrics_of(copied / "out")
    assert after["glae"]["counts"].pop("unlabelled") == 1
    assert after == before
    assert infer(copied, "--labelled", "new") == (2 if masked else 0)
    if masked:
        assert "there is no mask" in capsys.readouterr().err
    else:
        assert metrics_of(copied / "out")["glae"]["counts"]["test"] == 5


def test_resuming_a_finished_run_leaves_a_folder_that_came_later_unlabelled(
    copied, teacher, capsys
):
    line = arguments(copied / "bolt", teacher, copied / "out", "--resume")
    shutil.rmtree(copied / "bolt" / "ground_truth")
    run_main(*line)
    fill(copied / "bolt" / "test" / "new", 1)
    before = metrics_of(copied / "out")
    with pytest.warns(UserWarning, match="--labelled new"):
        run_main(*line, "--check")
    assert "1 without a label (new 1)" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="--labelled new"):
        run_main(*line)
    after = metrics_of(copied / "out")
    assert after["glae"]["counts"].pop("unlabelled") == 1
    assert after == before
    run_main(*line, "--labelled", "new")
    assert metrics_of(copied / "out")["glae"]["counts"]["test"] == 5


def test_resuming_remembers_which_folders_had_no_label(copied, teacher, tmp_path):
    fill(copied / "bolt" / "test" / "new", 2)
    fill(copied / "bolt" / "test" / "unlabelled", 1)
    shutil.rmtree(copied / "bolt" / "ground_truth")
    line = arguments(copied / "bolt", teacher, tmp_path / "own")
    run_main(*line, "--unlabelled", "new", "--labelled", "unlabelled")
    before = metrics_of(tmp_path / "own")
    assert before["glae"]["counts"] == {"train": 5, "validation": 1, "test": 5, "unlabelled": 2}
    Run(tmp_path / "own", "folder", "bolt").detector_file.unlink()  # as before its last step
    run_main(*line, "--resume")
    assert metrics_of(tmp_path / "own") == before
    assert Run(tmp_path / "own", "folder", "bolt").read_config()["unlabelled"] == ["new"]
    run_main(*line, "--resume")  # only evaluates again
    assert metrics_of(tmp_path / "own") == before
    run_main(*line, "--resume", "--labelled", "new")
    assert metrics_of(tmp_path / "own")["glae"]["counts"]["test"] == 7


def test_a_training_scores_them_and_remembers_their_folders(copied, teacher, tmp_path, capsys):
    fill(copied / "bolt" / "test" / "new", 2)
    line = arguments(copied / "bolt", teacher, tmp_path / "own", "--unlabelled", "new")
    run_main(*line, "--check")
    assert capsys.readouterr().out.startswith(
        "ready: bolt, 5 training, 1 validation (held out of the training images), "
        "4 test images (good 2, stain 2), 2 without a label (new 2)\n"
    )
    run_main(*line)
    run = Run(tmp_path / "own", "folder", "bolt")
    assert f"wrote 2 anomaly maps of images without a label to {run.maps_folder}/test/new" in (
        capsys.readouterr().err
    )
    assert metrics_of(tmp_path / "own")["glae"]["counts"]["unlabelled"] == 2
    assert run.read_config()["unlabelled"] == ["new"]
    shutil.rmtree(run.maps_folder)
    options = parse(inference.get_parser(), [str(tmp_path / "own"), "--device", "cpu"])
    assert inference.main(options) == 0  # needs no telling again
    assert "new/001.tiff" in maps_of(tmp_path / "own")


def test_pictures_without_a_label_alone_are_scored(copied):
    before = metrics_of(copied / "out")["glae"]
    for name in ("test", "ground_truth"):
        shutil.rmtree(copied / "bolt" / name)
    fill(copied / "bolt" / "test" / "unlabelled", 2)
    shutil.rmtree(Run(copied / "out", "folder", "bolt").maps_folder)
    assert infer(copied) == 0
    assert maps_of(copied / "out") == ["unlabelled/000.tiff", "unlabelled/001.tiff"]
    measured = metrics_of(copied / "out")
    assert measured["classification_au_roc"] is None
    assert measured["glae"]["counts"] == {"train": 5, "validation": 1, "test": 0, "unlabelled": 2}
    assert measured["glae"]["threshold"] == before["threshold"]


def test_an_unlabelled_picture_that_cannot_be_read_is_named_before_training(
    copied, teacher, tmp_path
):
    fill(copied / "bolt" / "test" / "unlabelled", 2)
    victim = copied / "bolt" / "test" / "unlabelled" / "001.png"
    victim.write_bytes(b"")
    with pytest.raises(InputError, match=r"unlabelled/001\.png"):
        run_main(*arguments(copied / "bolt", teacher, tmp_path / "own"))
    assert not Run(tmp_path / "own", "folder", "bolt").losses_file.exists()


def test_maps_made_elsewhere_need_none_of_unlabelled_pictures(copied, capsys):
    maps = copied / "maps" / "bolt"
    shutil.copytree(Run(copied / "out", "folder", "bolt").maps_folder, maps)
    fill(copied / "bolt" / "test" / "unlabelled", 2)
    assert infer(copied, "--maps_dir", str(copied / "maps"), "--format", "json") == 0
    measured = json.loads(capsys.readouterr().out)[0]["AUROC"]
    assert measured == metrics_of(copied / "out")["classification_au_roc"]


def test_the_names_can_be_stored_and_read_again(tmp_path):
    line = ["--folder_path", str(tmp_path), "--unlabelled", "a b", "--unlabelled=c"]
    first = parse(main.get_parser(), line)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(resolved(first)))
    second = parse(main.get_parser(), ["--config", str(tmp_path / "config.yaml")])
    assert first.unlabelled == second.unlabelled == ["a b", "c"]


def test_maps_of_unlabelled_pictures_need_room(copied, monkeypatch):
    from data.catalog import read_category
    from models.building import empty_detector

    detector = empty_detector("glae", "small", (64, 64))
    run = Run(copied / "none", "folder", "bolt")
    needed = []
    for count in (1, 3):
        fill(copied / "bolt" / "test" / "unlabelled", count)
        category = read_category("folder", copied / "bolt", "bolt", seed=0)
        usage = shutil.disk_usage(copied)._replace(free=0)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        needed += room_faults(run, category, detector)
    assert "5 anomaly maps" in needed[0]
    assert "7 anomaly maps" in needed[1]

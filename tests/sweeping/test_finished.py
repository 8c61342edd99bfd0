"""When a run is finished: its test images and masks are known again by content."""

import json
from pathlib import Path

import pytest

import main
from sweeping.finished import hash_of_tests, is_finished, mark_of, present_tests
from tests.conftest import make_mvtec_ad, make_mvtec_loco
from utils.presets import parse
from utils.runs import Run


def rename(file: Path) -> None:
    file.rename(file.with_name("other.png"))


def rewrite(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def swap(file: Path) -> None:
    """Give it the content of another, and that one its own."""
    other = max(path for path in file.parent.iterdir() if path != file)
    mine = file.read_bytes()
    file.write_bytes(other.read_bytes())
    other.write_bytes(mine)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("test/stain/000.png", rename),
        ("test/stain/000.png", rewrite),
        ("test/stain/000.png", swap),
        ("test/good/000.png", Path.unlink),
        ("ground_truth/stain/000_mask.png", rewrite),
    ],
)
def test_a_test_image_or_mask_that_changes_is_noticed(tmp_path, name, change):
    make_mvtec_ad(tmp_path / "a", "bottle")
    before = hash_of_tests("mvtec_ad", tmp_path / "a", "bottle")
    rewrite(tmp_path / "a" / "bottle" / "train" / "good" / "000.png")  # which is none of them
    (tmp_path / "a").rename(tmp_path / "b")
    assert hash_of_tests("mvtec_ad", tmp_path / "b", "bottle") == before
    change(tmp_path / "b" / "bottle" / name)
    assert hash_of_tests("mvtec_ad", tmp_path / "b", "bottle") != before


def test_other_saturation_thresholds_are_noticed(tmp_path):
    make_mvtec_loco(tmp_path, "bag")
    before = hash_of_tests("mvtec_loco", tmp_path, "bag")
    config = tmp_path / "bag" / "defects_config.json"
    config.write_text(config.read_text().replace("0.5", "0.25"))
    assert hash_of_tests("mvtec_loco", tmp_path, "bag") != before


def test_a_detector_is_evaluated_again_on_other_test_images(tmp_path):
    """Of its training images main.py's check finds nothing that has changed."""
    make_mvtec_ad(tmp_path / "data", "bottle")
    place = ["--mvtec_ad_path", str(tmp_path / "data"), "--subdataset", "bottle"]
    options = parse(main.get_parser(), place)
    run, checked = Run(tmp_path / "out", "mvtec_ad", "bottle"), []
    for file in (run.detector_file, run.metrics_file, run.results_file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    run.write_config({})

    def finished() -> bool:
        present_tests.cache_clear()  # as a process of its own has it
        return is_finished(run, options, lambda *asked: checked.append(asked))

    assert finished()  # without a mark, as main.py leaves it
    tests = hash_of_tests("mvtec_ad", tmp_path / "data", "bottle")
    mark_of(run).write_text(json.dumps({"options": "other", "metrics": "other", "tests": tests}))
    assert finished()
    rewrite(tmp_path / "data" / "bottle" / "test" / "good" / "000.png")
    assert not finished()
    assert len(checked) == 3


@pytest.mark.parametrize("text", ["", "[]", "7", '"tests"', '{"tests": 1', "\0"])
def test_a_damaged_mark_is_none(tmp_path, text):
    make_mvtec_ad(tmp_path / "data", "bottle")
    options = parse(main.get_parser(), ["--mvtec_ad_path", str(tmp_path / "data")])
    run = Run(tmp_path / "out", "mvtec_ad", "bottle")
    run.folder.mkdir(parents=True)
    mark_of(run).write_text(text)
    assert not is_finished(run, options, None)

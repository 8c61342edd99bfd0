"""inference.py --pictures: which picture stands where, what is drawn, what stays."""

import csv
import errno
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import inference
from data.samples import ANOMALOUS, GOOD, Category, InputError, Sample
from evaluation.results import TEST, UNLABELLED, ImageResult, worst_first
from prediction.pictures import TRUTH
from prediction.ranked import draw_ranked, ground_truth, picture_name
from tests.conftest import fill
from utils.labelling import load_test_set
from utils.presets import parse
from utils.runs import Run

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")
THRESHOLD = 1.0


def result(image: str, score: float, split: str = TEST, defect: str = "") -> ImageResult:
    verdict = ANOMALOUS if score > THRESHOLD else GOOD
    return ImageResult(image, split, defect or Path(image).parts[0], score, 0.1, verdict, 0.1, {})


def options_of(*argv: object):
    return parse(inference.get_parser(), [*map(str, argv), "--device", "cpu", "--workers", "2"])


@pytest.fixture
def run(alone, tmp_path) -> Run:
    """A copy of a run's output, to draw into."""
    shutil.copytree(alone.output, tmp_path / "out")
    return Run(tmp_path / "out", alone.dataset, alone.subdataset)


def drawn(run: Run) -> list[str]:
    return sorted(path.name for path in run.pictures_folder.iterdir())


def draw_again(run: Run) -> list[str]:
    """Draw from what an evaluation has left."""
    category, _ = load_test_set(run, options_of(run.output))
    metrics = json.loads(run.metrics_file.read_text())
    detector, *_ = run.load_detector(torch.device("cpu"))
    return draw_ranked(run, category, detector, metrics, 2)


def test_the_most_wrong_comes_first_and_a_name_says_how_wrong_it_is():
    wanted = {
        "0001_missed_dent_1.png": result("dent/1.jpg", -2.0),
        "0002_missed_scratch_lot_1.png": result("scratch/lot/1.png", 0.9),
        "0003_false_alarm_good_7.png": result("good/7.png", 8.0),
        "0004_false_alarm_good_ok_2.png": result("OK/ok/2.png", 1.1, defect=GOOD),
        "0005_passed_good_0.png": result("good/0.png", 0.75),
        "0006_found_dent_1.b.png": result("dent/1.b.png", 1.5),
        "0007_passed_good_3.png": result("good/3.png", -3.0),
        "0008_found_dent_9.png": result("dent/9.png", 9.0),
        "0009_anomalous_new_1.png": result("new/1.png", 1.2, UNLABELLED),
        "0010_good_new_2.png": result("new/2.png", -1.0, UNLABELLED),
    }
    results = [*wanted.values()]
    for seed in range(9):
        mixed = [results[place] for place in np.random.default_rng(seed).permutation(10)]
        found = worst_first(mixed, THRESHOLD)
        assert [picture_name(*pair) for pair in enumerate(found, 1)] == [*wanted]


@pytest.mark.parametrize(
    "image",
    [f"dent/{'ü' * 120}{'b' * 11}.png", f"{'d' * 250}/{'s' * 250}.png", 'a\n\u202e/"<\udcff>.png'],
)
def test_any_names_make_one_that_a_file_system_takes_and_a_terminal_shows(tmp_path, image):
    names = [picture_name(rank, result(image, 0.0)) for rank in (1, 12345)]
    for rank, name in zip(("0001", "12345"), names, strict=True):
        assert name.startswith(f"{rank}_missed_{image[0]}")
        assert name.endswith(".png")
        assert name.isprintable()
        (tmp_path / name).touch()
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.parametrize("rate", [0.5, 0.9])  # thresholds of which the latter alarms more
def test_every_scored_image_is_drawn_in_the_order_of_its_result(run, product, capsys, rate):
    out = run.pictures_folder
    out.mkdir(parents=True)
    ours = ("0001_missed_stain_of_before.png", "12345_found_a.png", "0002_anomalous_new_1.png")
    theirs = ("0001_notes.png", "0001_missed_stain_1.txt", "seen.png")
    for name in (*ours, *theirs):
        (out / name).touch()
    line = (run.output, "--pictures", "--false_alarm_rate", rate, "--precision", "fp32")
    assert inference.main(options_of(*line)) == 0

    measured = json.loads(run.metrics_file.read_text())["glae"]
    with run.results_file.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    bad = [r for r in rows if r["defect"] != GOOD]
    sets = [
        sorted((float(r["score"]), r["image"]) for r in bad if r["verdict"] == GOOD),
        sorted(
            (-float(r["score"]), r["image"]) for r in rows if r["defect"] == GOOD != r["verdict"]
        ),
    ]
    wrong = [image for of in sets for _, image in of]
    rest = [r for r in rows if r["image"] not in wrong]
    rest.sort(key=lambda r: abs(float(r["score"]) - measured["threshold"]))
    order = [image.replace("/", "_") for image in (*wrong, *(r["image"] for r in rest))]
    names = [name for name in drawn(run) if name not in theirs]
    assert [name.rsplit("_", 2)[1:] for name in names] == [name.split("_") for name in order]
    assert {*theirs} < {*drawn(run)}
    for name in names:
        with Image.open(out / name) as picture:
            dashes = (np.asarray(picture) == TRUTH).all(2)
        height = picture.height - 480 * 80 // 96  # the words and the legend
        assert dashes[height:].any() == ("stain" in name)

    found = {
        d: {v: sum((r["defect"], r["verdict"]) == (d, v) for r in rows) for v in (ANOMALOUS, GOOD)}
        for d in ("good", "stain")
    }
    assert measured["verdicts"] == found
    said = capsys.readouterr().err
    counts = [f"{found[d][ANOMALOUS]} of 2" for d in ("stain", "good")]
    promised = f"{100 * measured['false_alarm_rate']:.2g} % false alarms"
    assert f"{counts[0]} defective and {counts[1]} good test images are called" in said
    assert f"that 6 held-out good images set for at most {promised}" in said
    assert f"bolt: wrote 4 pictures, the most wrong first, to {out}\n" in said


def test_of_images_without_a_label_the_most_suspicious_comes_first(run, product, tmp_path):
    shutil.copytree(product, tmp_path / "bolt")
    fill(tmp_path / "bolt" / "test" / "unlabelled", 2)
    fill(tmp_path / "bolt" / "test" / "unlabelled" / "lot", 1, stain=True)
    for folder in ("good", "stain"):
        shutil.rmtree(tmp_path / "bolt" / "test" / folder)
    shutil.rmtree(tmp_path / "bolt" / "ground_truth")
    line = (run.output, "--folder_path", tmp_path / "bolt", "--pictures")
    assert inference.main(options_of(*line)) == 0
    assert drawn(run)[0] == "0001_anomalous_unlabelled_lot_000.png"
    assert len(drawn(run)) == 3


def test_the_ground_truth_is_what_the_metrics_take_for_it(tmp_path):
    Image.new("RGB", (9, 7)).save(tmp_path / "a.png")
    masks = np.zeros((2, 7, 9), np.uint8)
    masks[0, 1:3, 1:3], masks[1, 4, 5:] = 255, 7
    paths = tuple(tmp_path / f"{number}.png" for number in range(2))
    for path, mask in zip(paths, masks, strict=True):
        Image.fromarray(mask).save(path)
    entry = {"saturation_threshold": 1, "relative_saturation": True}
    table = [entry | {"pixel_value": value} for value in (255, 7)]
    for config in (None, table):
        sample, category = Sample(tmp_path / "a.png", 1, "x", paths), Category("a", [], [])
        found = ground_truth(sample, Category("a", [], [], defects_config=config))
        assert (found == masks.any(0)).all()
    assert ground_truth(Sample(tmp_path / "a.png", 1, "x"), category) is None


def test_what_has_changed_since_the_evaluation_is_named_and_the_others_are_drawn(run):
    damaged = run.maps_folder / "test" / "good" / "001.tiff"
    damaged.write_bytes(damaged.read_bytes()[:100])
    gone = next((run.maps_folder / "test" / "stain").iterdir())
    gone.unlink()
    faults = draw_again(run)
    assert len(faults) == 2
    assert all(any(str(path) in fault for fault in faults) for path in (damaged, gone))
    assert len(drawn(run)) == 2
    assert all(cv2.imread(str(path)) is not None for path in run.pictures_folder.iterdir())


def test_what_is_not_drawn_has_a_line_and_its_category_a_row(run, monkeypatch, capsys):
    monkeypatch.setattr("prediction.trained.draw_ranked", lambda *_: ["a.png is gone"])
    assert inference.main(options_of(run.output, "--pictures")) == 2
    shown = capsys.readouterr()
    assert f"error: folder/bolt in {run.output}: a.png is gone\n" in shown.err
    assert "bolt" in shown.out


def test_a_full_disk_names_the_picture_and_leaves_none_of_another_evaluation(run, monkeypatch):
    draw_again(run)

    def no_room(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_room)
    with pytest.raises(OSError, match="No space left") as caught:
        draw_again(run)
    assert Path(caught.value.filename).parent == run.pictures_folder
    assert drawn(run) == []


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (["--no_maps"], "leave --no_maps and --map out"),
        (["--map", "position"], "leave --no_maps and --map out"),
        (["--maps_dir", "maps"], "--pictures are of a detector"),
    ],
)
def test_pictures_of_maps_that_are_not_written_are_refused(run, more, fault):
    with pytest.raises(InputError, match=fault):
        inference.main(options_of(run.output, "--pictures", *more))
    assert not run.pictures_folder.exists()

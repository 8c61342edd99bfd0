"""Which images a gallery shows, in what order, and what becomes of what cannot be had."""

import base64
import io
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import report
from data.samples import ANOMALOUS, GOOD, InputError
from evaluation.results import TEST, UNLABELLED, ImageResult
from reporting.collected import collect
from reporting.gallery import all_galleries, chosen, gallery_data, outcome
from reporting.page import write_page
from reporting.thumbnails import outline_path
from tests.conftest import SIZE
from utils.devices import Compute
from utils.runs import Run

END_OF_INFERNO = (252, 255, 164)  # as published
CPU = Compute(torch.device("cpu"))


def result(name: str, score: float, threshold: float = 1.0) -> ImageResult:
    """Make the result of `<folder>/<stem>`; without a label in a folder "new"."""
    folder = name.partition("/")[0]
    verdict = ANOMALOUS if score > threshold else GOOD
    split = UNLABELLED if folder == "new" else TEST
    return ImageResult(name, split, folder, score, 0.5, verdict, None, {})


MISSES = [result("dent/1", 0.2), result("scratch/1", 0.7)]
ALARMS = [result("good/1", 3.0), result("good/2", 1.5)]
RIGHT = [result("dent/2", 1.1), result("good/3", 0.8), result("dent/3", 4), result("scratch/2", 9)]
NEW = [result("new/1", 2.0), result("new/2", -1.0)]
ALL = [*MISSES, *ALARMS, *RIGHT, *NEW]


def names(results: list[ImageResult]) -> list[str]:
    return [one.image for one in results]


def test_an_image_is_called_by_what_became_of_it():
    called = [outcome(of[0]) for of in (MISSES, ALARMS, RIGHT)] + [outcome(RIGHT[1])]
    assert called == ["missed", "false alarm", "found", "passed"]
    assert [outcome(one) for one in NEW] == ["no label, called anomalous", "no label, called good"]


def test_galleries_share_a_limit_in_turn():
    """Of six: the worst miss, alarm, hit, the most suspicious, one at random, the next miss."""
    taken = names(chosen(ALL, 6))
    assert {"dent/1", "good/1", "scratch/2", "new/1"} < {*taken}
    assert len({*taken}) == 6
    assert {*names(chosen(ALL, 100))} == {*names(ALL)}  # all, and each once


def test_what_is_drawn_at_random_is_the_same_whatever_the_order_and_the_scores():
    """So that models can be compared on the same images."""
    right = [result(f"good/{number:03}", number / 1000) for number in range(300)]
    others = [one._replace(score=one.score / 7) for one in right]
    assert names(chosen(right, 20)) == names(chosen(others[::-1], 20))
    assert names(chosen(right, 20)) != names(right)[:20]


def options(*given: str):
    return report.get_parser().parse_args(["--workers", "2", *given])


def of_run(run: Run, *given: str) -> tuple[dict, list[str]]:
    """Return a run's gallery, and what could not be had."""
    found, faults = collect([run.output])
    return gallery_data(found[0], options(*given), CPU, faults), faults


@pytest.fixture
def copied(alone, tmp_path):
    """A copy of an evaluated run, to be damaged."""
    shutil.copytree(alone.output, tmp_path / "out")
    return Run(tmp_path / "out", alone.dataset, alone.subdataset)


def gap(one: dict, other: dict) -> float:
    """Return how far combined maps are from those of another gallery: grey levels, at most."""
    return max(
        np.abs(shown(a) - shown(b)).mean()
        for a, b in zip(one["images"], other["images"], strict=True)
    )


def shown(image: dict) -> np.ndarray:
    """Return a combined map as a page shows it: (80, 96, 3)."""
    content = base64.b64decode(image["picture"]["maps"]["combined"])
    return np.asarray(Image.open(io.BytesIO(content)).resize(SIZE)).astype(float)


def test_every_image_has_its_pictures_and_outlines_where_a_defect_is(alone):
    data, faults = of_run(alone)
    assert faults == []
    assert data["maps"] == ["combined", "position", "composition"]
    assert Counter(image["defect"] for image in data["images"]) == {"good": 2, "stain": 2}
    for image in data["images"]:
        assert [*image["picture"]["maps"]] == data["maps"]
        assert bool(image["picture"]["truth"]) == (image["defect"] == "stain")


def test_without_single_experts_no_detector_is_needed(copied):
    copied.detector_file.unlink()
    data, faults = of_run(copied, "--no_expert_maps")
    assert (data["maps"], faults) == (["combined"], [])


def test_a_missing_map_is_one_line_and_the_detector_stands_in(copied):
    sound, _ = of_run(copied)
    (copied.maps_folder / "test" / "stain" / "000.tiff").unlink()
    data, faults = of_run(copied)
    assert gap(data, sound) < 3
    assert len(faults) == 1
    assert "there is no map" in faults[0]
    data, faults = of_run(copied, "--no_expert_maps")
    lacks = [image["name"] for image in data["images"] if not image["picture"]["maps"]]
    assert (lacks, len(faults)) == (["stain/000.png"], 1)


def test_maps_that_were_not_kept_are_the_detectors(copied):
    sound, _ = of_run(copied, "--no_expert_maps")
    shutil.rmtree(copied.maps_folder)
    data, faults = of_run(copied, "--no_expert_maps")
    assert (data["maps"], faults) == (["combined"], [])
    assert gap(data, sound) < 3


def test_a_detector_that_cannot_be_read_is_one_line_and_the_maps_on_disk_are_shown(copied):
    copied.detector_file.write_bytes(b"no detector")
    data, faults = of_run(copied)
    assert data["maps"] == ["combined"]
    assert len(faults) == 1
    assert str(copied.detector_file) in faults[0]


def test_images_that_were_moved_are_one_line_and_found_by_the_option(product, copied, tmp_path):
    sound, _ = of_run(copied)
    moved = shutil.copytree(product, tmp_path / product.name)
    text = copied.config_file.read_text()
    copied.config_file.write_text(text.replace(str(product), str(tmp_path / "gone")))
    data, faults = of_run(copied)
    assert [image["picture"] for image in data["images"]] == [None] * 4
    assert len(faults) == 1
    assert f"--folder_path {tmp_path / 'gone'} does not exist" in faults[0]
    assert of_run(copied, "--folder_path", str(moved)) == (sound, [])


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("stain/001.png", lambda path: path.write_bytes(b"no image"), "stain/001.png"),
        ("good/001.png", Path.unlink, "there is no test image good/001.png"),
    ],
    ids=["damaged", "deleted"],
)
def test_an_image_that_cannot_be_read_is_one_line_and_the_others_are_shown(
    product, copied, tmp_path, name, change, fault
):
    moved = shutil.copytree(product, tmp_path / product.name)
    change(moved / "test" / name)
    data, faults = of_run(copied, "--folder_path", str(moved))
    lacks = [image["name"] for image in data["images"] if image["picture"] is None]
    assert (lacks, len(faults)) == ([name], 1)
    assert fault in faults[0]


def with_thresholds(run: Run, **thresholds: float | None) -> None:
    metrics = json.loads(run.metrics_file.read_text())
    metrics["glae"] |= thresholds
    run.metrics_file.write_text(json.dumps(metrics))


def test_without_a_threshold_colours_end_at_each_maps_maximum(copied, tmp_path):
    with_thresholds(copied, threshold=None, map_threshold=None)
    data, faults = of_run(copied)
    assert faults == []
    assert not any(image["picture"]["contour"] for image in data["images"])
    for image in data["images"]:
        if image["defect"] == "stain":  # what is below 0 everywhere stays dark
            assert shown(image).sum(2).max() > 0.9 * sum(END_OF_INFERNO)
    write_page(tmp_path / "index.html", *collect([copied.output]), {copied: data})
    page = (tmp_path / "index.html").read_text()
    assert ("maximum</span>" in page, "map above its" in page) == (True, False)


def test_a_threshold_of_zero_is_one(copied):
    with_thresholds(copied, map_threshold=0.0)
    data, _ = of_run(copied, "--no_expert_maps")
    for image in data["images"]:
        above = tifffile.imread((copied.maps_folder / "test" / image["name"]).with_suffix(".tiff"))
        assert image["picture"]["contour"] == outline_path(above > 0, SIZE)


def test_of_each_outcome_that_there_may_be_it_is_told_how_many_images_have_it(
    make_output, tmp_path
):
    run = make_output(tmp_path / "a", {"good": [0, 3, 0.9], "dent": [0.5, 5], "cut": [2, 1.1]}, 1.0)
    told = {"missed": 1, "false alarm": 1, "found": 3, "passed": 2}
    assert of_run(run, "--gallery", "3")[0]["outcomes"] == told
    run = make_output(tmp_path / "b", {"good": [0, 0.9]}, 1.0)
    assert of_run(run)[0]["outcomes"] == {"false alarm": 0, "passed": 2}


def test_images_without_a_label_are_shown_the_most_suspicious_first(copied):
    text = copied.results_file.read_text()
    copied.results_file.write_text(text.replace(",test,stain,", ",unlabelled,stain,"))
    metrics = json.loads(copied.metrics_file.read_text())
    metrics["glae"] |= {"counts": {}, "auroc_by_defect": {}, "auroc_pooled": None}
    copied.metrics_file.write_text(json.dumps(metrics))
    data, faults = of_run(copied, "--unlabelled", "stain")
    shown = [image for image in data["images"] if image["outcome"].startswith("no label")]
    scores = [image["score"] for image in shown]
    assert (scores, len(scores), faults) == (sorted(scores, reverse=True), 2, [])
    assert all(image["picture"]["maps"] for image in shown)


def test_no_gallery_is_made_where_none_is_wanted(alone):
    found, faults = collect([alone.output])
    assert all_galleries(found, options("--gallery", "0"), CPU, faults) == {}


def test_wrong_options_are_all_named(tmp_path):
    with pytest.raises(InputError) as wrong:
        report.main(options(str(tmp_path), "--gallery", "-1", "--workers", "0"))
    assert [text.split()[0] for text in wrong.value.args] == ["--workers", "--gallery"]

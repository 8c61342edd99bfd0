"""main.py --experts: the statistics of the teacher's features, alone and beside the networks."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

import main
from data.catalog import read_category
from data.images import load_image, normalise
from data.samples import InputError
from evaluation.maps import read_map
from models.experts import NETWORKS, STATISTICS
from tests.conftest import fill, make_product
from tests.running_main import ALL, ALONE, arguments, run_main, trained
from utils.runs import Run
from utils.tensors import read_about, save_tensors

CPU = torch.device("cpu")


def rows(run: Run) -> list[dict[str, str]]:
    with run.results_file.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_no_step_of_training_gives_the_statistics_alone(alone):
    detector, _, _ = alone.load_detector(CPU)
    assert detector.experts == STATISTICS
    assert detector.student is None
    assert not alone.checkpoint_file.exists()
    assert not alone.losses_file.exists()
    assert alone.read_config()["experts"] == [*STATISTICS]
    assert not [n for n in load_file(alone.detector_file) if n.startswith(("student", "auto"))]
    assert {path.name for path in alone.maps_folder.rglob("*.tiff")} == {"000.tiff", "001.tiff"}


def test_experts_without_networks_are_not_trained(product, teacher, tmp_path):
    run = trained(product, teacher, tmp_path, "--experts", "position", "--train_steps", "65000")
    assert run.read_config()["train_steps"] == 0
    assert run.load_detector(CPU)[0].experts == ("position",)


@pytest.mark.parametrize("which", ["alone", "fused"])
def test_every_image_has_a_row_with_the_detectors_own_score_and_verdict(which, request, product):
    run = request.getfixturevalue(which)
    detector, size, _ = run.load_detector(CPU)
    found = rows(run)
    assert [row["image"] for row in found] == [
        f"{defect}/{index:03}.png" for defect in ("good", "stain") for index in range(2)
    ]
    for row in found:
        image, original = load_image(product / "test" / row["image"], size)
        score, _ = detector.score(normalise(image[None]), original)
        assert float(row["score"]) == pytest.approx(score.item(), rel=1e-2, abs=1e-2)
        anomalous = float(row["score"]) > detector.threshold.item()
        good = detector.good_scores[0].tolist()
        at_least = sum(score >= float(row["score"]) for score in good)
        assert float(row["p_value"]) == pytest.approx((1 + at_least) / (len(good) + 1))
        assert row["verdict"] == ("anomalous" if anomalous else "good")
        assert set(detector.experts) < row.keys()
    metrics = json.loads(run.metrics_file.read_text())
    labels, scores = zip(
        *((row["defect"] != "good", float(row["score"])) for row in found), strict=True
    )
    assert metrics["classification_au_roc"] == pytest.approx(roc_auc_score(labels, scores))
    assert metrics["glae"]["experts"].keys() == set(detector.experts)
    assert metrics["glae"]["options"]["experts"] == [*detector.experts]


def test_without_statistics_a_score_is_the_maps_maximum_as_published(product, teacher, tmp_path):
    run = trained(product, teacher, tmp_path, "--experts", *NETWORKS)
    assert not run.load_detector(CPU)[0].of_statistics()
    category = read_category("folder", product, None, 0)
    for row, sample in zip(rows(run), category.test, strict=True):
        assert float(row["score"]) == pytest.approx(read_map(run.maps_folder, sample).max())


def test_statistics_change_nothing_of_what_is_trained(fused, product, teacher, tmp_path):
    plain = trained(product, teacher, tmp_path, "--experts", *NETWORKS)
    ours, theirs = load_file(fused.detector_file), load_file(plain.detector_file)
    names = [n for n in theirs if "threshold" not in n and n != "good_scores"]
    assert any(name.startswith("student.") for name in names)
    for name in names:
        assert torch.equal(ours[name], theirs[name]), name
    assert load_file(plain.checkpoint_file).keys() == load_file(fused.checkpoint_file).keys()


def test_the_same_twice_is_the_same_bit_for_bit_also_when_resumed(
    fused, product, teacher, tmp_path
):
    run = trained(product, teacher, tmp_path, *ALL)
    expected = fused.detector_file.read_bytes()
    assert run.detector_file.read_bytes() == expected
    run.detector_file.unlink()  # as if it had been stopped after its last step
    trained(product, teacher, tmp_path, *ALL, "--resume")
    assert run.detector_file.read_bytes() == expected


def test_what_the_statistics_reach_is_told_once_before_the_training(
    product, teacher, tmp_path, capsys
):
    run = trained(product, teacher, tmp_path, *ALL)
    shown = capsys.readouterr()
    assert shown.err.count("the statistics alone") == 1
    assert "AUROC" in shown.err
    assert "the statistics" not in shown.out
    run.detector_file.unlink()
    trained(product, teacher, tmp_path, *ALL, "--resume")
    assert "the statistics alone" not in capsys.readouterr().err


@pytest.mark.parametrize("what", [ALL, ALONE], ids=["fused", "alone"])
def test_no_test_image_has_a_say_in_the_detector(product, teacher, tmp_path, what):
    """It is the same where all test images are others, and more."""
    other = tmp_path / "world" / product.name
    make_product(other)
    rng = np.random.default_rng(9)
    for path in (other / "test").rglob("*.png"):
        pixels = rng.integers(0, 256, (*Image.open(path).size[::-1], 3), np.uint8)
        Image.fromarray(pixels).save(path)
    ours = trained(product, teacher, tmp_path / "ours", *what)
    theirs = trained(other, teacher, tmp_path / "theirs", *what)
    assert ours.detector_file.read_bytes() == theirs.detector_file.read_bytes()
    assert ours.results_file.read_bytes() != theirs.results_file.read_bytes()


def test_test_images_are_opened_by_the_evaluation_alone(product, teacher, tmp_path, monkeypatch):
    opened, evaluating, real_open, real = [], [], Image.open, main.evaluate

    def evaluate(*arguments, **more):
        evaluating.append(True)
        found = real(*arguments, **more)
        evaluating.pop()
        return found

    def noting(path, *arguments, **more):
        if not evaluating:
            opened.append(Path(path))
        return real_open(path, *arguments, **more)

    prepare = main.prepare
    monkeypatch.setattr(main, "evaluate", evaluate)
    monkeypatch.setattr(
        main,
        "prepare",
        lambda *a: [prepare(*a), monkeypatch.setattr(Image, "open", noting)][0],
    )
    trained(product, teacher, tmp_path, *ALL)
    assert opened
    assert not [path for path in opened if "test" in path.relative_to(product).parts]


@pytest.mark.parametrize("number", [2, 3, 4])
def test_very_few_good_images_are_enough_for_a_verdict(teacher, tmp_path, number):
    """One of them is held out for validation; the statistics see all, and each sees the stain."""
    product = tmp_path / "nut"
    fill(product / "train" / "good", number)
    fill(product / "test" / "good", 1)
    fill(product / "test" / "stain", 1, stain=True)
    run = trained(product, teacher, tmp_path / "out", *ALONE)
    assert run.load_detector(CPU)[0].statistics["position"].count == number
    good, bad = rows(run)
    assert all(float(good[name]) < float(bad[name]) for name in ("score", *STATISTICS))
    assert bad["verdict"] == "anomalous"


def test_an_output_of_networks_needs_steps(product, teacher, tmp_path):
    line = arguments(product, teacher, tmp_path, "--experts", *NETWORKS, "--train_steps", "0")
    with pytest.raises(InputError, match="--train_steps must be at least 1"):
        run_main(*line)


def test_a_run_does_not_go_on_with_other_experts(fused, product, teacher):
    line = arguments(product, teacher, fused.output, "--resume", "--experts", *NETWORKS)
    with pytest.raises(InputError, match="experts was"):
        run_main(*line)


# Files from elsewhere, and from before


@pytest.mark.parametrize("names", [[], ["position", "student"], ["teacher"], "position", [1]])
def test_a_detector_with_impossible_experts_is_refused(alone, tmp_path, names):
    run = Run(tmp_path, "folder", "bolt")
    run.folder.mkdir(parents=True)
    about = read_about(alone.detector_file) | {"experts": names}
    save_tensors(load_file(alone.detector_file), run.detector_file, about)
    with pytest.raises(InputError, match="is damaged"):
        run.load_detector(CPU)


HOSTILE = {
    "statistics.position.count": 0,
    "statistics.composition.count": -3,
    "statistics.position.products": -1,
    "statistics.composition.units": 0,
    "statistics.position.scatter": float("nan"),
    "scales": 0,
    "errors": -0.02,
    "map_threshold": float("nan"),
    "good_scores": float("nan"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_detector_with_statistics_that_no_images_have_is_refused(alone, tmp_path, name):
    run = Run(tmp_path, "folder", "bolt")
    run.folder.mkdir(parents=True)
    tensors = load_file(alone.detector_file)
    tensors["statistics.position.own"].fill_(True)
    tensors[name].fill_(HOSTILE[name])
    save_tensors(tensors, run.detector_file, read_about(alone.detector_file))
    with pytest.raises(InputError, match="is damaged"):
        run.load_detector(CPU)


def test_a_killed_replacement_by_statistics_leaves_the_finished_run(
    product, teacher, tmp_path, monkeypatch
):
    """Its detector is written, but not yet evaluated: the former one is still the result."""
    run = trained(product, teacher, tmp_path, "--experts", *NETWORKS)
    former = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"}
    with monkeypatch.context() as patch:
        patch.setattr(main, "evaluate", lambda *a, **k: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            trained(product, teacher, tmp_path, *ALONE, "--overwrite")
    line = arguments(product, teacher, tmp_path, "--experts", *NETWORKS)
    with pytest.raises(InputError, match="holds a finished run"):
        run_main(*line)
    assert {path: path.read_bytes() for path in former} == former
    trained(product, teacher, tmp_path, *ALONE, "--resume")
    assert run.load_detector(CPU)[0].experts == STATISTICS
    assert not [p for p in run.folder.iterdir() if p.name.startswith(("check", "loss", "events"))]
    assert trained(product, teacher, tmp_path, *ALONE, "--resume")


def test_a_run_of_an_earlier_version_goes_on_with_the_experts_that_it_had(
    product, teacher, tmp_path
):
    run = trained(product, teacher, tmp_path, "--experts", *NETWORKS)
    config = run.read_config()
    del config["experts"]
    run.write_config(config)
    run.detector_file.unlink()
    trained(product, teacher, tmp_path, *ALL, "--resume")
    assert run.load_detector(CPU)[0].experts == NETWORKS


def test_a_detector_of_an_earlier_version_has_the_networks(product, teacher, tmp_path):
    run = trained(product, teacher, tmp_path, "--experts", *NETWORKS)
    about = read_about(run.detector_file)
    del about["experts"]
    save_tensors(load_file(run.detector_file), run.detector_file, about)
    assert run.load_detector(CPU)[0].experts == NETWORKS

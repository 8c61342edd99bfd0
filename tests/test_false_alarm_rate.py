"""--false_alarm_rate: stored with what is trained, and another one without training again."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import inference
from data.samples import InputError
from tests.running_main import ALONE, arguments, run_main
from utils.detectors import read_detector
from utils.presets import parse
from utils.runs import Run
from utils.tensors import read_about

CPU = torch.device("cpu")


def run_inference(*argv: object) -> int:
    return inference.main(parse(inference.get_parser(), [*map(str, argv), "--device", "cpu"]))


def verdicts(run: Run) -> dict[float, str]:
    with run.results_file.open(encoding="utf-8") as file:
        return {float(row["score"]): row["verdict"] for row in csv.DictReader(file)}


def test_a_detectors_file_says_what_scoring_alone_needs(alone):
    about = read_about(alone.detector_file)
    assert about["false_alarm_rate"] == 0.05
    assert about["good_images"] == 6  # all, cross-fitted
    assert (about["dataset"], about["subdataset"]) == ("folder", "bolt")
    assert {"preprocessing", "version", "precision", "image_size"} < about.keys()
    assert alone.read_config()["false_alarm_rate"] == 0.05


@pytest.mark.filterwarnings("ignore:.*at best")
def test_another_rate_gives_other_verdicts_and_the_same_metrics(alone, capsys):
    before, former = json.loads(alone.metrics_file.read_text()), alone.detector_file.read_bytes()
    good = read_detector(alone.detector_file, CPU).detector.good_scores[0]
    for rate, place in ((0.5, 4), (0.9, 1), (0.05, 6)):  # of 7 places, 3.5, 6.3 and 0.4 above
        assert run_inference(alone.output, "--false_alarm_rate", rate, "--precision", "fp32") == 0
        measured = json.loads(alone.metrics_file.read_text())
        assert measured["classification_au_roc"] == before["classification_au_roc"]
        assert measured["glae"]["threshold"] == good[place - 1].item()
        for score, verdict in verdicts(alone).items():
            assert verdict == ("anomalous" if score > good[place - 1].item() else "good")
    assert alone.detector_file.read_bytes() == former


@pytest.mark.parametrize("rate", ["0", "1", "-0.1", "nan"])
def test_a_rate_that_nothing_can_have_is_refused(alone, rate):
    with pytest.raises(InputError, match="--false_alarm_rate must be above 0 and below 1"):
        run_inference(alone.output, f"--false_alarm_rate={rate}")


def test_a_run_that_is_resumed_keeps_its_rate(alone, product, teacher):
    line = arguments(product, teacher, alone.output, *ALONE, "--resume")
    with pytest.raises(InputError, match=r"false_alarm_rate was 0\.05 in this run, not 0\.2"):
        run_main(*line, "--false_alarm_rate", "0.2")


HOSTILE = [
    ("good_images", -1),
    ("good_images", 10**9),
    ("good_images", 7),
    ("good_images", "6"),
    ("false_alarm_rate", 0),
    ("false_alarm_rate", "half"),
    ("preprocessing", "BGR"),
]


@pytest.mark.parametrize(("key", "value"), HOSTILE)
def test_a_detectors_claims_of_its_good_images_are_not_believed(alone, tmp_path, key, value):
    content = alone.detector_file.read_bytes()
    about = read_about(alone.detector_file)
    former, other = (json.dumps(json.dumps(a)) for a in (about, about | {key: value}))
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].decode().strip().replace(former, other).encode()
    assert other.encode() in header
    header += b" " * (-len(header) % 8)
    path = tmp_path / "detector.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    with pytest.raises(InputError, match="is damaged"):
        read_detector(path, CPU)


def test_a_check_says_what_the_good_images_will_promise(product, teacher, tmp_path, capsys):
    for more, said in (
        (
            [],
            "1 held-out good image promises a false-alarm rate of 0.5 at best, and that ",
        ),
        (ALONE, "6 held-out good images promise a false-alarm rate of 0.143 at best, and that is "),
        ([*ALONE, "--false_alarm_rate", "0.2"], "6 held-out good images promise a false-alarm "),
    ):
        run_main(*arguments(product, teacher, tmp_path, *more, "--check"))
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith(f"thresholds: {said}")


@pytest.mark.filterwarnings("ignore:.*at best")
def test_metrics_tell_which_rate_their_verdicts_keep(alone):
    for rate, kept in ((0.5, 3 / 7), (0.9, 6 / 7), (0.01, 1 / 7)):
        assert run_inference(alone.output, "--false_alarm_rate", rate, "--precision", "fp32") == 0
        measured = json.loads(alone.metrics_file.read_text())
        assert measured["glae"]["false_alarm_rate"] == pytest.approx(kept)


def test_a_training_names_the_strangest_good_image(product, teacher, tmp_path, capsys):
    """One that is not like the others makes thresholds useless, and nobody would know."""
    shutil.copytree(product, tmp_path / "bolt")
    odd = np.random.default_rng(5).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    Image.fromarray(odd).save(tmp_path / "bolt" / "train" / "good" / "odd.png")
    run_main(*arguments(tmp_path / "bolt", teacher, tmp_path / "out", *ALONE))
    err = capsys.readouterr().err
    assert "strangest of 7 held-out good images: " in err
    assert "train/good/odd.png, score " in err

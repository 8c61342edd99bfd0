"""inference.py --map: one of a detector's maps alone, without training again."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

import inference
from data.images import load_image, normalise
from data.samples import InputError
from models.detector import LATER
from models.pdn import pdn_small
from models.view import View
from tests.conftest import make_mvtec_ad
from tests.running_main import TINY, run_main
from utils.presets import parse
from utils.runs import Run
from utils.tensors import read_about, save_tensors

SINGLE = ("student_threshold", "autoencoder_threshold")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """An output folder with one trained category."""
    world = tmp_path_factory.mktemp("world")
    make_mvtec_ad(world / "ad", "bottle")
    torch.manual_seed(0)
    torch.save(pdn_small().state_dict(), world / "teacher.pth")
    own = ["--dataset", "mvtec_ad", "--mvtec_ad_path", f"{world}/ad", "--subdataset", "bottle"]
    own += ["--weights", f"{world}/teacher.pth", "--output_dir", f"{world}/output"]
    run_main(*own, *TINY, "--precision", "fp32")
    return world / "output"


def run_inference(*argv: str) -> int:
    return inference.main(parse(inference.get_parser(), [*map(str, argv), "--device", "cpu"]))


def contents(output: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def score_by_hand(detector, path: Path, kind: str) -> float:
    """Return the maximum of one raw map with its frame of zeros, shifted and scaled."""
    image, size = load_image(path, (64, 64))
    raw = detector.distances(normalise(image[None]))
    low, high = getattr(detector, f"{kind}_quantiles")
    scaled = 0.1 * (np.pad(raw[kind][0, 0].numpy(), 4) - low.item()) / (high - low).item()
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(scaled)[None, None], size, mode="bilinear"
    )
    return whole.max().item()


@pytest.mark.parametrize("kind", ["student", "autoencoder"])
def test_a_single_map_is_scored_by_its_own_quantiles_and_nothing_is_written(trained, kind, capsys):
    before = contents(trained)
    assert run_inference(trained, "--map", kind, "--format", "json") == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert contents(trained) == before
    detector, _, _ = Run(trained, "mvtec_ad", "bottle").load_detector(torch.device("cpu"))
    paths = sorted((trained.parent / "ad" / "bottle" / "test").rglob("*.png"))
    scores = [score_by_hand(detector, path, kind) for path in paths]
    expected = roc_auc_score([path.parent.name == "stain" for path in paths], scores)
    assert row["AUROC"] == pytest.approx(expected)
    assert row["map"] == kind


def test_the_table_says_which_map_it_is_of(trained, capsys):
    run_inference(trained, "--map", "autoencoder")
    assert "mvtec_ad, autoencoder map" in capsys.readouterr().out
    run_inference(trained, "--no_maps")
    assert " map" not in capsys.readouterr().out


def test_a_detector_of_a_former_version_is_scored_but_has_no_single_maps(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "output")
    run = Run(tmp_path / "output", "mvtec_ad", "bottle")
    tensors, about = load_file(run.detector_file), read_about(run.detector_file)
    former = {name: tensor for name, tensor in tensors.items() if name not in LATER}
    assert len(former) == len(tensors) - 8
    later = ("good_images", "false_alarm_rate", "preprocessing", "version", "dataset", "subdataset")
    about = {key: about[key] for key in about if key not in (*later, *dict(View().named_buffers()))}
    save_tensors(former, run.detector_file, about)
    measured = json.loads(run.metrics_file.read_text())
    assert run_inference(tmp_path / "output") == 0
    again = json.loads(run.metrics_file.read_text())
    assert again["classification_au_roc"] == measured["classification_au_roc"]
    assert again["glae"]["threshold"] == measured["glae"]["threshold"]
    with run.results_file.open(encoding="utf-8") as file:
        assert {row["p_value"] for row in csv.DictReader(file)} == {""}
    capsys.readouterr()
    assert run_inference(tmp_path / "output", "--map", "student") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "no threshold of the student map: train it again with --overwrite" in line
    assert run_inference(tmp_path / "output", "--false_alarm_rate", "0.1") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "kept no good images' scores: train it again with --overwrite, or leave" in line


def test_maps_made_elsewhere_are_of_no_detector(trained):
    with pytest.raises(InputError, match=r"--map, .* --maps_dir"):
        run_inference(trained, "--map", "student", "--maps_dir", trained / "anomaly_maps")
    with pytest.raises(InputError, match=r"--false_alarm_rate .* --maps_dir"):
        run_inference(trained, "--false_alarm_rate", "0.2", "--maps_dir", trained / "anomaly_maps")


def test_a_checkpoint_has_what_those_of_former_versions_have(trained):
    """Or they could not be resumed: its names are compared with the detector's."""
    stored = load_file(Run(trained, "mvtec_ad", "bottle").checkpoint_file)
    assert "detector.threshold" in stored
    assert not stored.keys() & {f"detector.{name}" for name in SINGLE}

"""The presets of papers are what the papers say, on each of their data sets."""

import pytest

import main
from models.building import empty_detector
from tests.conftest import REPOSITORY
from training.preparation import check
from utils.presets import parse

PAPER = REPOSITORY / "configs" / "paper"
SHARED = {  # EfficientAD, sections 3 and 4, appendix A.3; GLAE's authors train by the same
    "batch_size": 1,
    "image_size": [256],
    "experts": ["student", "autoencoder"],
    "learning_rate": 1e-4,
    "weight_decay": 1e-5,
    "decay_at": 0.95,
    "decay": 0.1,
    "hard_quantile": 0.999,
    "map_quantiles": [0.9, 0.995],
    "penalty_probability": 0.3,
    "jitter": 0.2,
    "dropout": 0.2,
    "ridge": 0,
    "precision": "fp32",
}
# preset -> autoencoder, size, steps, and the millions of parameters that were published
METHODS = {
    "efficientad_s": ("efficientad", "small", 70_000, 8.06),
    "efficientad_m": ("efficientad", "medium", 70_000, 20.74),
    "glae": ("glae", "medium", 65_000, 21.21),
}


def options_of(name: str, *argv: str):
    return parse(main.get_parser(), ["--config", str(PAPER / f"{name}.yaml"), *argv])


@pytest.mark.parametrize("dataset", ["mvtec_ad", "visa", "mvtec_loco"])
@pytest.mark.parametrize("name", METHODS)
def test_a_papers_preset_is_its_protocol_on_each_of_its_data_sets(name, dataset):
    options = options_of(name, "--dataset", dataset)
    model, size, steps, _ = METHODS[name]
    assert (options.model, options.model_size, options.train_steps) == (model, size, steps)
    assert {key: getattr(options, key) for key in SHARED} == SHARED
    check(options)


@pytest.mark.parametrize("name", METHODS)
def test_a_papers_preset_builds_networks_of_the_published_size(name):
    options = options_of(name)
    experts = tuple(options.experts)
    detector = empty_detector(options.model, options.model_size, (256, 256), experts)
    millions = sum(parameter.numel() for parameter in detector.parameters()) / 1e6
    assert millions == pytest.approx(METHODS[name][-1], abs=0.006)


def test_no_preset_of_a_paper_is_left_out_here():
    assert {path.stem for path in PAPER.iterdir()} == {*METHODS}

"""The recipe's options: each reaches what it is for, is checked, stored and compared."""

from functools import partial

import numpy as np
import pytest
import yaml

import main
from data.samples import InputError
from models.recipe import PUBLISHED, Recipe
from tests.running_main import arguments, run_main
from tests.training.fitting import COMPUTE, new_detector, options
from training.loop import jitter_changes, natural_batches
from training.preparation import check
from training.steps import Optimisation
from utils.options import resolved
from utils.presets import parse
from utils.runs import Run

NUMBERS = {"learning_rate": 0.002, "weight_decay": 0.03, "decay_at": 0.5, "decay": 0.4}
NUMBERS |= {"hard_quantile": 0.9, "ridge": 0.02, "jitter": 0.05, "penalty_probability": 0.7}
NUMBERS |= {"dropout": 0.6, "false_alarm_rate": 0.2}
OTHER = Recipe(**NUMBERS, map_quantiles=(0.25, 0.75))
ARGUMENTS = [f"--{name}={number}" for name, number in NUMBERS.items()]
ARGUMENTS += ["--map_quantiles", "0.25", "0.75"]


def options_of(*argv: str):
    return parse(main.get_parser(), list(argv))


def test_the_defaults_are_the_published_numbers():
    options = options_of()
    assert (options.learning_rate, options.weight_decay) == (1e-4, 1e-5)
    assert (options.decay_at, options.decay) == (0.95, 0.1)
    assert (options.hard_quantile, options.map_quantiles) == (0.999, [0.9, 0.995])
    assert options.ridge == 0  # steps train the student
    assert (options.jitter, options.dropout, options.penalty_probability) == (0.2, 0.2, 0.3)
    assert options.false_alarm_rate == 0.05  # which is ours


def test_every_number_comes_to_the_detector_and_into_the_runs_config(
    product, teacher, tmp_path, monkeypatch
):
    trained, fit = [], main.fit
    monkeypatch.setattr(main, "fit", lambda d, *rest: (trained.append(d), fit(d, *rest)))
    run_main(*arguments(product, teacher, tmp_path, *ARGUMENTS))
    assert trained[0].recipe == OTHER
    run = Run(tmp_path, "folder", "bolt")
    stored = yaml.safe_load(run.config_file.read_text())
    assert stored["map_quantiles"] == [0.25, 0.75]
    assert stored["weight_decay"] == 0.03
    run.config_file.rename(tmp_path / "again.yaml")
    repeated = options_of("--config", str(tmp_path / "again.yaml"))
    assert {name: resolved(repeated)[name] for name in vars(OTHER)} == {
        name: stored[name] for name in vars(OTHER)
    }


def test_the_optimiser_goes_by_the_detectors_recipe():
    detector = new_detector()
    detector.recipe = OTHER
    optimisation, rates = Optimisation(detector, 10, COMPUTE), []
    for step in range(10):
        optimisation.set_learning_rate(step)
        rates.append(optimisation.adam.param_groups[0]["lr"])
    assert rates == pytest.approx([0.002] * 5 + [0.0008] * 5)
    assert optimisation.adam.defaults["weight_decay"] == 0.03


@pytest.mark.parametrize("most", [0.0, 0.05, 0.9])
def test_jitter_changes_at_most_what_is_asked_for(most):
    factors = np.concatenate([jitter_changes(s, 20, 0, most)[:, 0].numpy() for s in range(20)])
    apart = np.abs(factors - 1)
    assert apart.max() <= most + 1e-6
    assert apart.max() >= 0.95 * most


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_natural_images_are_grey_with_the_probability_asked_for(natural, probability):
    recipe = Recipe(penalty_probability=probability)
    batches = natural_batches(natural, (24, 24), options(), recipe, range(8), COMPUTE)
    grey = [bool((batch == batch[:, :1]).all()) for batch in batches]
    assert grey == [probability == 1.0] * 8


def test_a_check_shows_the_recipe_in_one_line(product, teacher, tmp_path, capsys):
    run_main(*arguments(product, teacher, tmp_path, "--check", "--jitter", "0.1"))
    ready, recipe, _ = capsys.readouterr().out.splitlines()
    assert ready.startswith("ready: bolt")
    assert recipe == (
        "recipe: learning_rate 0.0001, weight_decay 1e-05, decay_at 0.95, decay 0.1, "
        "hard_quantile 0.999, ridge 0.0, jitter 0.1, penalty_probability 0.3, dropout 0.2, "
        "map_quantiles 0.9 0.995, false_alarm_rate 0.05"
    )


def test_every_senseless_number_is_told_at_once():
    wrong = "--learning_rate 0 --weight_decay -1 --decay_at 1.1 --decay nan --hard_quantile 2"
    wrong += " --jitter inf --penalty_probability=-0.1 --dropout 7 --map_quantiles 0.9 0.9"
    wrong += " --ridge -1 --false_alarm_rate 1"
    with pytest.raises(InputError) as caught:
        check(options_of(*wrong.split()))
    assert sorted(fault.split()[0] for fault in caught.value.args) == sorted(
        f"--{name}" for name in vars(PUBLISHED)
    )


@pytest.mark.parametrize("pair", [("0.995", "0.9"), ("-0.1", "0.5"), ("0.5", "1.5"), ("nan", "1")])
def test_map_quantiles_must_rise_within_0_and_1(pair):
    with pytest.raises(InputError, match="--map_quantiles"):
        check(options_of("--map_quantiles", *pair))


def test_a_run_is_not_resumed_by_another_recipe(product, teacher, tmp_path):
    line = partial(arguments, product, teacher, tmp_path)
    run_main(*line("--decay", "0.2"))
    with pytest.raises(InputError) as caught:
        run_main(*line("--resume", "--jitter", "0.3", "--map_quantiles", "0.8", "0.9"))
    faults = "\n".join(caught.value.args)
    assert "--resume: decay was 0.2 in this run, not 0.1" in faults
    assert "--resume: jitter was 0.2 in this run, not 0.3" in faults
    assert "--resume: map_quantiles was [0.9, 0.995] in this run, not [0.8, 0.9]" in faults


def test_a_run_of_a_former_version_was_trained_by_the_published_recipe(product, teacher, tmp_path):
    line = partial(arguments, product, teacher, tmp_path)
    run_main(*line())
    run = Run(tmp_path, "folder", "bolt")
    former = {k: v for k, v in run.read_config().items() if k not in vars(PUBLISHED)}
    run.write_config(former)
    run_main(*line("--resume"))
    with pytest.raises(InputError, match=r"hard_quantile was 0\.999 in this run, not 0\.9:"):
        run_main(*line("--resume", "--hard_quantile", "0.9"))

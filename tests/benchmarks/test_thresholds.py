"""benchmark.py thresholds: what it counts, by hand, and that its refits have seen nothing else."""

import json

import numpy as np
import pytest
import torch

import benchmark
from benchmarks.thresholds import alarms, promised, unfitted
from data.samples import InputError
from utils.detectors import read_detector
from utils.presets import parse


def run(*argv: object) -> None:
    benchmark.main(parse(benchmark.get_parser(), ["thresholds", *map(str, argv)]))


def test_alarms_are_counted_above_our_threshold_and_above_the_plain_quantile():
    good, new = np.arange(19.0), np.array([17.0, 17.5, 18.0, 18.5])
    assert alarms(good, new, 0.05) == (0.25, 0.75)  # above 18, above 17.1
    assert promised(19, 0.05) == pytest.approx(0.05)
    assert promised(10, 0.05) == pytest.approx(1 / 11)


def test_promised_and_found_of_scores_and_refits_are_told_for_each_run(alone, capsys):
    line = ("--good_images", 3, 100, "--rates", 0.3, "--splits", 5, "--refits", 1)
    run(alone.output, *line, "--json")
    result = json.loads(capsys.readouterr().out)
    assert [row["how"] for row in result["splits"]] == ["scores", "refits"]  # of 6 images, not 100
    for row in result["splits"]:
        assert row["promised"] == 0.25
        assert 0 <= row["found_5"] <= row["found"] <= row["found_95"] <= 1
    (test,) = result["tests"]
    assert (test["test_images"], test["good_images"]) == (2, 6)
    assert test["low"] <= test["alarms"] / 2 <= test["high"]
    run(alone.output, *line[:3])
    assert "plain quantile" in capsys.readouterr().out


def test_a_refit_begins_with_nothing_of_what_the_file_holds(alone):
    trained = read_detector(alone.detector_file, torch.device("cpu"))
    fresh = unfitted(trained)
    assert fresh.experts == trained.detector.experts
    for name, statistic in fresh.statistics.items():
        assert statistic.count == 0
        assert not any(
            buffer.data_ptr() == other.data_ptr()
            for buffer, other in zip(
                statistic.buffers(), trained.detector.statistics[name].buffers(), strict=False
            )
        )
    assert fresh.statistics["position"].projection is None
    assert fresh.statistics["composition"].precision is None


@pytest.mark.parametrize("wrong", [("--rates", 0), ("--good_images", 0), ("--splits", 0)])
def test_senseless_numbers_are_refused(alone, wrong):
    with pytest.raises(InputError, match=wrong[0]):
        run(alone.output, *wrong)

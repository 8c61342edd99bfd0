"""benchmark.py cluster: what it works out, and that it measures what it says."""

import json

import pytest

import benchmark
from benchmarks.cluster import ALONE, Run, row_of
from benchmarks.tables import print_cluster
from utils.presets import parse


def test_a_share_is_of_as_many_times_one_scorer_in_the_same_round():
    one = [Run(10, 10.0, 20.0, 1, 2), Run(20, 5.0, 10.0, 1, 2)]
    two = [Run(6, 16.0, 36.0, 1, 2), Run(12, 8.0, 18.0, 1, 2)]
    row = row_of("scorers: 2", 2, {ALONE: one, "scorers: 1": one, "scorers: 2": two})
    assert row["share_of_images_per_second"] == pytest.approx(0.8)
    assert row["share_of_steady_images_per_second_min"] == pytest.approx(0.9)
    assert row["steady_images_per_second"] == pytest.approx(27)


def test_too_few_images_for_a_steady_rate_are_refused(outcome, tmp_path):
    code, _, (error,) = outcome(benchmark, ["cluster", tmp_path, "--images", "100"])
    assert code == 2 and "--images must be two blocks for each scorer" in error


@pytest.mark.slow
def test_scorers_are_timed_beside_predict_alone(alone, capsys):
    pytest.importorskip("ray.data")
    line = ["cluster", alone.folder, "--images", "8", "--block", "4", "--scorers", "1"]
    line += ["--repeats", "1", "--json"]
    benchmark.main(parse(benchmark.get_parser(), [*map(str, line)]))
    result = json.loads(capsys.readouterr().out)
    print_cluster(result)
    both, cluster = result["rows"]
    for row in (both, cluster):
        assert 0 < row["images_per_second"] == pytest.approx(8 / row["seconds"])
        assert row["steady_images_per_second"] > row["images_per_second"]  # which has the start
        assert row["peak_memory_bytes"] > 50 * 2**20
    assert (both["peak_scorer_memory_bytes"] == 0) < cluster["peak_scorer_memory_bytes"]
    assert "scorers: 1" in capsys.readouterr().out

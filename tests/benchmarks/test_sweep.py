"""benchmark.py sweep: how a sweep's seconds are divided, what is reported, what is refused."""

import json

import pytest

import benchmark
from benchmarks import sweep
from data.samples import InputError
from utils.presets import parse


def run(*argv: object) -> None:
    benchmark.main(parse(benchmark.get_parser(), ["sweep", *map(str, argv)]))


def test_a_task_lasts_from_its_beginning_to_that_of_the_next(tmp_path):
    """Three trainings of 4 s, begun 10 s after the call; the end takes 1 s: 23 s in all."""
    lines = [("begun", 10), ("done", 13.5), ("begun", 14), ("failed", 16), ("begun", 18)]
    times = [
        f'{{"event": "{event}", "time": "2026-01-01T00:00:{at:06.3f}"}}' for event, at in lines
    ]
    (tmp_path / "journal.jsonl").write_text("\n".join(times))
    begun = sweep.begins(tmp_path / "journal.jsonl")
    assert sweep.parts(23.0, begun) == pytest.approx((11, 4))


def test_what_is_added_is_more_than_main_py_took_in_the_same_round():
    """A machine that slows down for both meanwhile leaves the difference of each round."""
    found = {"main.py": [(0, 5), (0, 50), (0, 7)], "sweep.py": [(9, 6), (9, 53), (8, 9)]}
    alone, swept = sweep.overheads(found)
    assert alone["added_seconds_per_task"] == 0
    names = ("added_seconds_per_task_min", "added_seconds_per_task", "added_seconds_per_task_max")
    assert [swept[name] for name in names] == [1, 2, 3]
    assert swept["share_of_run"] == 2 / 300
    assert swept["seconds_to_begin_and_end"] == 9


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_trainings_are_timed_one_after_another(capsys, monkeypatch):
    monkeypatch.setattr(sweep, "find_spec", lambda name: None)  # Ray's start takes long
    run("--tasks", 2, "--repeats", 1, "--json")
    result = json.loads(capsys.readouterr().out)
    alone, swept = result["rows"]
    assert (alone["what"], swept["what"]) == ("main.py", "sweep.py")
    assert alone["seconds_to_begin_and_end"] == 0 < swept["seconds_to_begin_and_end"]
    assert min(alone["seconds_per_task"], swept["seconds_per_task"]) > 0.5  # torch is imported
    assert result["seconds_per_beat"] is None
    benchmark.print_sweep(result)
    assert "of a run of 5 minutes" in capsys.readouterr().out


@pytest.mark.slow
def test_it_is_timed_how_long_a_training_on_ray_waits_for_the_board():
    pytest.importorskip("ray", reason="needs Ray: pip install -r requirements-ray.txt")
    assert 0 < sweep.in_fresh_process(sweep.seconds_per_beat, 20) < 1


def test_a_script_that_fails_ends_the_benchmark(tmp_path):
    with pytest.raises(RuntimeError, match=r"main\.py: .*nowhere"):
        sweep.run_script("main.py", "--dataset=folder", f"--folder_path={tmp_path / 'nowhere'}")


def test_senseless_numbers_of_a_sweep_are_named_together():
    with pytest.raises(InputError, match=r"--tasks must be at least 2.*--repeats"):
        run("--tasks", 1, "--repeats", 0)

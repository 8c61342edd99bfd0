"""benchmark.py predict: what it draws, times and works out, and what it refuses."""

import json
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

import benchmark
from benchmarks import prediction
from benchmarks.prediction import DIFFERENT, draw_pictures, first_result, possible, rates
from data.samples import InputError
from utils.presets import parse

MACHINE = ["--device", "cpu", "--precision", "fp32", "--workers", "2"]


def run(*argv: object) -> None:
    line = ["predict", *map(str, argv), *MACHINE]
    benchmark.main(parse(benchmark.get_parser(), line))


def test_drawn_pictures_cost_a_decoder_what_photographs_do(tmp_path):
    """Of a channel's 8 bits, noise of three levels has log2(3 sqrt(2 pi e)) = 3.6; shades none."""
    draw_pictures(tmp_path / "a", DIFFERENT + 3, 200, seed=0)
    files = sorted((tmp_path / "a").iterdir())
    assert len(files) == DIFFERENT + 3
    assert len({path.read_bytes() for path in files}) == DIFFERENT
    sizes = [path.stat().st_size for path in files]
    assert 3.6 / 8 * 200 * 200 * 3 < min(sizes) <= max(sizes) < 0.7 * 200 * 200 * 3
    with Image.open(files[0]) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (200, 200))
        assert np.asarray(image).std() > 10
    draw_pictures(tmp_path / "b", 1, 200, seed=0)
    assert (tmp_path / "b" / files[0].name).read_bytes() == files[0].read_bytes()


def test_a_share_is_of_the_network_in_the_same_round():
    """A machine that slows down for both meanwhile leaves it as it is."""
    network, rows = [(0.1, 0.2), (0.4, 0.3), (0.2, 0.1)], [(0.125, 0.3), (0.5, 0.4), (0.25, 0.2)]
    bare, ours = rates({"network": network, "--csv": rows})
    assert bare["images_per_second"] == pytest.approx(5)
    assert bare["share_of_network"] == 1
    assert (ours["images_per_second_min"], ours["images_per_second_max"]) == (2, 8)
    assert ours["share_of_network_min"] == pytest.approx(0.8)
    assert ours["share_of_network_max"] == pytest.approx(0.8)
    assert ours["core_seconds_per_image"] == 0.3


def test_possible_is_what_all_cores_manage_and_never_more_than_the_network():
    """Two cores that need 0.06 s for the network and 0.02 s for decoding manage 25 images a s."""
    found = {"network": [(0.03, 0.06)], "decoding": [(0.01, 0.02)]}
    two = possible(rates(found), cores=2)
    assert two["images_per_second"] == pytest.approx(25)
    assert two["share_of_network"] == pytest.approx(0.75)
    assert possible(rates(found), cores=8)["share_of_network"] == 1


def test_the_first_round_of_each_way_does_not_count(monkeypatch):
    now, called = [0.0], []

    def way(name: str, seconds: float):
        def work() -> None:
            called.append(name)
            now[0] += 100 if len(called) <= 2 else seconds

        return work

    for clock in ("perf_counter", "process_time"):
        monkeypatch.setattr(prediction.time, clock, lambda: now[0])
    found = prediction.time_ways({"a": way("a", 2), "b": way("b", 6)}, count=2, repeats=2)
    assert "".join(called) == "ababab"
    assert found == {"a": [(1, 1), (1, 1)], "b": [(3, 3), (3, 3)]}


def test_the_first_result_is_the_line_below_the_header(monkeypatch, tmp_path):
    monkeypatch.setattr(prediction, "ROOT", tmp_path)
    options = Namespace(detector="d", **dict.fromkeys(prediction.MACHINE))
    script = "import sys, time\nprint('head', flush=True)\ntime.sleep(0.5)\n"
    last = "print(sys.argv[1:], flush=True)\ntime.sleep(0.5)\nopen('done', 'w')\n"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "predict.py").write_text(script + last)
    assert first_result(options, "i") > 0.5
    assert (tmp_path / "done").exists()  # so that it disturbs nothing that is timed afterwards
    (tmp_path / "predict.py").write_text(script)
    with pytest.raises(RuntimeError, match=r"predict\.py gave no result of i"):
        first_result(options, "i")


@pytest.mark.slow
def test_rates_start_and_memory_are_told_of_drawn_and_of_given_pictures(
    alone, product, capsys, monkeypatch
):
    run(alone.output, "--drawn", 3, "--repeats", 1, "--memory", 2, 5, "--json")
    result = json.loads(capsys.readouterr().out)
    rows = {row["what"]: row for row in result["rows"]}
    assert list(rows) == ["network", "decoding", "--csv", "--csv --maps", "--csv --pictures"]
    cores = {name: row["core_seconds_per_image"] for name, row in rows.items()}
    assert 0 < cores["decoding"] < cores["--csv"] < cores["--csv --pictures"]
    assert 0 < result["possible"]["share_of_network"] <= 1
    start = {name: result[name] for name in ("import_ours", "import_torch", "first_result")}
    ours, *others = (part["seconds"] for part in start.values())
    assert 0 < ours < min(others)
    assert [row["images"] for row in result["memory"]] == [2, 5]
    assert all(row["peak_memory_bytes"] > 100 * 2**20 for row in result["memory"])  # torch alone
    settings = result["settings"]
    assert (settings["images"], settings["image_size"]) == (3, [900, 900])
    assert {"processor", "cores", "torch"} <= set(result["machine"])
    monkeypatch.setattr(prediction, "starts", lambda *_: start)  # these take seconds each
    monkeypatch.setattr(prediction, "in_fresh_process", lambda *_: 2**30)
    run(alone.output, product / "test" / "good", "--repeats", 1, "--memory", 2)
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("possible", "first result", "peak memory", "--maps"))


def test_senseless_numbers_are_named_together(alone):
    wrong = ["--repeats", 0, "--drawn", 0, "--memory", 5, 0]
    with pytest.raises(InputError, match=r"--repeats.*--drawn.*--memory"):
        run(alone.output, *wrong)


def test_pictures_that_are_not_there_are_refused(alone, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        run(alone.output, tmp_path / "nowhere")

"""benchmark.py: what it generates, what it reports, what it refuses."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import benchmark
import benchmarks.machine
from benchmarks import timing
from benchmarks.evaluation import generate_map, generate_test_set
from benchmarks.machine import matmul_rate
from data.catalog import read_category
from data.samples import InputError
from evaluation.evaluation import measure
from evaluation.maps import check_maps, map_path
from tests.conftest import REPOSITORY, SIZE, fill, make_mvtec_ad, make_mvtec_loco
from utils.compilation import WARM_UP
from utils.devices import Compute
from utils.presets import parse

TINY = ["--image_size", "64", "--steps", "2", "--warm_up", "4", "--repeats", "3"]
TINY += ["--device", "cpu", "--workers", "1"]


def run(command: str, *argv: str) -> None:
    benchmark.main(parse(benchmark.get_parser(), [command, *map(str, argv)]))


def figures(capsys, *argv: str) -> dict:
    """Return the one object that a benchmark prints."""
    run(*argv, "--json")
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def loco(tmp_path) -> Path:
    make_mvtec_loco(tmp_path / "loco", "juice")
    return tmp_path / "loco"


@pytest.mark.parametrize("count", [3, 6, 15])
def test_any_number_of_maps_is_made_that_the_metrics_take(loco, tmp_path, count):
    category = read_category("mvtec_loco", loco, "juice", seed=0)
    made = generate_test_set(category, count, tmp_path / "made", seed=0)
    assert len(made.test) == count
    assert len({map_path(tmp_path / "made", sample) for sample in made.test}) == count
    check_maps(made, tmp_path / "made")
    result = measure(made, tmp_path / "made", workers=1)
    assert 0 < result["glae"]["pixel_auroc"] < 1
    maps = [tifffile.imread(map_path(tmp_path / "made", sample)) for sample in made.test]
    assert all(m.dtype == np.float32 and m.shape == SIZE[::-1] for m in maps)
    assert len({m.tobytes() for m in maps}) == count


def test_equal_seeds_make_equal_maps(loco, tmp_path):
    sample = read_category("mvtec_loco", loco, "juice", seed=0).test[-1]
    maps = [generate_map(sample, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert (maps[0] == maps[1]).all()
    assert (maps[0] != maps[2]).any()


@pytest.mark.slow
def test_json_is_one_object_with_the_figures_the_settings_and_the_machine(
    loco, tmp_path, run_command
):
    own = ["--dataset", "mvtec_loco", "--mvtec_loco_path", loco, "--subdataset", "juice"]
    small = ["--images", "2", "5", "--repeats", "2", "--workers", "1", "--json"]
    done = run_command([REPOSITORY / "benchmark.py", "evaluation", *own, *small], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [row["images"] for row in result["rows"]] == [2, 5]
    for row in result["rows"]:
        assert row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
        assert row["seconds_per_image"] == pytest.approx(row["seconds"] / row["images"])
        assert row["peak_memory_bytes"] > 50 * 2**20  # of a whole process with NumPy in it
    assert result["seconds_per_image"] == result["rows"][-1]["seconds_per_image"]
    assert result["settings"]["image_size"] == list(SIZE[::-1])
    assert {"processor", "cores", "torch", "numpy"} <= set(result["machine"])


@pytest.mark.parametrize("command", ["train", "inference", "evaluation", "deployment"])
def test_the_demo_is_measured_unless_a_dataset_is_named(command):
    assert parse(benchmark.get_parser(), [command]).dataset == "demo"
    line = [command, "--mvtec_ad_path", "ad"]
    assert parse(benchmark.get_parser(), line).dataset == "mvtec_ad"


@pytest.fixture
def bottle(tmp_path) -> list[str]:
    make_mvtec_ad(tmp_path / "ad", "bottle")
    return ["--dataset", "mvtec_ad", "--mvtec_ad_path", str(tmp_path / "ad")]


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [False, True])
def test_training_is_timed_beside_the_published_way(bottle, tmp_path, capsys, penalty):
    if penalty:
        fill(tmp_path / "natural", 3)
        bottle += ["--imagenet_train_path", str(tmp_path / "natural")]
    result = figures(capsys, "train", *bottle, *TINY, "--against", "published")
    assert result["benchmark"] == "train"
    for row in (result, result["published"]):
        names = ("seconds_per_step_min", "seconds_per_step", "seconds_per_step_max")
        least, median, most = (row[name] for name in names)
        assert 0 < least <= median <= most
    assert result["ratio_min"] <= result["ratio"] <= result["ratio_max"]
    assert result["steps_per_second"] == pytest.approx(1 / result["seconds_per_step"])
    assert result["peak_memory_bytes"] > 50 * 2**20
    assert 0 < result["share_of_matmul"] < 2
    assert result["settings"]["natural_images"] == (3 if penalty else 0)
    assert result["settings"]["images"] > 2
    assert {"processor", "device", "threads", "torch"} <= set(result["machine"])


@pytest.mark.slow
def test_the_operations_of_a_step_are_those_worked_out_by_hand(bottle, capsys):
    """Small student, forward and backward, on two images; teacher on one; GLAE's autoencoder."""
    steps = [*TINY, "--precision", "fp32", "--image_size", "256"]
    found = figures(capsys, "train", *bottle, *steps, "--steps", "1", "--repeats", "1")
    first, second, third, last = (
        2 * side**2 * before * after * kernel**2
        for side, before, after, kernel in (
            (253, 3, 128, 4),
            (123, 128, 256, 4),
            (59, 256, 256, 3),
            (56, 256, 384, 4),
        )
    )
    teacher = first + second + third + last
    student = 2 * (3 * teacher - first)  # no gradient for the image; half of the last layer each
    rest = found["operations_per_step"] - teacher - student
    assert 12e9 < rest < 18e9  # the autoencoder, three times its 5 GFLOP: FACTS, GLAE's 1 % more


def test_scoring_is_timed_for_each_batch_size(bottle, capsys):
    argv = [*bottle, *TINY, "--batch_size", "1", "3", "--against", "published"]
    result = figures(capsys, "inference", *argv)
    assert [row["batch_size"] for row in result["rows"]] == [1, 3]
    for row in result["rows"]:
        assert row["images_per_second"] == pytest.approx(1 / row["seconds_per_image"])
        assert row["ratio"] > 0
        assert row["operations_per_image"] == result["rows"][0]["operations_per_image"]
    assert result["seconds_per_image"] == result["rows"][-1]["seconds_per_image"]
    assert result["settings"]["map_size"] == list(SIZE[::-1])


@pytest.mark.parametrize("command", ["train", "inference"])
def test_the_tables_show_both_ways(bottle, capsys, command):
    run(command, *bottle, *TINY, "--against", "published")
    ours, published = capsys.readouterr().out.splitlines()[-2:]
    assert ours.split()[0] == "ours"
    assert published.split()[0] == "published"
    run(command, *bottle, *TINY)
    assert "published" not in capsys.readouterr().out


def test_contenders_take_turns_and_only_what_follows_the_warm_up_is_timed(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def step_of(name: str, seconds: float):
        def step() -> None:
            calls.append(name)
            now[0] += seconds

        return timing.repeated(step)

    contenders = {"ours": step_of("a", 2.0), "published": step_of("b", 5.0)}
    seconds = timing.time_blocks(contenders, torch.device("cpu"), 1, 2, 2)
    assert "".join(calls) == "aaabbb" * 2
    assert seconds == {"ours": [2.0, 2.0], "published": [5.0, 5.0]}
    found = timing.compared(seconds, "image", scale=4)
    assert found["seconds_per_image"] == 0.5
    assert found["published"]["seconds_per_image"] == 1.25
    assert found["ratio"] == 2.5


def test_the_ratio_is_of_neighbouring_blocks():
    """A machine that slows down for both meanwhile leaves it as it is."""
    seconds = {"ours": [1.0, 2.0, 40.0], "published": [3.0, 6.0, 120.0]}
    found = timing.compared(seconds, "step")
    assert (found["ratio_min"], found["ratio"], found["ratio_max"]) == (3, 3, 3)


def test_the_matmul_rate_is_that_of_the_fastest_product(monkeypatch):
    monkeypatch.setitem(benchmarks.machine.MATRIX_SIDES, "cpu", 64)
    seen = []

    def blocks(ways, device, *_):
        seen.append({name: way().__enter__()() for name, way in ways.items()})
        return {"mm": [0.5, 0.25], "conv": [0.125, 1.0]}

    monkeypatch.setattr(benchmarks.machine, "time_blocks", blocks)
    assert matmul_rate(Compute(torch.device("cpu"))) == 2 * 64**3 / 0.125
    product = seen[0]["mm"]
    torch.testing.assert_close(seen[0]["conv"][0, :, :, 0].t(), product, rtol=1e-4, atol=1e-3)


def test_a_block_on_a_gpu_has_more_steps_unless_asked_otherwise():
    given = Namespace(steps=None, warm_up=5, repeats=2)
    assert timing.blocks(given, Compute(torch.device("cpu"))) == (5, 10, 2)
    assert timing.blocks(given, Compute(torch.device("cuda"))) == (5, 200, 2)
    given.steps = 7
    assert timing.blocks(given, Compute(torch.device("cuda"))) == (5, 7, 2)


def test_bad_numbers_of_networks_are_named_together(bottle):
    with pytest.raises(
        InputError, match=r"--repeats.*--steps.*--image_size.*--warm_up.*--batch_size"
    ):
        bad = ["--repeats", "0", "--steps", "0", "--image_size", "9", "--batch_size", "0"]
        bad += ["--warm_up", str(WARM_UP)]
        run("train", *bottle, *bad)
    with pytest.raises(InputError, match="--batch_size"):
        run("inference", *bottle, "--batch_size", "1", "0")


def test_bad_numbers_are_named_together(loco):
    own = ["--dataset", "mvtec_loco", "--mvtec_loco_path", loco, "--subdataset", "juice"]
    with pytest.raises(InputError, match=r"--repeats.*--workers.*--images"):
        run("evaluation", *own, "--repeats", "0", "--workers", "-1", "--images", "3", "0")


def test_a_test_set_without_masks_is_named(tmp_path):
    fill(tmp_path / "bolt" / "train" / "good", 4)
    fill(tmp_path / "bolt" / "test" / "stain", 2, stain=True)
    with pytest.raises(InputError, match="no masks"):
        run("evaluation", "--dataset", "folder", "--folder_path", tmp_path / "bolt")


def test_an_unknown_category_is_named(tmp_path):
    make_mvtec_ad(tmp_path, "bottle")
    with pytest.raises(InputError, match="choose one of bottle"):
        run(
            "evaluation",
            "--dataset",
            "mvtec_ad",
            "--mvtec_ad_path",
            tmp_path,
            "--subdataset",
            "cup",
        )

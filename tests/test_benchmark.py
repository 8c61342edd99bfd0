"""benchmark.py: what it generates, what it reports, what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

import benchmark
from data.catalog import read_category
from data.samples import InputError
from tests.conftest import REPOSITORY, SIZE, fill, make_mvtec_ad, make_mvtec_loco
from utils.evaluation import check_maps, map_path, measure
from utils.options import parse


def run(*argv: str) -> None:
    benchmark.main(parse(benchmark.get_parser(), ["evaluation", *map(str, argv)]))


@pytest.fixture
def loco(tmp_path) -> Path:
    make_mvtec_loco(tmp_path / "loco", "juice")
    return tmp_path / "loco"


@pytest.mark.parametrize("count", [3, 6, 15])
def test_any_number_of_maps_is_made_that_the_metrics_take(loco, tmp_path, count):
    category = read_category("mvtec_loco", loco, "juice", seed=0)
    made = benchmark.generate_test_set(category, count, tmp_path / "made", seed=0)
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
    maps = [benchmark.generate_map(sample, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert (maps[0] == maps[1]).all()
    assert (maps[0] != maps[2]).any()


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


def test_bad_numbers_are_named_together(loco):
    own = ["--dataset", "mvtec_loco", "--mvtec_loco_path", loco, "--subdataset", "juice"]
    with pytest.raises(InputError, match=r"--repeats.*--workers.*--images"):
        run(*own, "--repeats", "0", "--workers", "-1", "--images", "3", "0")


def test_a_test_set_without_masks_is_named(tmp_path):
    fill(tmp_path / "bolt" / "train" / "good", 4)
    fill(tmp_path / "bolt" / "test" / "stain", 2, stain=True)
    with pytest.raises(InputError, match="no masks"):
        run("--dataset", "folder", "--folder_path", tmp_path / "bolt")


def test_an_unknown_category_is_named(tmp_path):
    make_mvtec_ad(tmp_path, "bottle")
    with pytest.raises(InputError, match="choose one of bottle"):
        run("--dataset", "mvtec_ad", "--mvtec_ad_path", tmp_path, "--subdataset", "cup")

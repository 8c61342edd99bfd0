"""Names that users give to products and defects never meet the program's own."""

import csv
import io
import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
import tifffile

import inference
from data.catalog import read_category
from evaluation.evaluation import measure
from evaluation.maps import map_path
from evaluation.tables import as_csv, formatted, print_tables
from evaluation.trained import maps_folder
from tests.conftest import SIZE, make_product
from tests.evaluation.made_up import PLACES, get, made_up, tabulated
from utils.presets import parse
from utils.runs import Run


def make_maps(root: Path, maps: Path) -> None:
    """Draw a map for each test image of a product, by its place in the test set."""
    rng = np.random.default_rng(0)
    for sample in read_category("folder", root, None, seed=0).test:
        path = map_path(maps, sample)
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, rng.random(SIZE[::-1], np.float32))


def renamed(value, former: str, new: str):
    """Give a dict's keys another name, however deep."""
    if not isinstance(value, dict):
        return value
    return {(new if k == former else k): renamed(v, former, new) for k, v in value.items()}


@pytest.mark.parametrize("name", ["all", "mean", "None", "curve"])
def test_a_defect_may_have_any_name(tmp_path, name):
    measured = []
    for defect in ("stain", name):
        root, maps = tmp_path / defect / "bolt", tmp_path / defect / "maps"
        make_product(root)
        shutil.copytree(root / "test" / "stain", root / "test" / "spot")  # pooled is another subset
        shutil.copytree(root / "ground_truth" / "stain", root / "ground_truth" / "spot")
        make_maps(root, maps)
        for place in (root / "test", root / "ground_truth", maps / "test"):
            (place / "stain").rename(place / defect)
        measured.append(measure(read_category("folder", root, None, seed=0), maps, 1))
    expected = renamed(json.loads(json.dumps(measured[0])), "stain", name)
    if name == "curve":  # the key of ours beside it
        assert set(expected["glae"]["curve_by_defect"]) == {"curve", "spot"}
    assert json.loads(json.dumps(measured[1])) == expected
    assert expected["glae"]["auroc_by_defect"].keys() == {name, "spot"}


def test_a_product_called_mean_is_not_taken_for_the_row_of_means(capsys):
    categories = {name: made_up("folder", seed) for seed, name in enumerate(("bolt", "mean"))}
    tables = tabulated({"folder": categories})
    aurocs = [get(metrics, PLACES["folder"]["AUROC"]) for metrics in categories.values()]
    read = list(csv.DictReader(io.StringIO(as_csv(tables))))
    assert [row["category"] for row in read] == ["bolt", "folder/mean", "mean"]
    expected = [*aurocs, statistics.fmean(aurocs)]
    assert [float(row["AUROC"]) for row in read] == pytest.approx(expected)
    shown = formatted(tables, "github").splitlines()
    assert [line.split()[1] for line in shown[2:]] == ["bolt", "folder/mean", "mean"]
    print_tables([{"folder": categories}], "simple")
    assert "folder/mean" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["folder", "bolt"])
def test_maps_of_a_product_called_like_its_dataset_are_found(tmp_path, name):
    run = Run(tmp_path / "out", "folder", name)
    for inside in (tmp_path / "a" / name, tmp_path / "b" / "folder" / name):
        (inside / "test" / "good").mkdir(parents=True)
        assert maps_folder(tmp_path / inside.relative_to(tmp_path).parts[0], run) == inside


@pytest.mark.parametrize("name", ["x.part", "x.new", "any", "all", "mean", "kit", "-x", "8"])
def test_a_product_may_have_any_plain_name(tmp_path, name, capsys):
    make_product(tmp_path / name)
    category = read_category("folder", tmp_path / name, None, seed=0)
    assert category.name == name
    run = Run(tmp_path / "out", "folder", name)
    with run.locked():
        (run.maps_folder / "test" / "good").mkdir(parents=True)
        (run.maps_folder / "test" / "good" / "x.part.tiff").write_bytes(b"kept")
        run.write_config({})
    for other in ("other", name):  # each lock removes what killed processes left behind
        with Run(tmp_path / "out", "folder", other).locked():
            pass
    assert run.config_file.exists()
    assert (run.maps_folder / "test" / "good" / "x.part.tiff").exists()
    options = parse(inference.get_parser(), [f"--subdataset={name}"])
    assert inference.selected_runs(tmp_path / "out", options) == [run]

"""Tables: every format read back by other means, against means and deviations worked out anew."""

import csv
import io
import json
import math
import os
import statistics

import pytest

from data.samples import InputError
from evaluation.columns import columns
from evaluation.tables import formatted, read_results, rows
from tests.evaluation.made_up import (
    PLACES,
    PRO,
    READERS,
    SHOWN,
    SPRO,
    expected,
    from_github,
    made_up,
    percent,
    records,
    tabulated,
    values_of,
)

# Rows and columns


@pytest.mark.parametrize("dataset", PLACES)
def test_the_columns_are_those_that_the_dataset_is_measured_by(dataset):
    assert list(columns(dataset)) == list(PLACES[dataset])


@pytest.mark.parametrize("dataset", PLACES)
def test_a_row_has_each_number_from_its_place_and_the_last_row_is_the_mean(dataset):
    categories = {name: made_up(dataset, seed) for seed, name in enumerate(["nut", "bolt", "gear"])}
    table = rows(dataset, categories)
    assert list(table) == ["nut", "bolt", "gear", "mean"]
    for category, row in table.items():
        assert list(row) == list(PLACES[dataset])
        for column, value in row.items():
            twin = expected(dataset, categories, category, column)
            assert value == pytest.approx(twin, abs=1e-12)


def test_a_column_that_one_category_lacks_has_no_mean():
    lacking = made_up("mvtec_loco", 1, missing="AUROC logical")
    table = rows("mvtec_loco", {"box": made_up("mvtec_loco", 0), "bag": lacking})
    assert table["bag"]["AUROC logical"] is None
    assert table["box"]["AUROC logical"] is not None
    assert [column for column, value in table["mean"].items() if value is None] == ["AUROC logical"]


# One run


@pytest.mark.parametrize("style", READERS)
def test_a_table_says_percent_to_one_decimal_and_a_dash_for_what_is_missing(one_run, style):
    texts = formatted(tabulated(one_run), style).split("\n\n")
    assert len(texts) == 2
    for (dataset, categories), text in zip(one_run.items(), texts, strict=True):
        header, table = READERS[style](text)
        assert header == [dataset, *SHOWN[dataset]]
        assert list(table) == [*sorted(categories), "mean"]
        for category, row in table.items():
            for column, cell in row.items():
                assert cell == percent([expected(dataset, categories, category, column)])
        assert text.count("–") == (2 if dataset == "mvtec_loco" else 0)


@pytest.mark.parametrize("style", ["csv", "json"])
def test_csv_and_json_hold_every_column_in_full(one_run, style):
    found = records(formatted(tabulated(one_run), style), style)
    rows_of = [(d, c) for d, of in one_run.items() for c in [*sorted(of), "mean"]]
    assert [(record["dataset"], record["category"]) for record in found] == rows_of
    for record in found:
        dataset = record["dataset"]
        for column in PLACES[dataset]:
            twin = expected(dataset, one_run[dataset], record["category"], column)
            assert record[column] == pytest.approx(twin, abs=1e-15)
        others = set(record) - {"dataset", "category", *PLACES[dataset]}
        assert not any(record[column] for column in others)


def test_numbers_in_csv_are_those_in_json(one_run):
    texts = {style: formatted(tabulated(one_run), style) for style in ("csv", "json")}
    for from_csv, from_json in zip(*(records(t, s) for s, t in texts.items()), strict=True):
        assert {k: v for k, v in from_csv.items() if v is not None} == {
            k: v for k, v in from_json.items() if v is not None
        }


def test_a_missing_number_is_null_in_json_and_empty_in_csv(one_run):
    tables = tabulated(one_run)
    bottle = json.loads(formatted(tables, "json"))[0]
    assert bottle["category"] == "juice_bottle"
    assert bottle["AUROC logical"] is None
    header, first, *_ = csv.reader(io.StringIO(formatted(tables, "csv")))
    assert dict(zip(header, first, strict=True))["AUROC logical"] == ""


# Several runs


@pytest.mark.parametrize("style", READERS)
def test_several_runs_give_mean_and_sample_deviation_of_those_that_have_the_category(
    three_runs, style
):
    header, table = READERS[style](formatted(tabulated(*three_runs), style))
    assert header == ["mvtec_ad", *PRO]
    assert list(table) == ["bottle", "cable", "tile", "mean"]
    for category, row in table.items():
        for column, cell in row.items():
            assert cell == percent(values_of(three_runs, category, column), style)
    assert "±" in table["bottle"]["AUROC"]
    assert "±" not in table["tile"]["AUROC"]
    assert table["cable"]["AU-PRO 0.3"] == table["mean"]["AU-PRO 0.3"] == "–"


def test_means_over_the_same_categories_have_a_deviation(three_runs):
    same = [dict.fromkeys(("bottle", "tile"), run["mvtec_ad"]["bottle"]) for run in three_runs]
    tables = tabulated(*({"mvtec_ad": categories} for categories in same))
    _, table = from_github(formatted(tables, "github"))
    assert table["mean"] == table["bottle"]
    assert "±" in table["mean"]["AUROC"]


@pytest.mark.parametrize("style", READERS)
def test_one_category_alone_has_no_row_of_means(style):
    one = {"demo": {"kit": made_up("demo", 0)}}
    for runs in ([one], [one, one]):
        assert list(READERS[style](formatted(tabulated(*runs), style))[1]) == ["kit"]
    found = records(formatted(tabulated(one), "csv"), "csv")
    assert [record["category"] for record in found] == ["kit", "mean"]


@pytest.mark.parametrize("runs", [1, 3])
def test_locos_table_fits_a_terminal_of_100_columns(runs):
    names = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")
    categories = {name: made_up("mvtec_loco", seed) for seed, name in enumerate(names)}
    categories["pushpins"]["glae"]["auroc_pooled"] = 1.0
    tables = tabulated(*[{"mvtec_loco": categories}] * runs)
    lines = formatted(tables, "simple").splitlines()
    assert "100.0" in formatted(tables, "simple")
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("style", READERS)
def test_all_columns_can_be_asked_for(style):
    tables = tabulated({"mvtec_loco": {"screw_bag": made_up("mvtec_loco", 1)}})
    header, _ = READERS[style](formatted(tables, style, ("all",)))
    assert header == ["mvtec_loco", *SPRO]


@pytest.mark.parametrize("style", ["csv", "json"])
def test_csv_and_json_of_several_runs_add_deviations_and_the_number_of_runs(three_runs, style):
    found = records(formatted(tabulated(*three_runs), style), style)
    counts = {record["category"]: record["runs"] for record in found}
    assert counts == {"bottle": 3, "cable": 2, "tile": 1, "mean": 3}
    for record in found:
        for column in PRO:
            values = values_of(three_runs, record["category"], column)
            gap = None in values
            mean = None if gap else statistics.fmean(values)
            std = None if gap or len(values) < 2 else statistics.stdev(values)
            assert record[column] == pytest.approx(mean, abs=1e-12)
            assert record[f"{column} std"] == pytest.approx(std, abs=1e-12)


def test_the_deviation_of_two_runs_is_their_difference_over_root_2():
    runs = [{"mvtec_ad": {"bottle": made_up("mvtec_ad", seed)}} for seed in (0, 1)]
    for run, value in zip(runs, (0.75, 0.85), strict=True):
        run["mvtec_ad"]["bottle"]["au_pro"] = value
    _, table = from_github(formatted(tabulated(*runs), "github"))
    assert table["bottle"]["AU-PRO 0.3"] == f"80.0 ± {10 / math.sqrt(2):.1f}" == "80.0 ± 7.1"


def test_a_dataset_that_one_run_alone_has_is_shown_without_deviations(one_run):
    other = {"mvtec_ad": {"bottle": made_up("mvtec_ad", 9)}}
    loco, ad = formatted(tabulated(one_run, other), "simple").split("\n\n")
    assert "±" not in loco
    assert "±" in ad
    found = records(formatted(tabulated(one_run, other), "csv"), "csv")
    runs = {(record["dataset"], record["category"]): record["runs"] for record in found}
    assert runs["mvtec_ad", "bottle"] == 2
    assert runs["mvtec_loco", "screw_bag"] is None


def test_a_pipe_in_the_place_of_metrics_is_not_waited_for(tmp_path):
    (tmp_path / "metrics" / "demo").mkdir(parents=True)
    os.mkfifo(tmp_path / "metrics" / "demo" / "kit.json")
    with pytest.raises(InputError, match=r"kit\.json is damaged"):
        read_results(tmp_path)

"""Tables: every format read back by other means, against means and deviations worked out anew."""

import csv
import io
import json
import math
import random
import statistics
from pathlib import Path

import pytest

from data.samples import InputError
from evaluation.tables import (
    FORMATS,
    columns,
    formatted,
    print_tables,
    read_results,
    rows,
    write_csv,
)
from tests.conftest import REPOSITORY

LIMITS = ("0.01", "0.05", "0.1", "0.3", "1.0")
POOLED = {
    "AP": ("glae", "average_precision"),
    "F1max": ("glae", "f1_max"),
    "pixel AUROC": ("glae", "pixel_auroc"),
}
PRO = {
    "AUROC": ("classification_au_roc",),
    **POOLED,
    "AU-PRO 0.3": ("au_pro",),
}
SPRO = {
    "AUROC logical": ("classification", "auc_roc", "logical_anomalies"),
    "AUROC structural": ("classification", "auc_roc", "structural_anomalies"),
    "AUROC mean": ("classification", "auc_roc", "mean"),
    "AUROC pooled": ("glae", "auroc_pooled"),
    **POOLED,
    **{
        f"sPRO {limit} {name}": ("localization", "auc_spro", subset, limit)
        for limit in LIMITS
        for name, subset in (
            ("logical", "logical_anomalies"),
            ("structural", "structural_anomalies"),
            ("mean", "mean"),
        )
    },
}
PLACES = {"mvtec_loco": SPRO, "demo": SPRO, "mvtec_ad": PRO, "visa": PRO, "folder": PRO}
# What a terminal shows: of sPRO the means alone.
SHOWN = {
    "mvtec_ad": list(PRO),
    "mvtec_loco": [c for c in SPRO if not c.startswith("sPRO") or "mean" in c or "0.05" in c],
}


def put(metrics: dict, place: tuple[str, ...], value: float | None) -> None:
    """Set one number in a nested dict."""
    for key in place[:-1]:
        metrics = metrics.setdefault(key, {})
    metrics[place[-1]] = value


def get(metrics: dict, place: tuple[str, ...]) -> float | None:
    for key in place:
        metrics = metrics[key]
    return metrics


def made_up(dataset: str, seed: int, missing: str | None = None) -> dict:
    """Make a metrics file's content, no two numbers alike; the column `missing` is null."""
    generator, metrics = random.Random(seed), {"glae": {"seed": 0, "counts": {"train": 3}}}
    for column, place in PLACES[dataset].items():
        put(metrics, place, None if column == missing else generator.random())
    return metrics


def expected(dataset: str, categories: dict[str, dict], category: str, column: str):
    """Return a cell's value: of one category, or for "mean" of all of them."""
    values = [get(metrics, PLACES[dataset][column]) for metrics in categories.values()]
    if category != "mean":
        return get(categories[category], PLACES[dataset][column])
    return None if None in values else statistics.fmean(values)


def percent(values: list[float | None]) -> str:
    """Write what a cell should say of one run's value, or of several."""
    if None in values:
        return "–"
    text = f"{statistics.fmean(values) * 100:.1f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values) * 100:.1f}"


def save(output: Path, dataset: str, category: str, metrics: dict) -> Path:
    path = output / "metrics" / dataset / f"{category}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metrics))
    return path


# Reading tables back

Table = dict[str, dict[str, str]]  # row -> column -> cell


def from_github(text: str) -> tuple[list[str], Table]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    header, rule, *body = lines
    assert all(set(cell) <= set("-:") for cell in rule)
    return header, {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in body}


def from_latex(text: str) -> tuple[list[str], Table]:
    assert text.startswith(r"\begin{tabular}{l")
    assert text.endswith(r"\end{tabular}")
    kept = [line for line in text.splitlines() if line.endswith(r"\\")]
    lines = [[cell.strip() for cell in line.removesuffix(r"\\").split("&")] for line in kept]
    assert not any("_" in cell.replace(r"\_", "") for line in lines for cell in line)
    header, *body = [[cell.replace(r"\_", "_") for cell in line] for line in lines]
    return header, {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in body}


def from_simple(text: str) -> tuple[list[str], Table]:
    """Cut a table at its rule of dashes, above which a header may have two lines."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if set(line) == {"-", " "})
    starts = [i for i, c in enumerate(lines[at]) if c == "-" and (" " + lines[at])[i] == " "]
    spans = [slice(a, b) for a, b in zip(starts, [*starts[1:], None], strict=True)]
    cells = [[line[span].strip() for span in spans] for line in lines]
    header = [" ".join(filter(None, parts)) for parts in zip(*cells[:at], strict=True)]
    body = cells[at + 1 :]
    return header, {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in body}


READERS = {"github": from_github, "latex": from_latex, "simple": from_simple}


def records(text: str, style: str) -> list[dict]:
    """Read csv or json back; numbers are floats, an empty field is None."""
    if style == "json":
        return json.loads(text)
    names = ("dataset", "category")
    return [
        {k: v if k in names else (float(v) if v else None) for k, v in row.items()}
        for row in csv.DictReader(io.StringIO(text))
    ]


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


@pytest.fixture
def one_run() -> dict[str, dict[str, dict]]:
    """Make two datasets of two categories; one of them lacks a number."""
    return {
        "mvtec_loco": {
            "screw_bag": made_up("mvtec_loco", 1),
            "juice_bottle": made_up("mvtec_loco", 2, missing="AUROC logical"),
        },
        "mvtec_ad": {"bottle": made_up("mvtec_ad", 3), "metal_nut": made_up("mvtec_ad", 4)},
    }


def tabulated(*runs: dict[str, dict[str, dict]]) -> dict[str, list]:
    """Return what `formatted` takes: dataset -> one table for each run."""
    names = dict.fromkeys(dataset for run in runs for dataset in run)
    return {name: [rows(name, run[name]) for run in runs if name in run] for name in names}


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


@pytest.fixture
def three_runs() -> list[dict[str, dict[str, dict]]]:
    """Make three runs; one category is in all of them, one in two, one in a single one."""
    runs = [{"mvtec_ad": {"bottle": made_up("mvtec_ad", seed)}} for seed in range(3)]
    runs[0]["mvtec_ad"]["cable"] = made_up("mvtec_ad", 10)
    runs[2]["mvtec_ad"]["cable"] = made_up("mvtec_ad", 11, missing="AU-PRO 0.3")
    runs[1]["mvtec_ad"]["tile"] = made_up("mvtec_ad", 12)
    return runs


def values_of(runs, category: str, column: str) -> list[float | None]:
    """Return one value for each run that has the category; means must be of the same categories."""
    if category == "mean" and len({tuple(sorted(run["mvtec_ad"])) for run in runs}) > 1:
        return [None]
    having = [run["mvtec_ad"] for run in runs if category in (*run["mvtec_ad"], "mean")]
    return [expected("mvtec_ad", categories, category, column) for categories in having]


@pytest.mark.parametrize("style", READERS)
def test_several_runs_give_mean_and_sample_deviation_of_those_that_have_the_category(
    three_runs, style
):
    header, table = READERS[style](formatted(tabulated(*three_runs), style))
    assert header == ["mvtec_ad", *PRO]
    assert list(table) == ["bottle", "cable", "tile", "mean"]
    for category, row in table.items():
        for column, cell in row.items():
            assert cell == percent(values_of(three_runs, category, column))
    assert "±" in table["bottle"]["AUROC"]
    assert "±" not in table["tile"]["AUROC"]
    assert table["cable"]["AU-PRO 0.3"] == table["mean"]["AU-PRO 0.3"] == "–"


def test_means_over_the_same_categories_have_a_deviation(three_runs):
    same = [{"mvtec_ad": {"bottle": run["mvtec_ad"]["bottle"]}} for run in three_runs]
    _, table = from_github(formatted(tabulated(*same), "github"))
    assert table["mean"] == table["bottle"]
    assert "±" in table["mean"]["AUROC"]


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


# From files


def test_results_are_read_from_every_metrics_file_below_the_output_folder(tmp_path, one_run):
    for dataset, categories in one_run.items():
        for category, metrics in categories.items():
            save(tmp_path, dataset, category, metrics)
    save(tmp_path, "somebody_elses", "bottle", {"other": "keys"})
    (tmp_path / "metrics" / "mvtec_ad" / "notes.txt").write_text("no metrics")
    assert read_results(tmp_path) == one_run


def test_an_output_folder_without_metrics_has_no_results(tmp_path):
    assert read_results(tmp_path) == {}
    assert read_results(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("content", [b"", b'{"au_pro": 0.5', b"not json", b"\xff\xfe\x00"])
def test_a_damaged_metrics_file_is_named(tmp_path, content):
    save(tmp_path, "mvtec_ad", "bottle", made_up("mvtec_ad", 0))
    path = save(tmp_path, "mvtec_ad", "cable", {})
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged") as caught:
        read_results(tmp_path)
    assert str(path) in str(caught.value)
    with pytest.warns(UserWarning, match="damaged") as warned:  # after a training: not its failure
        write_csv(tmp_path)
    assert str(path) in str(warned[0].message)
    assert not (tmp_path / "results.csv").exists()


def test_results_csv_is_written_anew_from_all_metrics_files(tmp_path):
    categories = {}
    for seed, name in enumerate(["bottle", "cable", "tile"]):
        categories[name] = made_up("mvtec_ad", seed)
        save(tmp_path, "mvtec_ad", name, categories[name])
        write_csv(tmp_path)
        with (tmp_path / "results.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        assert list(found[0]) == ["dataset", "category", *PRO]
        assert [row["category"] for row in found] == [*categories, "mean"]
        for row in found:
            assert row["dataset"] == "mvtec_ad"
            for column in PRO:
                twin = expected("mvtec_ad", categories, row["category"], column)
                assert float(row[column]) == pytest.approx(twin, abs=1e-15)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics", "results.csv"]


@pytest.mark.parametrize("style", FORMATS)
def test_what_is_printed_are_the_tables_alone(one_run, capsys, style):
    print_tables([one_run], style)
    shown = capsys.readouterr()
    assert shown.out == formatted(tabulated(one_run), style) + "\n"
    assert shown.err == ""


def test_the_module_prints_what_the_folders_hold(tmp_path, three_runs, run_command):
    folders = [tmp_path / f"seed{index}" for index in range(3)]
    for folder, run in zip(folders, three_runs, strict=True):
        for category, metrics in run["mvtec_ad"].items():
            save(folder, "mvtec_ad", category, metrics)
    done = run_command(["-m", "evaluation.tables", *folders], REPOSITORY)
    assert done.returncode == 0, done.stderr
    header, table = from_simple(done.stdout.rstrip("\n"))
    assert header == ["mvtec_ad", *PRO]
    assert list(table) == ["bottle", "cable", "tile", "mean"]
    for category, row in table.items():
        for column, cell in row.items():
            assert cell == percent(values_of(three_runs, category, column))


@pytest.mark.parametrize("content", ["{bad", "{}", "[]", "null"])
def test_a_damaged_metrics_file_ends_the_command_with_one_line(tmp_path, run_command, content):
    path = save(tmp_path, "mvtec_ad", "bottle", {})
    path.write_text(content)
    done = run_command(["-m", "evaluation.tables", tmp_path], REPOSITORY)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert str(path) in done.stderr


def test_a_folder_without_metrics_is_named(tmp_path, run_command):
    done = run_command(["-m", "evaluation.tables", tmp_path], REPOSITORY)
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr

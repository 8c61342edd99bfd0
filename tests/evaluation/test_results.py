"""Results on disk: read from the metrics files, written as results.csv, printed by the module."""

import csv

import pytest

from data.samples import InputError
from evaluation.tables import FORMATS, formatted, print_tables, read_results, write_csv
from tests.conftest import REPOSITORY
from tests.evaluation.made_up import (
    PRO,
    expected,
    from_simple,
    made_up,
    percent,
    save,
    tabulated,
    values_of,
)

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
    lacking = one_run["mvtec_loco"].pop("juice_bottle")
    print_tables([one_run], style)
    shown = capsys.readouterr()
    assert shown.out == formatted(tabulated(one_run), style) + "\n"
    assert shown.err == ""
    one_run["mvtec_loco"]["juice_bottle"] = lacking
    print_tables([one_run], style)  # and why there are gaps, but where a program reads on
    tables, said = formatted(tabulated(one_run), style), capsys.readouterr().out
    assert said.startswith(tables)
    assert ("juice_bottle: " in said.removeprefix(tables)) == (style not in ("csv", "json"))


def lacking(gap: str) -> dict:
    """Make LOCO's metrics of a test set that lacks something."""
    metrics = made_up("mvtec_loco", 0)
    kinds = {"logical_anomalies": 0.5, "structural_anomalies": 0.5}
    images, pixels = dict(kinds), dict(kinds)
    subset = metrics["classification"]["auc_roc"]
    if gap == "no defective test images":
        images, pixels = {}, {}
    elif gap == "no good test images":
        images = dict.fromkeys(images)
    elif gap == "no masks":
        pixels, metrics["glae"]["pixel_auroc"] = dict.fromkeys(pixels), None
    elif gap.startswith("no masks of"):
        pixels["logical_anomalies"] = None
    else:
        del images["structural_anomalies"]
    subset["structural_anomalies"] = None  # whatever it is: a dash
    metrics["glae"] |= {"auroc_by_defect": images, "pixel_auroc_by_defect": pixels}
    return metrics


@pytest.mark.parametrize(
    "gap",
    [
        "no defective test images",
        "no good test images",
        "no masks",
        "no masks of logical_anomalies",
        "no test images of structural_anomalies",
    ],
)
def test_a_dash_is_explained_in_words(gap, capsys):
    categories = {"bag": lacking(gap), "box": made_up("mvtec_loco", 1)}
    print_tables([{"mvtec_loco": categories}], "simple")
    assert capsys.readouterr().out.splitlines()[-1] == f"– bag: {gap}"
    print_tables([{"mvtec_loco": categories}], "latex")
    assert capsys.readouterr().out.splitlines()[-1] == f"% – bag: {gap}"


def test_a_mean_over_other_categories_in_every_run_is_explained(capsys, three_runs):
    print_tables(three_runs, "simple")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "– mean: the runs are of different categories"


def test_the_module_prints_what_the_folders_hold(tmp_path, three_runs, run_command):
    folders = [tmp_path / f"seed{index}" for index in range(3)]
    for folder, run in zip(folders, three_runs, strict=True):
        for category, metrics in run["mvtec_ad"].items():
            save(folder, "mvtec_ad", category, metrics)
    done = run_command(["-m", "evaluation.tables", *folders], REPOSITORY)
    assert done.returncode == 0, done.stderr
    header, table = from_simple(done.stdout.partition("\n\n")[0])
    assert header == ["mvtec_ad", *PRO]
    assert list(table) == ["bottle", "cable", "tile", "mean"]
    for category, row in table.items():
        for column, cell in row.items():
            assert cell == percent(values_of(three_runs, category, column), "simple")


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

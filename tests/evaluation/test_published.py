"""Published results are read as they were printed, and a damaged file of them is refused."""

from statistics import mean

import pytest

from data.catalog import DATASETS
from data.samples import InputError
from evaluation.published import FILE, published, read_published
from utils.files import read_yaml

BENCHMARKS = ("mvtec_ad", "visa", "mvtec_loco")


def values(dataset: str, method: str, category: str = "mean") -> dict[str, float]:
    """Return the one row of a method on a category."""
    (row,) = (r for r in published(dataset) if (r.method, r.category) == (method, category))
    return row.values


def test_the_headline_numbers_are_those_that_the_papers_print():
    for method, (ad, visa, *loco) in {
        "EfficientAD-S": (98.8, 97.5, 85.8, 94.2, 90.0, 78.4),
        "EfficientAD-M": (99.1, 98.1, 86.8, 94.7, 90.7, 79.8),
    }.items():
        assert values("mvtec_ad", method)["AUROC"] == ad
        assert values("visa", method)["AUROC"] == visa
        names = ("AUROC logical", "AUROC structural", "AUROC mean", "sPRO 0.05 mean")
        assert values("mvtec_loco", method) == dict(zip(names, loco, strict=True))
    glae = [values(dataset, "GLAE") for dataset in BENCHMARKS]
    assert glae == [{"AUROC": 98.2}, {"AUROC": 98.2}, {"AUROC pooled": 91.1}]


def test_a_row_says_where_it_was_published_and_in_what_it_differs():
    rows = published("mvtec_ad")
    assert all("https://" in row.source or "second-hand" in row.source for row in rows)
    bottle = next(row for row in rows if row.category == "bottle")
    assert bottle.values == {"AUROC": 100.0, "AU-PRO 0.3": 95.7}
    assert "nelson1425" in bottle.source and "another implementation" in bottle.note


@pytest.mark.parametrize("dataset", BENCHMARKS)
def test_a_published_mean_is_that_of_its_categories(dataset):
    """Whoever copies a digit wrongly, or drops a category, moves the mean."""
    checked = 0
    for row in (row for row in published(dataset) if row.category == "mean"):
        for column, told in row.values.items():
            of = [r for r in published(dataset) if r.method == row.method and r is not row]
            found = [r.values[column] for r in of if column in r.values]
            if found:
                assert len(found) == len(DATASETS[dataset].categories)
                assert mean(found) == pytest.approx(told, abs=0.051), (row.method, column)
                checked += 1
    assert checked == {"mvtec_ad": 7, "visa": 0, "mvtec_loco": 4}[dataset]


def test_no_method_stands_there_twice():
    for dataset, methods in read_yaml(FILE)["results"].items():
        names = [entry["method"] for entry in methods]
        assert len(names) == len(set(names)), dataset


def test_nothing_is_published_of_a_product_of_ones_own():
    assert published("folder") == published("demo") == []


GOOD = "sources: {a: A}\nresults: {visa: [{method: M, source: a, values: {AUROC: {pcb1: 97}}}]}"


def test_a_whole_number_is_a_percentage(tmp_path):
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    (row,) = read_published(file)["visa"]
    assert (row.method, row.category, row.values, row.source) == ("M", "pcb1", {"AUROC": 97}, "A")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("visa", "vista", ": there is no data set vista"),
        ("AUROC", "sPRO 0.05 mean", ": visa, M, pcb1: visa has no column sPRO 0.05 mean"),
        ("pcb1", "pcb5", ": visa, M, pcb5: visa has no such category"),
        ("97", "970", ": visa, M, pcb1, AUROC: 970 is no percentage"),
        ("97", ".nan", ": visa, M, pcb1, AUROC: nan is no percentage"),
        ("97", "high", ": visa, M, pcb1, AUROC: high is no percentage"),
        ("source: a", "source: b", " is damaged: KeyError: 'b'"),
        ("{AUROC: {pcb1: 97}}", "97", " is damaged: AttributeError: 'int' object has no"),
        (GOOD, "", " is damaged: TypeError: "),
        (GOOD, "{", " is not YAML: "),
    ],
)
def test_a_damaged_file_is_named_in_one_line_with_what_is_wrong(tmp_path, old, new, named):
    file = tmp_path / "damaged.yaml"
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(InputError) as raised:
        read_published(file)
    (line,) = raised.value.args
    assert line.startswith(f"{file}{named}") and "\n" not in line

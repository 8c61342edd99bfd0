"""A damaged, foreign or missing file is one line; the rest is shown, and nothing that is wrong."""

import json
import os
import resource
from pathlib import Path

import pytest

import report
from reporting.collected import collect
from reporting.validation import OURS
from tests.reporting.visiting import NO_IMAGES, write

SCORES = {"good": [0.1, 0.4, 1.2], "dent": [0.9, 3.0], "scratch": [2.0]}


@pytest.fixture
def output(make_output, tmp_path) -> Path:
    """Two evaluated products: a bolt, and a nut that is to be damaged."""
    for category in ("bolt", "nut"):
        make_output(tmp_path / "out", SCORES, 1.0, category)
    return tmp_path / "out"


def spoilt(path: Path, *keys: str, value: object = None) -> None:
    """Put a value below keys of a JSON file; a lack where it is Ellipsis."""
    whole = json.loads(path.read_text())
    inner = whole
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    if value is ...:
        del inner[keys[-1]]
    path.write_text(json.dumps(whole))


HALF = '{"classification_au_roc": 0.5, "au_p'
WHOLE_FILES = {
    "empty": "",
    "truncated": HALF,
    "an array": "[1, 2]",
    "a number": "3",
    "deep": "[" * 100_000,
    "a number of 5000 digits": '{"classification_au_roc": 1' + "0" * 5000 + "}",
    "no text": "\0\udcff",
    "foreign": '{"hello": "world"}',
}
VALUES = [
    (("classification_au_roc",), "0.9"),
    (("classification_au_roc",), float("nan")),
    (("au_pro",), float("inf")),
    (("au_pro",), 1.5),
    (("glae",), ...),
    (("glae",), [1]),
    (("glae", "auroc_pooled"), True),
    (("glae", "threshold"), "1"),
    (("glae", "threshold"), 10**400),
    (("glae", "map_threshold"), float("nan")),
    (("glae", "false_alarm_rate"), -1),
    (("glae", "false_alarm_rate"), 0),
    (("glae", "curve"), [[0, 0], [1]]),
    (("glae", "curve"), [[0, 0], [1, "1"]]),
    (("glae", "curve"), [[0.5, 0.5], [0, 1]]),
    (("glae", "curve_by_defect"), {"dent": 3}),
    (("glae", "counts"), {"test": -1}),
    (("glae", "counts"), 6),
    (("glae", "experts"), {"position": 1}),
    (("glae", "seconds"), [1]),
    (("glae", "seconds", "training"), "long"),
    (("glae", "seconds", "evaluation"), -1.0),
    (("glae", "seconds", "scoring_per_image"), 1e-300),
    (("glae", "options"), None),
    (("glae", "options"), {"model": {"a": {}}}),
    (("glae", "unreadable"), "all"),
    (("glae", "versions"), {"torch": 2}),
    (("glae", "seed"), 0.5),
    (("glae", "auroc_by_defect"), {"dent": "good"}),
]
ROWS = {
    "empty": lambda text: "",
    "cut within a row": lambda text: text[:-30],
    "a row less": lambda text: text[: text.rstrip().rindex("\n") + 1],
    "a row twice": lambda text: text + text.splitlines()[-1] + "\n",
    "other scores": lambda text: text.replace(",3.0,", ",0.2,"),
    "another verdict": lambda text: text.replace(",good,0.01", ",anomalous,0.01", 1),
    "another defect": lambda text: text.replace("scratch", "hole"),
    "no number": lambda text: text.replace(",3.0,", ",1e999,"),
    "a path out of it": lambda text: text.replace("dent/", "dent/../../../"),
    "an absolute path": lambda text: text.replace("dent/", "/etc/"),
    "no text": lambda text: "\udcff",
}


@pytest.mark.parametrize("content", WHOLE_FILES.values(), ids=WHOLE_FILES)
def test_a_damaged_metrics_file_is_one_line_and_the_rest_is_shown(output, outcome, content):
    damaged = output / "metrics" / "folder" / "nut.json"
    damaged.write_bytes(content.encode(errors="surrogateescape"))
    code, out, errors = outcome(report, [output, *NO_IMAGES])
    assert (code, len(errors)) == (2, 1)
    assert f"{damaged} is damaged: evaluate it again" in errors[0]
    page = Path(out.strip()).read_text()
    assert ("bolt</" in page, "nut</" in page) == (True, False)


@pytest.mark.parametrize(("keys", "value"), VALUES, ids=str)
def test_a_senseless_value_damages_a_metrics_file(output, keys, value):
    damaged = output / "metrics" / "folder" / "nut.json"
    spoilt(damaged, *keys, value=value)
    found, faults = collect([output])
    assert [one.run.subdataset for one in found] == ["bolt"]
    assert len(faults) == 1
    assert faults[0].startswith(f"{damaged} is damaged: evaluate it again")


@pytest.mark.parametrize("key", OURS)
def test_what_an_earlier_version_did_not_write_is_no_damage(output, outcome, key):
    needed = ("auroc_pooled", "average_precision", "f1_max", "pixel_auroc", "auroc_by_defect")
    lacking = output / "metrics" / "folder" / "nut.json"
    spoilt(lacking, "glae", key, value=... if key not in needed else None)
    if key in needed:
        spoilt(lacking, "glae", key, value={} if key == "auroc_by_defect" else None)
    found, faults = collect([output])
    assert len(found) == 2
    assert key in found[1].metrics["glae"]
    agrees = key not in ("auroc_pooled", "auroc_by_defect")  # which results are compared with
    assert bool(found[1].results) == agrees
    assert len(faults) == (0 if agrees else 1)
    assert outcome(report, [output, *NO_IMAGES])[0] == (0 if agrees else 2)


@pytest.mark.parametrize("change", ROWS.values(), ids=ROWS)
def test_results_that_are_damaged_or_of_another_evaluation_are_not_shown(output, change):
    file = output / "results" / "folder" / "nut.csv"
    before = file.read_text()
    file.write_bytes(change(before).encode(errors="surrogateescape"))
    assert file.read_bytes() != before.encode()
    found, faults = collect([output])
    assert [(one.run.subdataset, len(one.results)) for one in found] == [("bolt", 6), ("nut", 0)]
    assert len(faults) == 1
    assert str(file) in faults[0]
    write([output], output / "report")


def test_missing_results_are_told_and_the_metrics_shown(output, outcome):
    (output / "results" / "folder" / "nut.csv").unlink()
    code, out, errors = outcome(report, [output, *NO_IMAGES])
    assert (code, len(errors)) == (2, 1)
    assert "nut.csv: evaluate it again with inference.py" in errors[0]
    assert "nut</" in Path(out.strip()).read_text()


def test_a_pipe_for_a_file_is_not_waited_for(output):
    for file in ("metrics/folder/nut.json", "results/folder/bolt.csv"):
        (output / file).unlink()
        os.mkfifo(output / file)
    found, faults = collect([output])
    assert [(one.run.subdataset, one.results) for one in found] == [("bolt", [])]
    assert len(faults) == 2


def test_an_output_that_holds_nothing_is_named_beside_what_is_shown(output, outcome, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (output / "metrics" / "folder" / "._bolt.json").write_text("what a Mac leaves on a stick")
    others = [tmp_path / name for name in ("empty", "file", "nowhere")]
    code, out, errors = outcome(
        report, [*others, output, "--output_dir", tmp_path / "report", *NO_IMAGES]
    )
    assert code == 2
    assert Path(out.strip()) == tmp_path / "report" / "index.html"
    assert [next(o for o in others if str(o) in error) for error in errors] == others
    code, out, errors = outcome(report, [*others, "--output_dir", tmp_path / "none", *NO_IMAGES])
    assert (code, out, len(errors)) == (2, "", 3)
    assert not (tmp_path / "none" / "index.html").exists()
    code, out, errors = outcome(report, [tmp_path / "nowhere", *NO_IMAGES])
    assert (code, out) == (2, "")
    assert "nowhere is no folder" in errors[0]
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("again", ["out", "./out", "out/../out", "link"])
def test_a_folder_that_is_named_twice_counts_once(output, outcome, tmp_path, monkeypatch, again):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("out")
    code, _, errors = outcome(report, ["out", again, *NO_IMAGES])
    assert (code, len(errors)) == (2, 1)
    assert "counts once" in errors[0]
    assert len(collect([Path("out"), Path(again)])[0]) == 2


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/report"])  # root cannot, either
def test_an_output_folder_that_cannot_be_written_is_named(output, outcome, tmp_path, place):
    (tmp_path / "file").write_text("")
    folder = tmp_path / place
    code, out, errors = outcome(report, [output, "--output_dir", folder, *NO_IMAGES])
    assert (code, out, len(errors)) == (2, "", 1)
    assert f"--output_dir {folder} cannot be written" in errors[0]


def test_a_disk_that_fills_keeps_the_former_page(output, outcome):
    page = output / "report" / "index.html"
    page.parent.mkdir()
    page.write_text("former")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, former[1]))
    try:
        code, out, errors = outcome(report, [output, *NO_IMAGES])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert (code, out) == (1, "")
    assert errors == [f"error: {page}: File too large: make room there"]
    assert page.read_text() == "former"
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]

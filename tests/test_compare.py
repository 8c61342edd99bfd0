"""inference.py --compare: what is stored is read, what is missing scored, the rest refused."""

import json
import os
import shutil
from pathlib import Path

import pytest

import inference
from data.samples import InputError
from evaluation.results import write_results
from tests.conftest import REPOSITORY
from tests.evaluation.made_up import from_github, made_up, save
from tests.evaluation.test_comparison import run
from utils.presets import parse
from utils.runs import Run


def store(output: Path, seed: int, model: str) -> Path:
    """Store made-up results of two categories of two datasets, as of a model's seed."""
    for dataset, category in (("mvtec_ad", "bottle"), ("mvtec_loco", "screw_bag")):
        metrics = made_up(dataset, seed)
        metrics["glae"] |= {"seed": seed, "options": {"model": model}}
        save(output, dataset, category, metrics)
        write_results(Run(output, dataset, category).results_file, run(seed, 1))
    return output


@pytest.fixture
def outputs(tmp_path) -> list[Path]:
    """Two seeds of one model, one of another; nothing of them can be scored."""
    made = (("one", 0, "glae"), ("two", 1, "glae"), ("three", 2, "efficientad"))
    return [store(tmp_path / name, seed, model) for name, seed, model in made]


def compare(*argv) -> int:
    line = [*map(str, argv), "--compare", "--device", "cpu", "--workers", "1"]
    return inference.main(parse(inference.get_parser(), line))


def test_a_table_of_what_is_stored_loads_no_torch(outputs, run_command):
    """It alone takes more than the two seconds that such a table may."""
    code = (
        "import sys, inference; from utils.presets import parse; "
        "assert inference.main(parse(inference.get_parser(), sys.argv[1:])) == 0; "
        "print([name for name in ('torch', 'scipy', 'sklearn', 'cv2') if name in sys.modules])"
    )
    done = run_command(["-c", code, *outputs, "--compare"], REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "mvtec_loco, sPRO 0.05 mean" in done.stdout


def test_help_loads_no_torch(run_command):
    code = (
        "import sys, inference; inference.get_parser().format_help(); print('torch' in sys.modules)"
    )
    assert run_command(["-c", code], REPOSITORY).stdout == "False\n"


def test_what_is_damaged_is_named_and_the_rest_is_shown(outputs, capsys):
    Run(outputs[2], "mvtec_ad", "bottle").results_file.write_text("image\n")
    Run(outputs[1], "mvtec_loco", "screw_bag").metrics_file.write_text("{")
    assert compare(*outputs, "--format", "github", "--columns", "AUROC", "AUROC pooled") == 2
    shown = capsys.readouterr()
    assert [line.count("is damaged") for line in shown.err.splitlines()].count(1) == 1
    assert "bottle.csv is no file of results" in shown.err
    assert "bottle: no interval, without all images' results" in shown.out
    assert "A: model glae, 1 seed" in shown.out
    assert "| screw_bag " in shown.out


@pytest.fixture
def pair(alone, tmp_path) -> list[Run]:
    """The same run twice, evaluated."""
    outputs = [tmp_path / "a", tmp_path / "b"]
    for output in outputs:
        shutil.copytree(alone.output, output)
    return [Run(output, alone.dataset, alone.subdataset) for output in outputs]


def scored(pair: list[Run], *argv) -> list[bool]:
    """Return which of the runs a comparison has scored again."""
    before = [
        run.metrics_file.stat().st_mtime_ns if run.metrics_file.exists() else 0 for run in pair
    ]
    assert compare(*(run.output for run in pair), *argv) == 0
    return [
        run.metrics_file.stat().st_mtime_ns != former
        for run, former in zip(pair, before, strict=True)
    ]


def test_what_is_stored_is_scored_again_if_that_is_asked_for_alone(pair):
    assert scored(pair) == [False, False]
    assert scored(pair, "--score_again") == [True, True]
    assert scored(pair) == [False, False]


@pytest.mark.parametrize("lacking", ["metrics", "results", "fresh"])
def test_a_run_is_scored_whose_metrics_are_missing_or_older_than_its_detector(
    pair, lacking, capsys
):
    run = pair[1]
    expected = json.loads(run.metrics_file.read_text())["classification_au_roc"]
    if lacking == "fresh":
        later = run.metrics_file.stat().st_mtime + 1
        os.utime(run.detector_file, (later, later))
    else:
        (run.metrics_file if lacking == "metrics" else run.results_file).unlink()
    assert scored(pair) == [False, True]
    assert run.results_file.exists()
    assert json.loads(run.metrics_file.read_text())["classification_au_roc"] == expected
    assert "2 seeds" in capsys.readouterr().out


def test_a_run_that_cannot_be_scored_is_named_and_its_stale_metrics_are_not_shown(pair, capsys):
    pair[1].config_file.write_text("folder_path: gone\nseed: 0\n")
    os.utime(pair[1].detector_file, (2**31, 2**31))
    assert compare(*(run.output for run in pair)) == 2
    shown = capsys.readouterr()
    assert "gone" in shown.err
    assert "1 seed" in shown.out


# Options


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--maps_dir", "maps"], "--maps_dir: --compare"),
        (["--map", "student"], "--map: --compare"),
        (["--by_expert"], "--by_expert: --compare"),
        (["--no_maps"], "--no_maps: --compare"),
        (["--pictures"], "--pictures: --compare"),
        (["--false_alarm_rate", "0.1"], "--false_alarm_rate: --compare"),
        (["a/detector.onnx"], "leave a/detector.onnx out"),
        (["--columns", "AUROC poled"], "no 'AUROC poled': AUROC pooled[?]"),
        (["--columns", "auroc"], "no 'auroc': AUROC[?]"),
        (["--columns", "zebra"], "no 'zebra': name headline, all"),
    ],
)
def test_what_does_not_go_with_it_is_one_line_each(more, said):
    with pytest.raises(InputError, match=said) as caught:
        compare("one", "two", *more)
    assert len(caught.value.args) == 1


def test_every_fault_is_told_at_once():
    with pytest.raises(InputError) as caught:
        compare("one", "--no_maps", "--columns", "zebra")
    assert len(caught.value.args) == 3


def test_a_folder_that_is_named_twice_is_no_second_seed(outputs, tmp_path, capsys):
    (tmp_path / "link").symlink_to("one")
    command = (outputs[0], outputs[2], "--columns", "AUROC")
    assert compare(*command) == 0
    expected = capsys.readouterr().out
    assert compare(*command[:2], tmp_path / "link", *command[2:]) == 2
    shown = capsys.readouterr()
    assert shown.out == expected
    assert f"{tmp_path / 'link'} is {outputs[0]} once more: it counts once" in shown.err


def test_nor_is_it_where_nothing_is_compared(alone, tmp_path, capsys):
    (tmp_path / "link").symlink_to(alone.output)
    line = [str(alone.output), "--device", "cpu", "--no_maps", "--format", "github"]
    assert inference.main(parse(inference.get_parser(), [*line, str(tmp_path / "link")])) == 2
    shown = capsys.readouterr()
    assert "±" not in shown.out
    assert shown.err.count("it counts once") == 1


@pytest.mark.parametrize("folders", [[], ["one"], ["one", "./one"]])
def test_one_folder_alone_is_no_comparison(folders):
    with pytest.raises(InputError, match="name one beside"):
        compare(*folders)


def test_to_score_again_is_of_a_comparison():
    with pytest.raises(InputError, match="--score_again is of --compare"):
        inference.main(parse(inference.get_parser(), ["--score_again"]))


def test_columns_that_no_dataset_has_are_told_before_anything_is_scored(outputs):
    with pytest.raises(
        InputError, match=r"mvtec_ad has no sPRO 0\.05 mean, but AUROC, AP, "
    ) as caught:
        compare(*outputs, "--dataset", "mvtec_ad", "--columns", "sPRO 0.05 mean")
    assert len(caught.value.args) == 1


def test_columns_choose_those_that_each_dataset_has(outputs, capsys):
    assert compare(*outputs, "--columns", "AP", "sPRO 0.05 mean") == 0
    titles = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines() if ", " in line]
    tables = [title for title in titles if title.startswith("mvtec")]
    assert tables == ["mvtec_ad, AP", "mvtec_loco, AP", "mvtec_loco, sPRO 0.05 mean"]


def test_named_columns_are_for_the_usual_tables_too(alone, capsys):
    line = [str(alone.output), "--device", "cpu", "--no_maps", "--format", "github"]
    options = parse(inference.get_parser(), [*line, "--columns", "AP", "AUROC"])
    assert inference.main(options) == 0
    assert from_github(capsys.readouterr().out.rstrip())[0] == ["folder", "AUROC", "AP"]

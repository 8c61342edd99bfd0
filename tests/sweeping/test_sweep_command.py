"""sweep.py as a command: what it prints, starts, finds finished and refuses; nothing is trained."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import inference
import main
import sweep
from sweeping import local
from sweeping.attempt import Job
from sweeping.finished import images_of, present_tests
from sweeping.journal import read_journal
from tests.conftest import fill, make_mvtec_ad
from tests.sweeping.playing import Played
from utils.files import locked_folder
from utils.runs import Run

QUICK = ("--train_steps", "2", "--image_size", "64", "--model_size", "small", "--device", "cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "ad"
    for name in ("bottle", "two words"):
        make_mvtec_ad(root, name)
    return root


@pytest.fixture
def played(monkeypatch) -> Played:
    played = Played()
    monkeypatch.setattr(local, "attempt", played)
    return played


@pytest.fixture
def run(outcome, data, tmp_path) -> Callable:
    """Run sweep.py on the data set; return its exit code, its results and its error lines."""

    def run(*more: object, place=("mvtec_ad", data), out: str = "out") -> tuple:
        for kept in (images_of, present_tests):  # as a process of its own has them
            kept.cache_clear()
        return outcome(sweep, [*place, *QUICK, "--output_dir", tmp_path / out, *more])

    return run


def test_its_tables_are_those_of_inference_over_seeds_and_models(run, played, outcome, tmp_path):
    code, out, errors = run("--seeds", "0", "1", "--grid", "model=glae,efficientad")
    assert (code, errors, len(played.names)) == (0, [], 8)
    models = [tmp_path / "out" / f"model={model}" for model in ("glae", "efficientad")]
    points = [model / f"seed={seed}" for seed in (0, 1) for model in models]
    assert outcome(inference, [*points, "--compare"]) == (0, out, [])
    for text in ("bottle", "two words", "±", "efficientad"):
        assert text in out
    stored = (tmp_path / "out" / "results.csv").read_bytes().decode()
    assert outcome(inference, [*points, "--compare", "--format", "csv"]) == (0, stored + "\n", [])


def test_a_begun_training_of_other_options_is_refused_before_any_begins(run, played, tmp_path):
    run()
    assert len(played.names) == 2
    former = Run(tmp_path / "out", "mvtec_ad", "bottle")
    former.metrics_file.unlink()
    former.checkpoint_file.touch()
    code, _, errors = run("--seed", "5")
    assert (code, played.names) == (1, ["two words"])
    assert any("error: bottle: --resume: seed was 0 in this run, not 5" in line for line in errors)


def test_a_single_points_table_is_that_of_inference_of_one_folder(run, played, tmp_path):
    code, out, _ = run()
    assert code == 0
    rows = [line.split("  ")[0] for line in out.splitlines()]
    assert rows[-3:] == ["bottle", "two words", "mean"]
    assert (tmp_path / "out" / "results.csv").read_text().count("\n") == 4


def test_what_is_finished_is_not_begun_again_unless_it_is_to_be_replaced(run, played, tmp_path):
    first = run("--seeds", "1")
    assert played.names == ["bottle seed=1", "two words seed=1"]
    assert run("--seeds", "1") == first
    assert played.names == []
    run("--seeds", "1", "2")
    assert played.names == ["bottle seed=2", "two words seed=2"]
    assert run("--seeds", "1", "--overwrite") == first
    assert [job.start for job in played.jobs] == ["--overwrite"] * 2
    entries = read_journal(tmp_path / "out" / "sweep" / "journal.jsonl")
    events = sorted(entry["event"] for entry in entries)
    assert events == ["begun"] * 6 + ["done"] * 6 + ["found"] * 4


def test_other_options_images_or_metrics_are_not_taken_for_finished(run, played, tmp_path):
    make_mvtec_ad(tmp_path / "ad", "bottle")
    place = ("mvtec_ad", tmp_path / "ad")
    assert run(place=place)[0] == 0
    metrics = tmp_path / "out" / "metrics" / "mvtec_ad" / "bottle.json"
    assert played.names == ["bottle"]
    run("--train_steps", "3", place=place)
    assert played.names == ["bottle"]
    run("--train_steps", "3", place=place)
    assert played.names == []
    for folder in (("train", "good"), ("test", "stain")):
        fill(tmp_path / "ad" / "bottle" / Path(*folder), 7)
        run("--train_steps", "3", place=place)
        assert played.names == ["bottle"]
    metrics.write_text(metrics.read_text() + " ")
    run("--train_steps", "3", place=place)
    assert played.names == ["bottle"]


def test_with_a_storage_what_lies_there_is_finished(run, played, data, tmp_path):
    pytest.importorskip("pyarrow", reason="needs requirements-ray.txt")
    stored = ("--storage", (tmp_path / "store").as_uri(), "--cache", tmp_path / "cache")
    assert [run(), run(*stored)] == [run()] * 2
    folders = {job.output for job in played.jobs[2:]}
    assert played.names == ["bottle", "two words"] * 2
    assert [run(*stored, out=out)[0] for out in ("out", "elsewhere")] == [0, 0]
    assert played.names == []
    run(*stored, place=("folder", data))
    assert not folders & {job.output for job in played.jobs}


def test_status_is_there_while_it_runs_and_when_it_has_ended(run, played, tmp_path):
    status_file = tmp_path / "out" / "sweep" / "status.json"
    seen = []

    def meanwhile(job: Job) -> None:
        deadline = time.monotonic() + 20
        while not status_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        seen.append(json.loads(status_file.read_text())["counts"])

    played.meanwhile = meanwhile
    assert run()[0] == 0
    assert seen[0]["waiting"] == 2  # it has not told yet that it runs
    status = json.loads(status_file.read_text())
    assert status["counts"]["done"] == 2
    assert status["tasks"]["two words"]["line"] == "all"
    assert status["tasks"]["two words"]["log"].endswith("logs/mvtec_ad/two words.log")
    run()
    assert json.loads(status_file.read_text())["counts"] | {"done": 0} == dict.fromkeys(
        status["counts"], 0
    ) | {"found": 2}


def test_categories_of_one_name_in_two_data_sets_are_two(run, played, data, tmp_path):
    (tmp_path / "a.yaml").write_text(
        f"datasets: {{mvtec_ad: {{path: {data}}}, folder: {{path: {data}}}}}\n"
    )
    code, out, _ = run(place=(tmp_path / "a.yaml",))
    assert code == 0
    names = [
        f"{kind}/{name}" for kind in ("mvtec_ad", "folder") for name in ("bottle", "two words")
    ]
    assert played.names == names
    assert out.count("bottle") == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--train_steps", "-3"), "--train_steps"),
        (("--trian_steps", "3"), "--train_steps?"),
        (("--retries", "-1"), "--retries"),
        (("--cpus_per_run", "0"), "--cpus_per_run"),
        (("--gpus_per_run", "1.5"), "--gpus_per_run"),
        (("--gpus_per_run", "nan"), "--gpus_per_run"),
        (("--cache_size", "0"), "--cache_size"),
        (("--resume", "--experts", "nobody"), "nobody"),
        (("--subdataset", "bottle"), "--subdataset"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_anything_begins(
    run, played, more, said, tmp_path
):
    code, out, [error] = run(*more)
    assert (code, out, played.names) == (2, "", [])
    assert said in error
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(run, played, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, [error] = run(out="file")
    assert (code, played.names) == (2, [])
    assert "--output_dir" in error
    assert (tmp_path / "file").read_text() == ""


def test_a_second_sweep_into_an_output_in_use_is_refused(run, played, tmp_path):
    with locked_folder(tmp_path / "out" / "sweep", "--output_dir"):
        code, _, [error] = run()
    assert (code, played.names) == (2, [])
    assert "is in use by another process: wait for it, or name another --output_dir" in error
    assert run()[0] == 0


def test_a_name_that_no_folder_can_have_stops_the_sweep(run, played, tmp_path):
    make_mvtec_ad(tmp_path / "ad", "a\nb")
    code, _, [error] = run(place=("mvtec_ad", tmp_path / "ad"))
    assert (code, played.names) == (2, [])
    assert "rename it" in error


def test_hostile_names_are_trained_like_others(run, played, tmp_path):
    names = sorted(["-x", "$(touch x)", "a'b\"c", "--overwrite", "x;y|z"])
    for name in names:
        make_mvtec_ad(tmp_path / "ad", name)
    code, out, _ = run(place=("mvtec_ad", tmp_path / "ad"))
    assert (code, sorted(played.names)) == (0, names)
    assert all(name in out for name in names)


def test_a_check_of_a_grid_says_what_main_says_of_each_task(run, played, outcome, data, tmp_path):
    code, out, errors = run("--check", "--grid", "batch_size=1,2")
    assert (code, errors, played.names) == (0, [], [])
    assert not (tmp_path / "out").exists()
    line = ["--mvtec_ad_path", data, "--output_dir", tmp_path / "out", *QUICK, "--check"]
    said = [
        outcome(main, [*line, "--batch_size", size, "--subdataset", name])[1]
        for size in (1, 2)
        for name in ("bottle", "two words")
    ]
    assert out == "".join(said)


def test_a_check_names_each_task_that_could_not_begin(run, tmp_path):
    for name in ("bottle", "empty"):
        make_mvtec_ad(tmp_path / "ad", name)
    for image in [*(tmp_path / "ad" / "empty" / "train" / "good").iterdir()][1:]:
        image.unlink()
    code, out, errors = run("--check", "--seeds", "0", "1", place=("mvtec_ad", tmp_path / "ad"))
    assert (code, out.count("ready: bottle")) == (1, 2)
    assert [line.split(": ")[1] for line in errors] == ["empty seed=0", "empty seed=1"]


def test_a_report_is_one_page_of_all_points(run, played, tmp_path):
    assert run("--report", "--seeds", "3", "4")[0] == 2  # there are no detectors to draw with
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert page.count("<html") == 1
    for text in ("bottle", "two words", "seed=3", "seed=4"):
        assert text in page


@pytest.fixture
def slots(monkeypatch) -> list[int]:
    """Return how many slots sweeps have had on a machine of three GPUs."""
    numbers: list[int] = []
    monkeypatch.setattr(sweep, "device_count", lambda: 3)

    class Counted(local.LocalExecutor):
        def __init__(self, slots: list):
            numbers.append(len(slots))
            super().__init__(slots)

    monkeypatch.setattr(sweep, "LocalExecutor", Counted)
    return numbers


@pytest.mark.parametrize(
    ("more", "gpus", "number"),
    [
        ((), "", 3),
        ((), "0,1", 2),
        (("--gpus_per_run", "0.25"), "1", 4),
        (("--device", "cpu"), "", 1),
        (("--device=cpu",), "0,1", 2),
        (("--device", "cpu", "--cpus_per_run", "1"), "", os.cpu_count()),
    ],
)
def test_slots_are_those_of_all_gpus_or_of_what_is_named(
    outcome, data, tmp_path, played, slots, monkeypatch, more, gpus, number
):
    monkeypatch.setenv("GPUS", gpus)
    line = ["mvtec_ad", data, *QUICK[:-2], *more, "--output_dir", tmp_path]
    assert outcome(sweep, line)[0] == 0
    assert slots == [number]


def test_a_device_may_be_named_in_a_file(outcome, data, tmp_path, played, slots):
    (tmp_path / "a.yaml").write_text("datasets: {mvtec_ad: }\noptions: {device: cpu}\n")
    line = [tmp_path / "a.yaml", "--mvtec_ad_path", data, *QUICK[:-2], "--output_dir", tmp_path]
    assert outcome(sweep, line)[0] == 0
    assert slots == [1]

"""What no sweep can be: every fault in one line that names its place, and nothing begun."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import main
from data.samples import InputError, is_plain
from sweeping.axes import label_of, read_axis
from sweeping.description import Chosen, read_sweep
from sweeping.grid import Grid, Point, points_of, tasks_of
from tests.sweeping.sweeps import PLACE, grid_of, written

VISA = "datasets: {visa: }\n"
PARSER = main.get_parser()


def faults_of(*sweep, **more) -> list[str]:
    with pytest.raises(InputError) as caught:
        grid_of(*sweep, **more)
    return [*caught.value.args]


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        (("mvtec_ad",), "DATASET PATH"),
        (("mvtec_ad", "a", "b"), "DATASET PATH"),
        (("imagenet", "."), "there is no dataset imagenet: choose one of mvtec_loco"),
        (("mvtec_ad", "~nobody-at-all/ad"), "~nobody-at-all"),
        (("nowhere.yaml",), "cannot read nowhere.yaml"),
    ],
)
def test_a_command_line_that_names_no_sweep(sweep, said):
    [fault] = faults_of(*sweep)
    assert said in fault


def test_a_command_line_without_any_name():
    with pytest.raises(InputError, match="DATASET PATH"):
        read_sweep([])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "datasets, seeds, grid, options"),
        ("- visa", "datasets, seeds, grid, options"),
        ("seeds: [1]", "datasets is missing"),
        ("datasets: [visa]", "datasets must hold lines"),
        (VISA + "grid: [model]", "grid must hold lines"),
        (VISA + "options: fast", "options must hold lines"),
        (VISA + "seed: [1]", "there is no seed: seeds?"),
        (VISA + "zzz: 1", "there is no zzz: choose of datasets"),
        ("datasets: {vysa: }", "there is no dataset vysa"),
        ("datasets: {visa: {paht: a}}", "visa: there is no paht: path?"),
        ("datasets: {visa: here}", "visa must hold lines"),
        ("datasets: {visa: {path: [a]}}", "visa: path must be"),
        ('datasets: {visa: {path: "a\\0b"}}', "visa: path must be"),
        ("datasets: {visa: {categories: []}}", "categories must be a list"),
        ("datasets: {visa: {categories: pcb1}}", "categories must be a list"),
        ("datasets: {visa: {categories: [a, ../b]}}", "'../b' can be no category"),
        ('datasets: {visa: {categories: ["a\\nb"]}}', "can be no category"),
        ("datasets: {visa: {categories: [[a]]}}", "['a'] can be no category"),
        ("datasets: {visa: {categories: [a, a]}}", "a category is there twice"),
        (VISA + "seeds: []", "seeds: seed must have a list of values"),
        (VISA + "seeds: 3", "seeds: seed must have a list of values"),
        (VISA + "seeds: [1, 01]", "seeds: seed=01: the same value"),
        (VISA + "seeds: [one]", "seeds: seed=one: argument --seed"),
        (VISA + "seeds: [null]", "seeds: seed=None: seed cannot"),
        (VISA + "grid: {model: }", "grid: model must have a list of values"),
        (VISA + "grid: {model: []}", "grid: model must have a list of values"),
        (VISA + "grid: {model: [[glae]]}", "grid: model=['glae']: model cannot"),
        (VISA + "grid: {mdoel: [glae]}", "grid: there is no option --mdoel: --model?"),
        (VISA + "grid: {image_size: [[]]}", "grid: image_size=[]: image_size cannot"),
        (VISA + "grid: {image_size: [[--help]]}", "image_size cannot"),
        (VISA + "options: {trian_steps: 1}", "options: there is no option --trian_steps"),
        (VISA + "options: {train_steps: many}", "options: argument --train_steps"),
        (VISA + "options: {output_dir: a}", "options: output_dir cannot be set here"),
        (VISA + "options: {subdataset: a}", "options: subdataset cannot be set here"),
        (VISA + "options: {visa_path: a}", "options: visa_path cannot be set here"),
        (VISA + "options: {resume: true}", "options: resume cannot be set here"),
        (VISA + "options: {seed: 1}\nseeds: [1]", "options: seed is varied"),
        (VISA + "options: {model: glae}\ngrid: {model: [glae]}", "options: model is varied"),
        ("datasets: &a {visa: }\noptions: *a", "aliases"),
        ("#" * 100_000, "at most 65536 bytes"),
        ("!!python/object/apply:os.mkdir [planted]", "YAML"),
        ("datasets: {[a]: b}", "YAML"),
    ],
    ids=lambda text: text[:40],
)
def test_a_file_that_is_no_sweep_is_named_with_what_is_wrong(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, text)
    [fault] = faults_of(path)
    assert fault.startswith(str(path))
    assert said in fault
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "name",
    [
        *("resume", "overwrite", "check", "report", "debug", "help", "dataset", "subdataset"),
        *("output_dir", "visa_path", "imagenet_train_path", "device", "device_gpu"),
    ],
)
def test_where_things_lie_and_what_a_flag_says_cannot_be_varied(name):
    [fault] = faults_of(grid=[f"{name}=a,b"])
    assert fault == f"--grid: {name} cannot be varied: take it out of the grid"


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("model", "--grid model: write NAME=VALUE,VALUE"),
        ("model=glae,resnet", "--grid: model=resnet: argument --model: invalid choice"),
        ("model=glae,", "--grid: model=: argument --model: invalid choice"),
        ("model=glae,glae", "--grid: model=glae: the same value is there twice"),
        ("learning_rate=1e-4,0.0001", "--grid: learning_rate=0.0001: the same value"),
        ("image_size=64,064", "--grid: image_size=064: the same value"),
        ("seed=1,2", "--grid: seed stands in seeds"),
        ("weights=a/t.pth,b/t.pth", "--grid: weights=b/t.pth: its folder would be called t.pth"),
        ("weights=a.pth,A.PTH", "would be called A.PTH, and another's a.pth"),
        ("weights=a,..", "'..' cannot name a folder"),
        ("weights=a,b/.hidden", "'.hidden' cannot name a folder"),
        ("weights=a,b\\c", "cannot name a folder"),
        ("weights=a,b\nc", "cannot name a folder"),
        ("weights=a,é" + "é" * 50, "cannot name a folder"),
        ("unlabelled=a,b/c", "'b/c' cannot name a folder"),
        ("unlabelled=a,b=c", "'b=c' cannot name a folder"),
    ],
)
def test_a_grid_of_the_command_line_that_cannot_be(grid, said):
    [fault] = faults_of(grid=[grid])
    assert said in fault


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--trian_steps", "1"), "there is no option --trian_steps: --train_steps?"),
        (("--train_steps", "many"), "argument --train_steps"),
        (("--model=glae",), "--model is varied by the sweep, too"),
        (("--seed", "3"), "--seed is varied by the sweep, too"),
        (("--subdataset", "a"), "--subdataset is none of a sweep's"),
        (("--dataset=visa",), "--dataset is none of a sweep's"),
    ],
)
def test_arguments_for_main_that_cannot_be(more, said):
    [fault] = faults_of(more=more, seeds=[1], grid=["model=glae"])
    assert said in fault


def test_every_fault_is_told_at_once(tmp_path):
    text = "datasets: {vysa: , visa: {categories: []}}\nseeds: [1, 1]\noptions: {a: 1, model: glae}"
    grid = ["model=resnet,glae,glae", "model=glae", "oops"]
    faults = faults_of(written(tmp_path, text), grid=grid, more=("--trian_steps", "1"))
    said = ["option --a", "--trian_steps", "vysa", "categories", "write NAME", "seed=1: the same"]
    said += ["model=resnet", "model=glae: the same", "model is there twice", "model is varied"]
    assert len(faults) == len(said)
    assert all(part in fault for part, fault in zip(said, faults, strict=True)), faults


def test_a_point_that_main_would_refuse_is_named_once_with_the_first_that_has_it():
    grid = ["image_size=256,32", "model=efficientad,glae"]
    faults = faults_of(seeds=[0, 1], grid=grid, more=("--batch_size", "0"))
    batch, size, *_ = faults
    assert batch.startswith("image_size=256,model=efficientad/seed=0: --batch_size must be")
    assert size.startswith("image_size=32,model=efficientad/seed=0: --image_size: ")
    assert len(faults) == len({fault.partition(": ")[2] for fault in faults})
    assert all(fault.partition(": ")[0].endswith("seed=0") for fault in faults)


def test_no_more_trainings_than_anybody_means():
    seeds = [*range(101)]
    with pytest.raises(InputError, match="has 10100 trainings, more than 10000"):
        grid_of(seeds=seeds, grid=[f"train_steps={','.join(map(str, range(100)))}"])
    grid = Grid((Chosen(*PLACE),), (Point("", ()),) * 5001)
    with pytest.raises(InputError, match="has 10002 trainings"):
        tasks_of(grid, lambda *_: ["a", "b"])


def test_a_folder_of_many_options_is_not_too_long_for_file_systems():
    grid = [f"{name}={'a' * 90}" for name in ("weights", "unlabelled", "ignore")]
    with pytest.raises(InputError, match="too long for a folder: vary fewer"):
        grid_of(grid=grid)


VALUE = st.text("aA+.,=/", min_size=1, max_size=3)
VALUES = st.lists(VALUE | st.lists(VALUE, min_size=1, max_size=2), min_size=1, max_size=3)


@settings(deadline=None, max_examples=300)
@given(VALUES, VALUES)
def test_whatever_values_are_called_each_point_has_a_plain_folder_of_its_own(first, second):
    axes = {}
    for name, values in (("unlabelled", first), ("labelled", second)):
        try:
            axes[name] = read_axis(PARSER, name, values)
        except InputError:
            return
    folders = [point.folder.casefold() for point in points_of(axes, [], [])]
    assert len({*folders}) == len(folders) == len(first) * len(second)
    assert all(is_plain(folder) for folder in folders)


@given(st.text(max_size=120))
@settings(deadline=None)
def test_a_label_leads_nowhere_else(text):
    try:
        label = label_of(text)
    except InputError:
        return
    assert is_plain(label)
    assert not re.search(r"[\\/:*?\"<>|=,\x00-\x1f]|\.\.|\.$|^ | $", label)
    assert len(label.encode()) <= 100

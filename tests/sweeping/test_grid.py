"""A sweep's grid: what its tasks are, in which order, where each lies, what main.py is told."""

import pickle
from pathlib import Path

import pytest

import main
from data.catalog import DATASETS, find_all
from data.samples import InputError
from sweeping.description import Chosen
from sweeping.grid import Grid, Point, Task, tasks_of
from tests.conftest import REPOSITORY, make_mvtec_ad, make_product
from tests.sweeping.sweeps import grid_of, written
from utils.presets import parse

SWEEPS = REPOSITORY / "configs" / "sweeps"
FILE = """
datasets:
  visa: {path: "s3://bucket/VisA", categories: [pcb2, pcb1]}
  demo:
seeds: [0, 1]
grid:
  model: [glae, efficientad]
  image_size: [64, [64, 96]]
options:
  train_steps: 7
  experts: [student, autoencoder]
"""


def folders(grid: Grid) -> list[str]:
    return [point.folder for point in grid.points]


def there_are(*names: str):
    """Stand for looking into a data set."""
    return lambda dataset, root: [*names]


def test_a_data_set_alone_is_one_point_in_the_output_folder_itself():
    grid = grid_of("visa", "./VisA", more=("--model_size", "small", "--image_size", "64", "96"))
    arguments = ("--model_size", "small", "--image_size", "64", "96")
    assert grid == Grid((Chosen("visa", "./VisA"),), (Point("", arguments),))
    tasks = tasks_of(grid, there_are("pcb1", "pcb2"))
    assert tasks == [Task(name, "visa", "./VisA", name, "", arguments) for name in ("pcb1", "pcb2")]
    assert [task.name for task in tasks] == ["pcb1", "pcb2"]


def test_a_file_says_what_is_trained_and_the_command_line_speaks_last(tmp_path):
    grid = grid_of(written(tmp_path, FILE), more=("--train_steps=9", "--workers", "1"))
    first, last = grid.points[0], grid.points[-1]
    fixed = ("--train_steps=7", "--experts", "student", "autoencoder")
    more = ("--train_steps=9", "--workers", "1")
    varied = ("--model=efficientad", "--image_size", "64", "96", "--seed=1")
    assert first.arguments == (*fixed, "--model=glae", "--image_size=64", "--seed=0", *more)
    assert last.arguments == (*fixed, *varied, *more)
    assert parse(main.get_parser(), [*last.arguments]).train_steps == 9
    assert grid.datasets == (
        Chosen("visa", "s3://bucket/VisA", ("pcb2", "pcb1")),
        Chosen("demo", None),
    )


def test_the_demo_lies_nowhere_else():
    assert grid_of("demo", "anywhere").datasets == (Chosen("demo", None),)


def test_every_category_and_model_of_one_seed_comes_before_the_next_seed(tmp_path):
    grid = grid_of(written(tmp_path, FILE))
    names = {"visa": ["pcb1", "pcb2", "pcb3"], "demo": ["kit"]}
    tasks = tasks_of(grid, lambda dataset, root: names[dataset])
    assert [task.name for task in tasks][:4] == [
        "visa/pcb2 model=glae,image_size=64/seed=0",
        "visa/pcb1 model=glae,image_size=64/seed=0",
        "demo/kit model=glae,image_size=64/seed=0",
        "visa/pcb2 model=glae,image_size=64+96/seed=0",
    ]
    assert [task.point.endswith("seed=0") for task in tasks] == [True] * 12 + [False] * 12
    assert len({(task.category, task.point) for task in tasks}) == len(tasks)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"seeds": [3]}, ["seed=3"]),
        ({"seeds": [1, 0]}, ["seed=1", "seed=0"]),
        ({"grid": ["model=glae"]}, ["model=glae"]),
        (
            {"seeds": [0, 1], "grid": ["model=glae,efficientad", "model_size=small"]},
            [
                "model=glae,model_size=small/seed=0",
                "model=efficientad,model_size=small/seed=0",
                "model=glae,model_size=small/seed=1",
                "model=efficientad,model_size=small/seed=1",
            ],
        ),
        ({"grid": ["image_size=256,256 512"]}, ["image_size=256", "image_size=256+512"]),
        ({"grid": ["weights=small,a b/teacher.pth"]}, ["weights=small", "weights=teacher.pth"]),
        ({"grid": ["learning_rate=1e-3,0.0002"]}, ["learning_rate=0.001", "learning_rate=0.0002"]),
    ],
    ids=str,
)
def test_a_points_folder_is_called_by_what_was_asked_for_alone(asked, expected):
    assert folders(grid_of(**asked)) == expected


def test_a_list_of_the_command_line_reaches_main_as_one():
    options = [
        parse(main.get_parser(), [*point.arguments])
        for point in grid_of(grid=["image_size=256,256 512", "weights=a b/t.pth"]).points
    ]
    assert [o.image_size for o in options] == [[256], [256, 512]]
    assert options[0].weights == Path("a b/t.pth")


def test_the_command_lines_seeds_stand_for_a_files_and_its_grid_beside(tmp_path):
    grid = grid_of(written(tmp_path, FILE), seeds=[5], grid=["ridge=0.5"])
    assert folders(grid)[0] == "model=glae,image_size=64,ridge=0.5/seed=5"
    assert len(grid.points) == 4


def test_a_path_on_the_command_line_is_the_data_sets_and_no_argument_of_a_point(tmp_path):
    text = "datasets: {visa: {path: here}, mvtec_ad: , demo: }"
    more = ("--visa_path", "s3://bucket/data", "--image_size", "64", "96", "--mvtec_ad_path=~/ad")
    grid = grid_of(written(tmp_path, text), more=more)
    roots = {chosen.dataset: chosen.root for chosen in grid.datasets}
    assert roots == {"visa": "s3://bucket/data", "mvtec_ad": "~/ad", "demo": None}
    assert grid.points[0].arguments == ("--image_size", "64", "96")


def test_presets_may_be_varied_and_be_among_the_options(tmp_path):
    paper = "[configs/paper/glae.yaml, configs/paper/efficientad_s.yaml]"
    text = (
        f"datasets: {{visa: }}\ngrid: {{config: {paper}}}\noptions: {{config: configs/fast.yaml}}"
    )
    grid = grid_of(written(tmp_path, text))
    assert folders(grid) == ["config=glae.yaml", "config=efficientad_s.yaml"]
    read = [parse(main.get_parser(), [*point.arguments]) for point in grid.points]
    assert [(o.model, o.model_size, o.train_steps) for o in read] == [
        ("glae", "medium", 65_000),
        ("efficientad", "small", 70_000),
    ]


def test_what_is_there_is_found_and_all_that_is_missing_named(tmp_path):
    for name in ("bottle", "tile"):
        make_mvtec_ad(tmp_path / "ad", name)
    make_product(tmp_path / "bolt")
    assert find_all("mvtec_ad", str(tmp_path / "ad")) == ["bottle", "tile"]
    assert find_all("folder", str(tmp_path / "bolt")) == ["bolt"]
    text = (
        f"datasets: {{mvtec_ad: {{path: {tmp_path}/ad, categories: [tile, cup]}}, visa: , demo: }}"
    )
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        tasks_of(grid_of(path, more=("--visa_path", str(tmp_path / "none"))), find_all)
    cup, visa = caught.value.args
    assert cup == "mvtec_ad has no category cup: choose of bottle, tile"
    assert visa.startswith(f"--visa_path {tmp_path / 'none'} does not exist")


def test_a_category_that_could_leave_the_output_is_refused():
    with pytest.raises(InputError, match=r"'\.\./up'.*rename"):
        tasks_of(grid_of(), there_are("bottle", "../up"))


def test_a_task_travels_between_processes():
    task = tasks_of(grid_of(seeds=[2]), there_are("bottle"))[0]
    assert pickle.loads(pickle.dumps(task)) == task


@pytest.mark.parametrize(("name", "count"), [("loco", 30), ("all", 192), ("quick", 32)])
def test_the_shipped_sweeps_are_of_all_published_categories(name, count):
    tasks = tasks_of(
        grid_of(SWEEPS / f"{name}.yaml", more=("--visa_path", "V")),
        lambda dataset, root: [*DATASETS[dataset].categories],
    )
    assert len(tasks) == count
    assert {task.root for task in tasks if task.dataset == "visa"} <= {"V"}
    settings = {
        (o.model, o.model_size, o.train_steps)
        for o in (parse(main.get_parser(), [*line]) for line in {task.arguments for task in tasks})
    }
    paper = {("glae", "medium", 65_000), ("efficientad", "medium", 70_000)}
    assert settings == ({("glae", "small", 0)} if name == "quick" else paper)


def test_no_shipped_sweep_is_left_out_here():
    assert {path.stem for path in SWEEPS.iterdir()} == {"loco", "all", "quick"}

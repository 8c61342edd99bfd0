"""Tables over several outputs: seeds are averaged, models, options and products are not."""

import copy
import csv
import io
import json

import pytest

from evaluation.groups import grouped
from evaluation.tables import print_tables
from tests.evaluation.made_up import made_up

GLAE = {"model": "glae", "train_steps": 500, "penalty": False, "experts": ["student"]}


def result(seed: int, images: str | None = None, **options) -> dict:
    metrics = made_up("mvtec_ad", seed)
    metrics["glae"] |= {"seed": seed, "options": GLAE | options}
    metrics["glae"] |= {"images": images} if images else {}
    return metrics


def run(seed: int, images: str | None = None, **options) -> dict:
    """Return one output's categories."""
    names = ("bottle", "cable")
    return {name: result(10 * seed + place, images, **options) for place, name in enumerate(names)}


def test_seeds_of_one_model_are_one_group():
    runs = [run(0), run(1), run(2)]
    assert grouped(runs) == {"": runs}


@pytest.mark.parametrize(
    ("other", "names"),
    [
        ({"model": "efficientad"}, ["model glae", "model efficientad"]),
        ({"train_steps": 1000}, ["train_steps 500", "train_steps 1000"]),
        (
            {"model": "efficientad", "penalty": True},
            ["model glae, penalty False", "model efficientad, penalty True"],
        ),
        (
            {"experts": ["position", "composition"], "penalty": None},
            ["penalty False, experts student", "penalty none, experts position composition"],
        ),
    ],
)
def test_what_differs_in_more_than_the_seed_is_named_by_it(other, names):
    runs = [run(0), run(1, **other), run(2), run(3, **other)]
    assert grouped(runs) == dict(zip(names, ([runs[0], runs[2]], [runs[1], runs[3]]), strict=True))


def test_two_products_of_one_name_are_never_averaged():
    groups = grouped([run(0, images="aa11"), run(1, images="bb22")])
    assert list(groups) == ["images aa11", "images bb22"]


def test_runs_without_a_common_category_are_told_apart_by_their_options():
    """No row may be named by a model that it is not."""
    one, other = {"bottle": result(0, "aa")}, {"cable": result(1, "bb", model="efficientad")}
    assert grouped([one, other]) == {"model glae": [one], "model efficientad": [other]}
    same = {"cable": result(2, "bb")}
    assert grouped([one, same]) == {"": [one, same]}


def test_another_teacher_makes_another_model():
    runs = [run(0, teacher="aa11"), run(1, teacher="bb22")]
    assert list(grouped(runs)) == ["teacher aa11", "teacher bb22"]


def test_a_run_of_a_version_that_stored_no_options_is_taken_as_a_seed():
    old = run(1)
    for metrics in old.values():
        del metrics["glae"]["options"]
    assert list(grouped([run(0), old])) == [""]


def test_a_group_that_says_nothing_of_an_option_is_not_named_by_it():
    """As exported files, which do not know how they were trained."""
    runs, exported = [run(0, file="a"), run(1, file="a", train_steps=9)], run(2)
    for metrics in exported.values():
        metrics["glae"]["options"] = {"file": "b"}
    names = ["train_steps 500, file a", "train_steps 9, file a", "file b"]
    assert list(grouped([*runs, exported])) == names
    names = ["file b", "file a, train_steps 500", "file a, train_steps 9"]
    assert list(grouped([exported, *runs])) == names


def test_categories_may_have_other_options_in_one_output():
    mixed = run(0)
    mixed["cable"]["glae"]["options"] = GLAE | {"train_steps": 9}
    other = copy.deepcopy(mixed)
    assert list(grouped([mixed, other])) == [""]


def test_a_table_shows_models_side_by_side_each_with_a_mean(capsys):
    runs = [{"mvtec_ad": run(seed, model=m)} for seed, m in enumerate(("glae", "efficientad"))]
    print_tables(runs, "github")
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == [
        f"{category}, model {model}"
        for category in ("bottle", "cable", "mean")
        for model in ("glae", "efficientad")
    ]
    bottle = runs[0]["mvtec_ad"]["bottle"]["classification_au_roc"]
    assert lines[0].split("|")[2].strip() == f"{100 * bottle:.1f}"  # and no ±
    print_tables(runs, "json")
    records = json.loads(capsys.readouterr().out)
    assert [record["model"] for record in records[:2]] == ["model glae", "model efficientad"]
    print_tables(runs, "csv")
    assert "model" in next(csv.reader(io.StringIO(capsys.readouterr().out)))


def test_an_image_that_could_not_be_read_is_told_below_the_table(capsys):
    metrics = result(0)
    metrics["glae"]["unreadable"] = ["cannot read the image 3.png"]
    print_tables([{"mvtec_ad": {"bottle": metrics}}], "simple")
    assert "bottle: unreadable test images, left out: 1" in capsys.readouterr().out

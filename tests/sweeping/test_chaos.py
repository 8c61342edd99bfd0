"""A sweep on a cluster that loses nodes and drivers ends as one that nothing has disturbed."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.sweeping.chaos import CATEGORIES, Driver, Training, make_world, node_of, sweeping
from tests.sweeping.cluster import Nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STEPS = 40
GRID = ["--grid", "model=glae,efficientad", "--seeds", "0", "1"]
GRID += ["--train_steps", STEPS, "--checkpoint_every", "5"]
POINTS = [f"model={model}/seed={seed}" for model in ("glae", "efficientad") for seed in (0, 1)]
TASKS = {f"{name} {point}" for name in CATEGORIES for point in POINTS}
END = "test images are called anomalous"  # in what main.py says of its result, last of all


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(world) -> Driver:
    """A sweep on this machine, without Ray."""
    with sweeping(world, world / "undisturbed", *GRID) as driver:
        assert driver.wait() == 0, driver.said
    return driver


def numbers(driver: Driver) -> dict[str, object]:
    """Return all that a sweep has computed, by file."""
    output, table = driver.home / "output", (driver.home / "table.txt").read_text()
    found = {"table": table.replace(str(driver.home), "")}
    for file in output.rglob("metrics/**/*.json"):
        metrics = json.loads(file.read_text())
        metrics["glae"].pop("seconds")
        found[str(file.relative_to(output))] = metrics
    for file in output.rglob("results/**/*.csv"):
        rows = [*csv.DictReader(file.read_text().splitlines())]
        found[str(file.relative_to(output))] = [row | {"seconds": None} for row in rows]
    for pattern in ("losses.csv", "*.tiff"):
        for file in output.rglob(pattern):
            found[str(file.relative_to(output))] = file.read_bytes()
    for file in output.rglob("detector.safetensors"):
        tensors = {name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()}
        found[str(file.relative_to(output))] = tensors
    return found


def lose_a_node(driver: Driver, nodes: Nodes) -> None:
    """Kill a node in the middle of its training, as soon as there is one; start another."""

    def training_in_the_middle() -> Training | None:
        found = [one for one in driver.trainings() if STEPS / 4 <= one.saved <= STEPS / 2]
        return next(iter(found), None)

    training = driver.wait_for(training_in_the_middle)
    nodes.kill(node_of(training, nodes))
    training.process.wait(5)
    assert training.run.checkpoint_file.exists()
    assert not training.run.detector_file.exists()
    nodes.add()


def test_two_nodes_and_a_driver_are_killed_and_every_number_is_as_without(
    world, undisturbed, ray_cluster: Nodes
):
    home, line = world / "disturbed", [*GRID, "--ray", ray_cluster.address]
    with sweeping(world, home, *line) as driver:
        lose_a_node(driver, ray_cluster)
        driver.wait_for(lambda: driver.tasks("done"))
        trainings = driver.wait_for(lambda: [one for one in driver.trainings() if one.saved])
        driver.process.kill()
        for training in trainings:
            training.process.wait(10)
    with sweeping(world, home, *line) as driver:
        lose_a_node(driver, ray_cluster)
        assert driver.wait() == 0, driver.said

    assert {*driver.tasks("done"), *driver.tasks("found")} == TASKS
    assert max(Counter(driver.tasks("done")).values()) == 1
    assert len(driver.tasks("lost")) == 2
    assert driver.tasks("failed") == []
    assert driver.said.count("is lost, it goes on elsewhere") == 2
    logs = {file: file.read_text() for file in home.rglob("logs/**/*.log")}
    assert [text.count(END) for text in logs.values()] == [1] * len(TASKS)
    assert sum(text.count("main.py --dataset") for text in logs.values()) >= len(TASKS) + 2
    expected = numbers(undisturbed)
    assert len(expected) == 1 + 12 * (4 + 6)
    assert numbers(driver) == expected

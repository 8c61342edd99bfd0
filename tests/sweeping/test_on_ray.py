"""A sweep on Ray: Ctrl-C, a node that joins, a need that no node has."""

import subprocess
from pathlib import Path

import pytest

from tests.sweeping.chaos import Driver, make_world, sweeping
from tests.sweeping.cluster import Nodes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("interruptible")]
ENDLESS = ["--train_steps", "100000", "--checkpoint_every", "5"]
SAVED = "interrupted: the same command goes on from here"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def test_ctrl_c_saves_what_runs_and_takes_back_what_waits(world, tmp_path, ray_cluster: Nodes):
    line = [*ENDLESS, "--seeds", "0", "1", "--ray", ray_cluster.address]
    with sweeping(world, tmp_path, *line) as driver:
        driver.wait_for(lambda: len(driver.tasks("begun")) == 3)  # of 6, on three nodes
        ray_cluster.add()  # a node that joins gets work, too
        driver.wait_for(lambda: len(driver.tasks("begun")) == 4)
        trainings = driver.wait_for(lambda: all_train(driver, 4))
        driver.interrupt()
        assert driver.wait() == 130
        assert driver.trainings() == []
    assert driver.said.splitlines()[-1] == SAVED
    assert len(driver.tasks("begun")) == 4
    assert len(driver.tasks("stopped")) == 6
    assert driver.tasks("failed") == driver.tasks("lost") == []
    assert len([*tmp_path.rglob("logs/**/*.log")]) == 4
    steps = {one.run.folder: one.saved for one in trainings}

    with sweeping(world, tmp_path, *line) as driver:
        trainings = driver.wait_for(lambda: all_train(driver, 4))
        assert all(one.saved >= steps.get(one.run.folder, 5) for one in trainings)
        for one in trainings:
            one.process.suspend()  # so that it never saves
        driver.interrupt()
        driver.wait_for(lambda: "again stops at once" in driver.said.rpartition(SAVED)[2])
        with pytest.raises(subprocess.TimeoutExpired):
            driver.process.wait(3)
        driver.interrupt()
        assert driver.process.wait(20) == 130
        for one in trainings:
            one.process.wait(5)


def all_train(driver: Driver, count: int) -> list:
    """Return the trainings once as many have taken steps."""
    found = [one for one in driver.trainings() if one.saved]
    return found if len(found) == count else []


def test_a_need_that_no_node_has_is_told_at_once(world, tmp_path, ray_cluster: Nodes):
    line = ["--train_steps", "0", "--ray", ray_cluster.address, "--cpus_per_run", "99"]
    with sweeping(world, tmp_path, *line) as driver:
        assert driver.wait() == 2
    [error] = driver.said.splitlines()
    assert error.startswith("error: no node of the cluster has 0 GPUs, 99 cores and ")
    assert error.endswith("wait for its nodes, or lower --gpus_per_run or --cpus_per_run")
    assert not [*tmp_path.rglob("logs")]

"""What the fault suite shares: a world of images, and what an undisturbed run makes of it."""

from pathlib import Path

import pytest

from tests.faults.running import command, finish, make_world, run_of
from utils.runs import Run


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def finished(world: Path, output: Path, *more: str) -> Run:
    code, text = finish(command(world, output, *more), output / "log")
    assert code == 0, text
    return run_of(output)


@pytest.fixture(scope="session")
def undisturbed(world, tmp_path_factory) -> Run:
    """The run that nothing happens to."""
    return finished(world, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="session")
def undisturbed_with_penalty(world, tmp_path_factory) -> Run:
    more = ("--imagenet_train_path", str(world / "natural"))
    return finished(world, tmp_path_factory.mktemp("penalty"), *more)

"""What the fault suite shares: a world of images, and what an undisturbed run makes of it."""

from pathlib import Path

import pytest

from tests.faults.running import command, finish, make_world, run_of
from utils.runs import Run


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def undisturbed(world, tmp_path_factory) -> Run:
    """The run that nothing happens to."""
    output = tmp_path_factory.mktemp("undisturbed")
    code, text = finish(command(world, output), output / "log")
    assert code == 0, text
    return run_of(output)

"""What the fault suite shares: a world of images, and what an undisturbed run makes of it."""

from pathlib import Path

import pytest
import torch

import main
from models.pdn import pdn_small
from tests.conftest import make_product
from tests.distillation import distilling
from tests.faults.running import command, finish, make_world, run_of
from utils.presets import parse
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[list[str], Path]:
    """The command of a finished run, and its output folder."""
    folder = tmp_path_factory.mktemp("trained")
    make_product(folder / "bolt")
    torch.manual_seed(0)
    torch.save(pdn_small().state_dict(), folder / "teacher.pth")
    line = command(folder, folder / "out", "--train_steps", "4")
    main.main(parse(main.get_parser(), line))
    return line, folder / "out"


@pytest.fixture(scope="module")
def small_world(tmp_path_factory) -> Path:
    """Photographs and a backbone, of which a teacher is distilled."""
    return distilling.make_world(tmp_path_factory.mktemp("small_world"), 6)

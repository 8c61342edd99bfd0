"""Which folder may import which (the contracts in pyproject.toml), and how long a file may be."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

FOLDERS = ("benchmarks", "data", "deployment", "distillation", "evaluation", "models")
FOLDERS += ("prediction", "reporting", "scoring", "sweeping", "training")
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
UPWARDS = {
    "models/pdn.py": "from data.images import Size",
    "data/masks.py": "import torch, models.pdn",
    "utils/files.py": "from scoring.scorer import Scorer",
    "scoring/scorer.py": "from training import loop",
    "training/loop.py": "from evaluation.tables import rows",
    "evaluation/maps.py": "import prediction.predictor",
    "deployment/graph.py": "from evaluation.tables import rows",
    "evaluation/tables.py": "def late():\n    import distillation.loop",
}


@pytest.fixture
def copy(tmp_path) -> Path:
    """The packages and the contracts, to be spoilt."""
    for name in (*FOLDERS, "utils"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("*.s*"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def lint(run_command, folder: Path) -> subprocess.CompletedProcess:
    return run_command(["-c", LINT, "--no-cache"], folder)


def test_every_arrow_points_downwards_and_none_makes_a_circle(run_command):
    done = lint(run_command, REPOSITORY)
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("file", UPWARDS)
def test_an_arrow_that_points_upwards_is_named_with_file_and_line(run_command, copy, file):
    path = copy / file
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, UPWARDS[file]]) + "\n")
    line = len(lines) + UPWARDS[file].count("\n") + 1
    done = lint(run_command, copy)
    assert done.returncode == 1
    assert file.removesuffix(".py").replace("/", ".") in done.stdout
    assert f"(l.{line})" in done.stdout


@pytest.mark.parametrize(
    ("file", "code", "said"),
    [
        ("utils/files.py", "from utils.runs import Run", "No cycles are allowed in utils"),
        ("training/loop.py", "import main", "training.loop -> main"),
    ],
)
def test_a_circle_within_a_folder_and_an_imported_script_are_named(
    run_command, copy, file, code, said
):
    with (copy / file).open("a") as spoilt:
        spoilt.write(f"{code}\n")
    done = lint(run_command, copy)
    assert done.returncode == 1
    assert said in done.stdout


def test_every_folder_with_code_is_under_contract():
    with_code = {p.parent.name for p in REPOSITORY.glob("*/__init__.py")} - {"tests"}
    assert with_code == {*FOLDERS, "utils"}


def test_no_file_holds_two_topics():
    """A second topic begins at about 300 lines."""
    files = [*REPOSITORY.glob("*.py"), *REPOSITORY.glob("tests/**/*.py")]
    files += [path for name in (*FOLDERS, "utils") for path in REPOSITORY.glob(f"{name}/*.py")]
    lengths = {
        str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines()) for path in files
    }
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > 300} == {}
    assert lengths["main.py"] < 170

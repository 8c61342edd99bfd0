"""Each row of docs/faults.md is a test, and no test of a fault is missing there."""

import ast
import re
from pathlib import Path

from tests.conftest import REPOSITORY

HERE = Path(__file__).parent
TABLE = (REPOSITORY / "docs" / "faults.md").read_text()
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ") and "::" in line]


def names_of_tests(path: Path) -> set[str]:
    """Return the names of a file's tests."""
    nodes = ast.parse(path.read_text()).body
    return {n.name for n in nodes if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}


def test_each_row_names_tests_that_there_are():
    lines = [line for line in TABLE.splitlines() if line.startswith("| ")]
    assert len(ROWS) == len(lines) - TABLE.count("\n## ")  # a head each
    for row in ROWS:
        named = re.findall(r"`(\S+\.py)::(\w+)`", row)
        assert named, row
        for file, name in named:
            assert name in names_of_tests(HERE / file), row


def test_each_test_of_a_fault_is_in_a_row():
    for path in HERE.glob("test_*.py"):
        for name in names_of_tests(path) - names_of_tests(Path(__file__)):
            assert f"{path.name}::{name}`" in TABLE

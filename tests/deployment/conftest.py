"""What tests of exported files share: how export.py is called, and one file of each kind of run."""

from pathlib import Path

import pytest

import export
from utils.presets import parse


def run_export(*argv: object) -> int:
    """Run export.py in this process; return its exit code."""
    return export.main(parse(export.get_parser(), [*map(str, argv)]))


@pytest.fixture(scope="module")
def exported(alone) -> Path:
    """The file of a run of statistics alone."""
    assert run_export(alone.folder) == 0
    return alone.exports_folder / "detector.onnx"

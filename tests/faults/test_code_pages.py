"""A console and files of old code pages, as on Windows: names and dashes from anywhere."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from models.pdn import pdn_small
from tests.conftest import REPOSITORY, make_product
from tests.running_main import arguments
from utils.runs import Run

NAME = "端子"
MAIN = str(REPOSITORY / "main.py")
# What `open` does where no encoding is named, on a machine of another code page than this one.
CODEPAGE = """
import builtins, io, runpy, sys
real, name = io.open, io.text_encoding
def opened(file, mode="r", buffering=-1, encoding=None, *more, **named):
    encoding = "{page}" if "b" not in mode and encoding in (None, "locale") else encoding
    return real(file, mode, buffering, encoding, *more, **named)
builtins.open = io.open = opened
io.text_encoding = lambda encoding, stacklevel=2: encoding or "{page}"
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def line(tmp_path) -> list[str]:
    """Return the options of a short run of a product with a name in Japanese."""
    make_product(tmp_path / "data" / NAME)
    torch.save(pdn_small().state_dict(), tmp_path / "teacher.pth")
    return arguments(tmp_path / "data", tmp_path / "teacher.pth", tmp_path / "out")


def call(folder: Path, *line: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python with these arguments."""
    return subprocess.run(
        [sys.executable, *line],
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=folder,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", ["cp932", "cp949", "cp1252"])
def test_a_console_that_lacks_a_sign_shows_another_and_loses_no_file(line, tmp_path, page):
    done = call(tmp_path, MAIN, *line, PYTHONIOENCODING=page)
    assert done.returncode == 0, done.stderr
    assert b"AUROC" in done.stdout
    assert (tmp_path / "out" / "results.csv").is_file()
    again = call(tmp_path, str(REPOSITORY / "inference.py"), "out", PYTHONIOENCODING=page)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_every_file_is_utf_8_whatever_the_machines_code_page(line, tmp_path):
    done = call(tmp_path, "-c", CODEPAGE.format(page="cp1252"), MAIN, *line)
    assert done.returncode == 0, done.stderr
    run = Run(tmp_path / "out", "folder", NAME)
    assert yaml.safe_load(run.config_file.read_text(encoding="utf-8"))["subdataset"] == NAME
    assert json.loads(run.metrics_file.read_text(encoding="utf-8"))["glae"]["counts"]["test"] == 4
    rows = csv.DictReader((tmp_path / "out" / "results.csv").open(encoding="utf-8"))
    assert next(rows)["category"] == NAME

"""The project's version: git's word where there is one of ours, and never a failure."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

import main
from tests.running_main import arguments, run_main
from utils.options import deciding
from utils.presets import parse
from utils.runs import Run
from utils.version import VERSION, described, project_version

WITH_GIT = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *argv: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    line = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", folder, *argv]
    return subprocess.run(line, check=True, capture_output=True, text=True, env=own).stdout.strip()


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A repository of one commit."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "main.py").write_text("1\n")
    git(folder, "init", "-q")
    git(folder, "add", "main.py")
    git(folder, "commit", "-qm", "Begin")
    return folder


@WITH_GIT
def test_it_is_the_commit_or_the_tag_and_says_what_was_changed(checkout):
    assert described(checkout) == git(checkout, "rev-parse", "--short", "HEAD")
    git(checkout, "tag", "v2.5")
    assert described(checkout) == "v2.5"
    (checkout / "main.py").write_text("2\n")
    assert described(checkout) == "v2.5-dirty"


@WITH_GIT
@pytest.mark.parametrize("broken", [False, True])
def test_a_copy_within_another_repository_is_not_taken_for_it(checkout, monkeypatch, broken):
    copy = checkout / "vendored"
    copy.mkdir()
    if broken:
        (copy / ".git").mkdir()
    assert described(copy) is None
    monkeypatch.setenv("GIT_DIR", str(checkout / ".git"))  # as in a hook
    assert described(copy) is None


def test_without_git_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert described(tmp_path) is None


def test_a_git_that_hangs_is_not_waited_for(tmp_path, monkeypatch):
    hanging = tmp_path / "git"
    hanging.write_text("#!/bin/sh\nsleep 30\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    begun = time.monotonic()
    assert described(tmp_path) is None
    assert time.monotonic() - begun < 10


def test_a_run_stores_it_and_neither_a_preset_nor_resuming_minds(
    product, teacher, tmp_path, monkeypatch
):
    monkeypatch.setattr(main, "project_version", lambda: "v7-dirty")
    line = arguments(product, teacher, tmp_path)
    run_main(*line)
    run = Run(tmp_path, "folder", "bolt")
    stored = yaml.safe_load(run.config_file.read_text())
    assert stored["version"] == "v7-dirty"
    assert "version" not in deciding(stored)
    versions = json.loads(run.metrics_file.read_text())["glae"]["versions"]
    assert versions["project"] == project_version()
    assert not hasattr(parse(main.get_parser(), ["--config", str(run.config_file)]), "version")
    run_main(*line, "--resume")


def test_there_is_always_one():
    assert project_version()
    assert VERSION.count(".") == 1

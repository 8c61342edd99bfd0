"""Who writes the page: main.py --report, report.py, make demo; interrupted, twice, without room."""

import os
import pty
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import main
import report
from data.samples import InputError
from tests.conftest import REPOSITORY
from tests.reporting.visiting import NO_IMAGES, write
from tests.running_main import ALONE, arguments, run_main
from utils.presets import parse

SCORES = {"good": [0.1, 0.4, 1.2], "dent": [0.9, 3.0]}


@pytest.fixture
def again(product, teacher, alone) -> list[str]:
    """The command that evaluates a finished run again, and writes its report."""
    return arguments(product, teacher, alone.output, *ALONE, "--precision", "fp32", "--resume")


def test_a_training_writes_the_page_after_its_table_and_says_where(again, alone, capsys):
    page = alone.output / "report" / "index.html"
    run_main(*again)
    assert not page.exists()
    run_main(*again, "--report")
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == f"wrote {page}"
    assert "index.html" not in shown.out
    assert f"{alone.subdataset}</" in page.read_text()
    assert "report" not in alone.read_config()


def test_a_report_that_cannot_be_written_costs_neither_table_nor_results(again, alone, outcome):
    folder = alone.output / "report"
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("a file")
    alone.metrics_file.unlink()
    code, out, errors = outcome(main, [*again, "--report"])
    assert (code, "bolt" in out) == (2, True)
    assert errors == [f"error: --output_dir {folder} cannot be written: File exists"]
    assert alone.metrics_file.exists()
    folder.unlink()


def test_what_the_page_lacks_is_a_line_and_exit_code_2(again, alone, outcome):
    damaged = alone.metrics_file.with_name("nut.json")
    damaged.write_text("")
    code, _, errors = outcome(main, [*again, "--report"])
    assert (code, len(errors)) == (2, 1)
    assert str(damaged) in errors[0]
    assert (alone.output / "report" / "index.html").exists()
    damaged.unlink()


@pytest.mark.parametrize("package", ["jinja2", "plotly.offline"])
def test_without_its_libraries_one_line_says_what_to_install(
    make_output, tmp_path, monkeypatch, package
):
    make_output(tmp_path, SCORES, 1.0)
    for name in [name for name in sys.modules if name.startswith("reporting.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}.*pip install -r requirements\.txt"):
        write([tmp_path], tmp_path / "report")


def test_of_several_that_write_at_once_one_whole_page_stays(make_output, tmp_path):
    make_output(tmp_path, SCORES, 1.0)
    with ThreadPoolExecutor(4) as pool:
        paths = [*pool.map(lambda _: write([tmp_path], tmp_path / "report")[0], range(4))]
    assert {*paths} == {tmp_path / "report" / "index.html"}
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]
    assert paths[0].read_text().rstrip().endswith("</html>")


def test_interrupted_the_former_page_stays(make_output, tmp_path, monkeypatch, outcome):
    make_output(tmp_path, SCORES, 1.0)
    page = tmp_path / "report" / "index.html"
    page.parent.mkdir()
    page.write_text("former")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        assert outcome(report, [tmp_path, *NO_IMAGES]) == (130, "", [])
    assert page.read_text() == "former"
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]


def test_what_a_killed_process_had_half_written_is_removed(make_output, tmp_path):
    make_output(tmp_path, SCORES, 1.0)
    dead, live = (tmp_path / f".index.html.{pid}.1.part" for pid in (2**22 + 1, os.getpid()))
    for part in (dead, live):
        part.write_text("half")
    write([tmp_path], tmp_path)
    assert (dead.exists(), live.exists()) == (False, True)


def test_a_preset_cannot_ask_for_a_report(tmp_path):
    (tmp_path / "mine.yaml").write_text("report: true\n")
    with pytest.raises(InputError, match="report cannot be set here"):
        parse(main.get_parser(), ["--config", str(tmp_path / "mine.yaml")])


@pytest.mark.parametrize("terminal", [True, False])
def test_make_demo_asks_for_a_report_in_a_terminal_alone(terminal):
    reader, writer = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "MAKE_TERMOUT"}
    line = ["make", "-n", "demo"]
    done = subprocess.run(
        line,
        cwd=REPOSITORY,
        env=environment,
        stdout=writer if terminal else subprocess.PIPE,
        check=True,
    )
    text = (os.read(reader, 2**16) if terminal else done.stdout).decode()
    assert ("main.py --dataset demo --resume --report" in text) == terminal
    for descriptor in (reader, writer):
        os.close(descriptor)

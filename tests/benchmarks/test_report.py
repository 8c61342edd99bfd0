"""benchmark.py report: what it makes up is whole, and what it measures is told."""

import json
import shutil

import pytest

import benchmark
from benchmarks.report import make_output
from data.samples import InputError
from reporting.collected import collect
from utils.presets import parse


def run(*argv: object) -> None:
    benchmark.main(parse(benchmark.get_parser(), ["report", *map(str, argv)]))


def test_what_is_made_up_is_a_whole_evaluation_with_its_images(tmp_path):
    made = make_output(tmp_path, 40, seed=0)
    (found,), faults = collect([made.output])
    assert faults == []
    images = {
        path.relative_to(tmp_path / "product" / "test").as_posix()
        for path in (tmp_path / "product" / "test").rglob("*.png")
    }
    assert {result.image for result in found.results} == images
    assert len(images) == 40


@pytest.mark.slow
def test_the_page_is_written_and_opened_as_a_user_would(capsys):
    pytest.importorskip("playwright.sync_api")
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    run("--images", 6, "--repeats", 2, "--json")
    result = json.loads(capsys.readouterr().out)
    for what in ("seconds_to_write", "seconds_to_open"):
        assert 0 < result[f"{what}_min"] <= result[what] <= result[f"{what}_max"]
    assert result["page_bytes"] > 4e6  # plotly's alone
    assert "processor" in result["machine"]


def test_bad_numbers_are_named_together():
    with pytest.raises(InputError, match=r"--images.*--repeats"):
        run("--images", 0, "--repeats", 0)

"""How a detector came about: its losses as they were logged, and nothing where there are none."""

import numpy as np
import pytest
import torch

from data.samples import InputError
from reporting.collected import collect
from reporting.page import write_page
from reporting.training import block_means, duration, read_losses, speed
from training.loss_log import LossLog

TERMS = ("hard", "autoencoder", "penalty")
DRAWN = "[...document.querySelector('.losses .chart').data].map(({name, x, y}) => [name, x, y])"


def log_losses(path, steps: int, finish: str = "") -> None:
    """Log losses of so many steps as a training does; the penalty is absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = LossLog(path, TERMS, 0, torch.device("cpu"), absent=["penalty"])
    for step in range(1, steps + 1):
        log.add(torch.tensor([step / 2, 1.0, 0.0]))
        log.write(1e-4)
    log.close()
    with path.open("a") as file:
        file.write(finish)


def test_losses_are_read_as_they_were_logged_but_for_a_row_cut_short(tmp_path):
    log_losses(tmp_path / "losses.csv", 3, "4,2.5,1.")
    losses = read_losses(tmp_path / "losses.csv")
    assert losses["step"].tolist() == [1, 2, 3]
    assert losses["total"].tolist() == [1.5, 2.0, 2.5]
    assert np.isnan(losses["penalty"]).all()


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "step,total\n1,x\n", "step,total\n1,inf\n", "step,total\n,1\n"]
)
def test_what_is_no_loss_log_is_named(tmp_path, text):
    (tmp_path / "losses.csv").write_text(text)
    with pytest.raises(InputError, match=r"losses\.csv is no loss log"):
        read_losses(tmp_path / "losses.csv")


def test_many_rows_are_thinned_to_means_with_their_last_step():
    steps = np.arange(1.0, 65_001)
    losses = {"step": steps, "total": 1 / steps, "penalty": np.full(65_000, np.nan)}
    thin = block_means(losses, 300)
    size = 217  # 65,000 / 300, rounded up
    assert thin.keys() == {"step", "total"}
    assert thin["step"] == [*range(size, 65_001, size), 65_000]
    means = [np.mean(1 / steps[start : start + size]) for start in range(0, 65_000, size)]
    assert thin["total"] == pytest.approx(means, rel=1e-5)


def test_curves_are_drawn_once_they_are_seen(make_output, open_page, tmp_path):
    for name in "ab":
        log_losses(make_output(tmp_path, {"good": [0.1], "dent": [2.0]}, 1.0, name).losses_file, 4)
    write_page(tmp_path / "index.html", *collect([tmp_path]))
    page = open_page(tmp_path / "index.html")
    assert page.evaluate("window.Plotly") is None
    page.get_by_role("heading", name="a", exact=True).click()
    page.locator(".losses .chart").first.scroll_into_view_if_needed()
    page.locator(".losses .chart .main-svg").first.wait_for()
    steps = [1, 2, 3, 4]
    assert page.evaluate(DRAWN) == [
        ["total", steps, [1.5, 2, 2.5, 3]],
        ["hard", steps, [0.5, 1, 1.5, 2]],
        ["autoencoder", steps, [1, 1, 1, 1]],
    ]
    assert page.locator("#dataset-0-1 .main-svg").count() == 0
    told = page.locator(".losses .chart").first.get_attribute("aria-label")
    assert told == "Loss curves. The total loss: 1.5 at step 1, 3 at step 4."


def test_losses_have_the_colours_of_the_page_in_light_and_dark(make_output, open_page, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    log_losses(make_output(tmp_path, {"good": [0.1], "dent": [2.0]}, 1.0).losses_file, 4)
    write_page(tmp_path / "index.html", *collect([tmp_path]))
    page = open_page(tmp_path / "index.html")
    page.locator(".losses .chart").scroll_into_view_if_needed()
    page.locator(".losses .chart .main-svg").first.wait_for()
    drawn = "[...document.querySelector('.losses .chart').data].map(({line}) => line.color)"
    chosen = "[1, 2, 3].map(n => getComputedStyle(document.body).getPropertyValue(`--series-${n}`))"
    light = page.evaluate(drawn)
    assert light == page.evaluate(chosen)
    page.emulate_media(color_scheme="dark")
    text = page.locator(".losses .legendtext").first
    playwright.expect(text).to_have_css("fill", "rgb(232, 234, 237)")  # --ink
    assert page.evaluate(drawn) == page.evaluate(chosen)
    assert not {*light} & {*page.evaluate(drawn)}


def test_statistics_alone_have_no_losses_and_a_damaged_log_is_told(
    make_output, open_page, tmp_path
):
    run = make_output(tmp_path, {"good": [0.1], "dent": [2.0]}, 1.0)
    found, faults = collect([tmp_path])
    write_page(tmp_path / "index.html", found, faults)
    page = open_page(tmp_path / "index.html")
    assert page.get_by_text("No network was trained").is_visible()
    assert page.get_by_text("10 ms an image, 100 images a second").is_visible()
    log_losses(run.losses_file, 0, "what is this\n1,2,3,4,5,x\n")
    write_page(tmp_path / "index.html", found, faults)
    assert [fault.split(",")[0] for fault in faults] == [f"{run.losses_file} is no loss log"]
    assert open_page(tmp_path / "index.html").locator(".faults li").count() == 1


def test_times_are_told_in_the_units_one_thinks_in():
    assert [duration(s) for s in (None, 0.5, 59, 61, 3600 * 5 + 90)] == [
        *("", "0.5 s", "59 s", "1 min 1 s", "5 h 1 min"),
    ]
    assert speed(0.25) == "250 ms an image, 4 images a second"
    assert speed(None) == ""

"""Charts in a browser: a threshold is moved, and the numbers are those of a count by hand."""

import numpy as np
import pytest

from evaluation.results import UNLABELLED, read_results_file, write_results
from reporting.collected import collect
from reporting.page import write_page
from tests.reporting.test_charts import keep, rates_by_hand

playwright = pytest.importorskip("playwright.sync_api")
GOOD_SCORES = [-1.0, 0.0, 0.5, 1.0, 2.0]
DENT, HOLE = [1.5, 4.0, 6.0], [3.0, 8.0]
TWO_DEFECTS = {"good": GOOD_SCORES, "dent": DENT, "hole": HOLE}
KEPT = [-1.0, 0.0, 0.25, 1.0, 1.75, 2.5, 3.5]
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    '"\'onmouseover="alert(3)',
    "<b>bold</b>&amp;%{x}",
    "\u202etner",
    "x" * 300,
)


@pytest.fixture
def charts(make_output, open_page, tmp_path):
    """What opens the page of a product of these scores; its charts have been in view."""

    def show(scores, threshold=1.0, kept=KEPT, change=lambda one: None, **options):
        make_output(tmp_path / "out", scores, threshold)
        found, faults = collect([tmp_path / "out"])
        keep(found[0], kept)
        change(found[0])
        write_page(tmp_path / "index.html", found, faults)
        page = open_page(tmp_path / "index.html", **options)
        for chart in page.locator(".charts .chart").all():
            chart.scroll_into_view_if_needed()
            chart.locator(".main-svg").first.wait_for()
        page.locator(".chart").first.evaluate("one => one.scrollIntoView({ block: 'center' })")
        return page

    return show


def matrix(page) -> list[list[str]]:
    rows = page.locator(".scores tbody tr").all()
    return [[cell.inner_text() for cell in row.locator("th, td").all()] for row in rows]


def by_hand(threshold: float, **groups: list[float]) -> list[list[str]]:
    """Count the images of each group that a threshold calls good, and those that it does not."""
    called = {name: sum(score > threshold for score in of) for name, of in groups.items()}
    return [[name, str(len(groups[name]) - high), str(high)] for name, high in called.items()]


def shown(threshold: float) -> list[list[str]]:
    return by_hand(threshold, **{"good": GOOD_SCORES, "all defects": DENT + HOLE})


def line(page) -> tuple[float, float]:
    """Return where the middle of the threshold's line is, in pixels."""
    box = page.locator(".scores .shapelayer path").first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def threshold_of(page) -> float:
    return float(page.locator(".scores input[type=number]").input_value())


def test_a_threshold_by_mouse_and_keyboard_changes_the_numbers_to_those_by_hand(charts):
    page = charts(TWO_DEFECTS)
    assert matrix(page) == shown(1.0) == [["good", "4", "1"], ["all defects", "0", "5"]]
    axis = "document.querySelector('.scores .chart').layout.xaxis.range.join()"
    before = page.evaluate(axis)
    x, y = line(page)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 300, y + 15, steps=4)
    playwright.expect(page.locator(".scores [type=number]")).not_to_have_value("1")
    assert matrix(page) == shown(threshold_of(page))  # while it is held
    page.mouse.move(x + 500, y + 15, steps=4)
    page.mouse.up()
    assert 3 < threshold_of(page) < 8
    assert matrix(page) == shown(threshold_of(page))
    assert line(page) == (pytest.approx(x + 500, abs=3), pytest.approx(y, abs=1))
    assert page.evaluate(axis) == before
    page.locator(".scores button").click()
    assert (threshold_of(page), matrix(page)) == (1.0, shown(1.0))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 40, steps=4)  # it is lifted only
    page.mouse.up()
    assert threshold_of(page) == 1.0
    assert line(page) == (pytest.approx(x, abs=1), pytest.approx(y, abs=1))

    page.locator(".scores input[type=range]").focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    assert threshold_of(page) > 1.0
    assert matrix(page) == shown(threshold_of(page))
    page.locator(".scores input[type=number]").fill("3")
    assert matrix(page) == shown(3.0) == [["good", "5", "0"], ["all defects", "2", "3"]]
    facts = page.locator(".scores dl").inner_text().splitlines()
    assert facts[1::2] == [
        "100.0 % (3 of 3 images called anomalous)",
        "60.0 % (3 of 5 defective images)",
        "0.0 % (0 of 5 good images)",
        "25.0 % ((1 + 1) / (1 + 7): 1 of 7 held-out good images are above)",
    ]
    label = page.get_by_role("img", name="Scores, threshold 3.").get_attribute("aria-label")
    assert "Recall 60.0 % (3 of 5 defective images)" in label
    page.locator(".scores input[type=number]").fill("99")
    assert "Precision\n– (0 images called anomalous)" in page.locator(".scores dl").inner_text()


def test_defects_are_shown_together_or_each_by_itself(charts):
    page = charts(TWO_DEFECTS)
    names = "[...document.querySelectorAll('.chart')].map(c => c.data.map(t => t.name).join())"
    together = page.evaluate(names)
    charts_beside = page.locator("figure:not(.wide) .chart").all()
    assert len({chart.bounding_box()["y"] for chart in charts_beside}) == 1 < len(charts_beside)
    page.locator("select.by-defect").select_option("each by itself")
    assert matrix(page) == by_hand(1.0, good=GOOD_SCORES, dent=DENT, hole=HOLE)
    each = page.evaluate(names)
    assert "all defects" in together[1] and "dent" not in together[1]
    assert all("dent" in of and "hole" in of for of in each[:3])
    assert each[3] == together[3]  # calibration knows no defects


def test_curves_are_those_by_hand_and_can_be_looked_at_up_to_their_limit(charts):
    from playwright.sync_api import expect

    page = charts(TWO_DEFECTS)
    points = page.evaluate(
        "(({x, y}) => x.map((v, i) => [v, y[i]]))(document.querySelector('.roc .chart').data[0])"
    )
    by_count = rates_by_hand(GOOD_SCORES, DENT + HOLE)
    assert all(point in by_count for point in points)
    assert all(corner in points for corner in ([0, 0], [0, 0.8], [0.2, 0.8], [0.2, 1], [1, 1]))
    end = "document.querySelector('.localization .chart').layout.xaxis.range[1]"
    assert page.evaluate(end) > 1
    page.get_by_label("only false positive rates up to 0.3").check()
    assert page.evaluate(end) == 0.3
    label = page.get_by_role("img", name="PRO curve.").get_attribute("aria-label")
    areas = "PRO curve. Area up to 0.3: all defects 80.0 %, dent 80.0 %, hole 80.0 %"
    assert " ".join(label.split()) == areas
    page.get_by_label("only rates up to 0.2").check()
    assert page.evaluate(end.replace("localization", "calibration")) == 0.2
    text = page.locator(".roc .legendtext").first
    expect(text).to_have_css("fill", "rgb(26, 29, 33)")  # --ink
    page.emulate_media(color_scheme="dark")
    expect(text).to_have_css("fill", "rgb(232, 234, 237)")


def test_hostile_names_of_40_defects_are_text(charts):
    scores = {"good": [0.0, 0.1]} | {f"{HOSTILE[i % 6]}{i}": [i / 9, 2.0] for i in range(40)}
    page = charts(scores, width=400)
    page.locator("select.by-defect").select_option("each by itself")
    assert {row[0] for row in matrix(page)} == {*scores}
    legend = page.locator(".roc .legendtext").all_text_contents()
    assert len(legend) == 40
    for name in HOSTILE:
        assert any(name.strip("\u202e")[:20] in text for text in legend)
    assert not any("\u202e" in text or len(text) > 40 for text in legend)
    assert page.locator(".charts img, .charts b").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_without_labels_new_pictures_stand_beside_held_out_ones(charts):
    def unlabel(one):
        path = one.run.results_file
        new = [result._replace(split=UNLABELLED) for result in read_results_file(path)]
        write_results(path, new)
        one.results[:] = new

    page = charts({"new": [0.0, 2.0, 3.0]}, change=unlabel)
    assert matrix(page) == [["pictures without a label", "1", "2"]]
    sums = "map(({ yaxis, y }) => [yaxis, y.reduce((a, b) => a + b)])"
    traces = f"document.querySelector('.scores .chart').data.{sums}"
    assert page.evaluate(traces) == [["y", 3], ["y2", len(KEPT)]]
    facts = page.locator(".scores dl").inner_text().splitlines()
    assert facts == [
        "Promised false-alarm rate, at most, on average",
        "50.0 % ((1 + 3) / (1 + 7): 3 of 7 held-out good images are above)",
    ]
    assert page.locator(".charts .chart").count() == 1
    assert "no image has a label" in page.locator(".charts").inner_text()


def test_charts_of_equal_scores_are_drawn(charts):
    page = charts({"good": [1.0], "dent": [1.0]}, kept=[1.0])
    assert matrix(page) == [["good", "1", "0"], ["dent", "1", "0"]]
    assert "0.0 % (0 of 1 good image)" in page.locator(".scores dl").inner_text()


def test_bars_add_up_to_all_images_and_none_is_on_both_sides_of_the_threshold(charts):
    rng = np.random.default_rng(4)
    scores = {"good": [*rng.normal(0, 1, 500), 1.1], "dent": [*rng.normal(3, 1, 500), 1e30]}
    page = charts(scores, threshold=1.1)
    bars = page.evaluate(
        "document.querySelector('.scores .chart').data.slice(0, 2)"
        ".map(({ x, y }) => x.map((middle, bin) => [middle, y[bin]]))"
    )
    for name, of in zip(scores, bars, strict=True):
        assert sum(count for _, count in of) == len(scores[name])
        above = sum(count for middle, count in of if middle > 1.1)
        assert above == sum(score > 1.1 for score in scores[name])

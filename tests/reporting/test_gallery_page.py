"""Galleries in a browser: they filter, order, enlarge, go on by keys, close; names are text."""

import pytest
import torch

import report
from evaluation.results import read_results_file
from reporting.collected import collect
from reporting.gallery import all_galleries
from reporting.page import write_page
from tests.reporting.visiting import OPEN
from utils.devices import Compute

SCORES = {"good": [0.1, 3.0, 0.9], "dent": [0.5, 5.0], "scratch": [0.2, 1.1]}
WORST_FIRST = ["scratch/00000", "dent/00000", "good/00001", "good/00002", "scratch/00001"]
WORST_FIRST += ["good/00000", "dent/00001"]  # by hand, at a threshold of 1
HOSTILE = (
    "\"><script>alert(1)</script>'&amp;<img src=x onerror=alert(2)>\u202egnp.\u2066 " + 200 * "é"
)


@pytest.fixture
def show(open_page, tmp_path):
    """What opens the page of an output folder, with galleries."""

    def open_gallery(output, *given: str, width: int = 1400):
        options = report.get_parser().parse_args(["--workers", "2", *given])
        found, faults = collect([output])
        galleries = all_galleries(found, options, Compute(torch.device("cpu")), faults)
        write_page(tmp_path / "index.html", found, faults, galleries)
        page = open_page(tmp_path / "index.html", width)
        page.evaluate(OPEN)
        page.locator(".gallery").first.scroll_into_view_if_needed()
        return page

    return open_gallery


@pytest.fixture
def page(show, make_output, tmp_path):
    """A page of images that are no longer there: their names and scores are."""
    make_output(tmp_path / "out", SCORES, 1.0)
    page = show(tmp_path / "out")
    page.wait_for_selector(".gallery li")
    return page


def listed(page) -> list[str]:
    names = page.locator(".gallery li bdi").all_inner_texts()
    return [name.removesuffix(".png") for name in names]


def test_images_stand_in_the_order_that_is_chosen(page):
    assert listed(page) == WORST_FIRST
    page.get_by_label("Order").select_option("highest score first")
    assert listed(page)[:3] == ["dent/00001", "good/00001", "scratch/00001"]
    page.get_by_label("Order").select_option("lowest score first")
    assert listed(page)[:3] == ["good/00000", "scratch/00000", "dent/00000"]
    page.get_by_label("Order").select_option("by name")
    assert listed(page) == sorted(WORST_FIRST)
    page.get_by_label("Order").select_option("random")
    assert sorted(listed(page)) == sorted(WORST_FIRST) != listed(page)


def test_a_gallery_is_a_press_of_a_button(page):
    for name, shown in {
        "Worst misses (2)": ["scratch/00000", "dent/00000"],
        "Worst false alarms (1)": ["good/00001"],
        "Best hits (2)": ["dent/00001", "scratch/00001"],
        "Worst first": WORST_FIRST,
    }.items():
        button = page.get_by_role("button", name=name)
        button.click()
        assert listed(page) == shown
        assert button.get_attribute("aria-pressed") == "true"
        assert page.locator("[aria-pressed=true]").count() == 1


def test_images_are_filtered_by_defect_and_outcome_and_their_number_is_told(page):
    page.locator("[name=defect]").select_option("dent")
    assert listed(page) == ["dent/00000", "dent/00001"]
    page.get_by_label("Outcome").select_option("found (2)")
    assert listed(page) == ["dent/00001"]
    assert page.get_by_role("status").inner_text() == "1 of 7 images"
    page.get_by_label("Outcome").select_option("passed (2)")
    assert listed(page) == []
    assert page.get_by_role("status").inner_text() == "0 of 7 images"


def test_images_are_called_by_the_threshold_that_is_set(page):
    threshold = page.get_by_label("exactly")
    threshold.fill("0.4")  # by hand: a scratch of 0.2 and a good image of 0.1 alone are below
    page.get_by_role("heading", name="a threshold of 0.4").wait_for()
    worst = ["scratch/00000", "good/00001", "good/00002", "dent/00000", "good/00000"]
    assert listed(page) == [*worst, "scratch/00001", "dent/00001"]
    shown = {"Worst misses (1)": worst[:1], "Worst false alarms (2)": worst[1:3]}
    shown["Best hits (3)"] = ["dent/00001", "scratch/00001", "dent/00000"]
    for name, images in shown.items():
        page.get_by_role("button", name=name).click()
        assert listed(page) == images
    outcome = page.get_by_label("Outcome")
    told = outcome.locator("option").all_inner_texts()
    assert told == ["all", "missed (1)", "false alarm (2)", "found (3)", "passed (1)"]
    assert outcome.input_value() == "found"
    assert outcome.evaluate("one => one.offsetWidth") > 100  # pixels: the texts are seen
    page.locator(".gallery li").last.click()
    told = page.get_by_role("dialog").locator("dd").all_inner_texts()
    assert (told[0], told[2]) == ("found", "anomalous")
    page.keyboard.press("Escape")
    threshold.fill("9")  # nothing is above
    page.get_by_role("heading", name="a threshold of 9").wait_for()
    assert listed(page) == []  # of best hits
    assert page.get_by_role("button", name="Best hits (0)").is_disabled()
    page.get_by_role("button", name="Back to the stored threshold").click()
    page.get_by_role("heading", name="the stored threshold calls").wait_for()
    page.get_by_role("button", name="Worst first").click()
    assert listed(page) == WORST_FIRST


def test_a_gallery_that_comes_into_view_later_has_the_threshold_that_was_set(
    make_output, show, tmp_path
):
    for category in ("bolt", "nut"):
        make_output(tmp_path / "out", SCORES, 1.0, category)
    page = show(tmp_path / "out")
    last = page.locator(".gallery").last
    assert last.locator("li").count() == 0
    page.get_by_label("exactly").last.evaluate(
        "one => { one.value = 4; one.dispatchEvent(new Event('input')); }"
    )
    last.scroll_into_view_if_needed()
    last.locator("li").first.wait_for()
    assert last.get_by_role("heading", name="a threshold of 4").count() == 1
    assert last.get_by_role("button", name="Worst misses (3)").count() == 1
    first = page.locator(".gallery").first  # another run's threshold
    assert first.get_by_role("button", name="Worst misses (2)").count() == 1


def test_of_each_outcome_it_is_told_how_many_there_are_beside_those_shown(
    make_output, show, tmp_path
):
    make_output(tmp_path / "out", SCORES, 1.0)
    page = show(tmp_path / "out", "--gallery", "3")
    page.locator(".gallery li").first.wait_for()
    outcomes = page.get_by_label("Outcome").locator("option").all_inner_texts()
    told = ["missed (1 of 2)", "false alarm (1)", "found (1 of 2)", "passed (0 of 2)"]
    assert outcomes == ["all", *told]


def test_an_image_is_enlarged_and_keys_go_on_and_close(page, tmp_path):
    cards, dialog = page.locator(".gallery li button"), page.get_by_role("dialog")
    cards.nth(1).focus()
    page.keyboard.press("Enter")
    assert dialog.get_by_role("heading").inner_text() == "dent/00000.png"
    results = read_results_file(tmp_path / "out" / "results" / "folder" / "bolt.csv")
    p = next(one.p_value for one in results if one.image == "dent/00000.png")
    told = dialog.locator("dd").all_inner_texts()
    assert told == ["missed", "dent", "good", "0.5", f"{p:g}", "2 of 7"]
    for key, place in (("Right", 2), ("Left", 1), ("Left", 0), ("Left", -1)):  # and round
        page.keyboard.press(f"Arrow{key}")
        assert dialog.get_by_role("heading").inner_text() == f"{WORST_FIRST[place]}.png"
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert cards.last.evaluate("card => card === document.activeElement")  # of what was seen last


def test_buttons_go_on_too_and_a_click_beside_an_image_closes(page):
    dialog = page.get_by_role("dialog")
    page.locator(".gallery li").first.click()
    dialog.get_by_role("button", name="Next").click()
    assert dialog.get_by_role("heading").inner_text() == "dent/00000.png"
    dialog.get_by_role("button", name="Previous").click()
    assert dialog.get_by_role("heading").inner_text() == "scratch/00000.png"
    page.mouse.click(5, 5)
    assert not dialog.is_visible()
    page.locator(".gallery li").first.click()
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


def test_image_truth_and_maps_stand_side_by_side(alone, show):
    page = show(alone.output, width=400)
    page.wait_for_selector(".gallery li")
    card = page.locator(".gallery li", has_text="stain/000.png")
    labels = card.locator(".gallery-panel").all_inner_texts()
    assert [label.split()[0] for label in labels if label.split()] == [
        "image", "truth", "map", "position", "composition"
    ]  # fmt: skip
    card.click()
    assert page.get_by_role("dialog").locator("path.truth").count() == 1
    loaded = "all => all.length > 4 && all.every(one => one.naturalWidth > 0)"
    assert page.locator(".gallery img").evaluate_all(loaded)
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_images_are_put_into_the_page_as_they_come_into_view(make_output, show, tmp_path):
    for category in "abc":
        make_output(tmp_path / "out", {"good": [n / 300 for n in range(300)]}, 2.0, category)
    page = show(tmp_path / "out", "--gallery", "250")
    first, last = page.locator(".gallery").first, page.locator(".gallery").last
    first.locator("li").first.wait_for()
    assert first.get_by_role("status").inner_text() == "250 of 250 images, chosen of 300"
    first.locator("li").nth(24).wait_for()  # a chunk of such small ones fills no box
    before = first.locator("li").count()
    assert 0 < before < 250
    assert last.locator("li").count() == 0
    first.locator("li").last.scroll_into_view_if_needed()
    first.locator("li").nth(before).wait_for()
    more = first.locator("li").count()
    last.scroll_into_view_if_needed()
    last.locator("li").first.wait_for()
    first.scroll_into_view_if_needed()
    page.wait_for_timeout(100)
    assert first.locator("li").count() >= more  # it was not begun again


def test_hostile_names_are_text(make_output, show, tmp_path):
    make_output(tmp_path / "out", {"good": [0.1], HOSTILE: [0.5, 3.0]}, 1.0)
    page = show(tmp_path / "out")
    page.wait_for_selector(".gallery li")
    assert page.locator("[name=defect]").locator("option").all_text_contents()[1:] == [
        HOSTILE,
        "good",
    ]
    page.locator("[name=defect]").select_option(index=1)
    assert page.locator(".gallery li bdi").all_text_contents() == [
        f"{HOSTILE}/{number:05}.png" for number in range(2)
    ]
    page.locator(".gallery li").first.click()
    assert page.get_by_role("dialog").get_by_text(HOSTILE, exact=True).count() == 1
    assert page.locator("img[src=x], .gallery script:not([type])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 1400

"""The page in a browser: its tables have the stored numbers, and what is asked for opens."""

import json
import statistics

import pytest

from evaluation.comparison import Difference
from reporting.collected import collect
from reporting.comparison import change
from reporting.page import as_data, write_page

SCORES = {"good": [0.1, 0.4, 1.2, 0.7], "dent": [0.9, 3.0, 0.3], "scratch": [2.0, 0.5]}
BETTER = {"good": [0.1, 0.4, 0.6, 0.7], "dent": [0.9, 3.0, 2.3], "scratch": [2.0, 0.5]}
COLUMNS = {
    "AUROC": ("classification_au_roc",),
    "AP": ("glae", "average_precision"),
    "F1max": ("glae", "f1_max"),
    "pixel AUROC": ("glae", "pixel_auroc"),
    "AU-PRO 0.3": ("au_pro",),
}
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"


@pytest.fixture
def show(open_page, tmp_path):
    """What writes the page of output folders below `tmp_path`, and opens it."""

    def open_report(*names: str, **options):
        found, faults = collect([tmp_path / name for name in names])
        write_page(tmp_path / "index.html", found, faults)
        assert not faults
        return open_page(tmp_path / "index.html", **options)

    return open_report


def stored(run, column: str) -> float | None:
    value = json.loads(run.metrics_file.read_text())
    for key in COLUMNS[column]:
        value = value[key]
    return value


def body_of(page, table: str) -> list[list[str]]:
    rows = page.locator(f"{table} tbody tr").all()
    return [[cell.inner_text() for cell in row.locator("th, td").all()] for row in rows]


def in_percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def test_every_cell_of_the_headline_is_the_metrics_file_s(make_output, show, tmp_path):
    bolt = make_output(tmp_path / "out", SCORES, 1.0, "bolt")
    nut = make_output(tmp_path / "out", BETTER, 1.0, "nut")
    page = show("out")
    expected = [
        [run.subdataset, *(in_percent(stored(run, c)) for c in COLUMNS)] for run in (bolt, nut)
    ]
    means = [[stored(run, c) for run in (bolt, nut)] for c in COLUMNS]
    means = [in_percent(None if None in of else statistics.mean(of)) for of in means]
    assert body_of(page, "#dataset-0-headline") == [*expected, ["mean", *means]]
    assert page.locator("nav a").all_inner_texts() == ["folder", "bolt", "nut"]


def test_all_metrics_of_loco_are_shown_when_asked_for(make_output, show, tmp_path):
    run = make_output(tmp_path / "out", SCORES, 1.0, "kit", dataset="demo")
    metrics, subsets = json.loads(run.metrics_file.read_text()), ("logical", "structural", "mean")
    keys = [subset.replace("al", "al_anomalies") for subset in subsets]
    limits = ("0.01", "0.05", "0.1", "0.3", "1.0")
    aurocs = dict(zip(keys, (0.91, 0.92, 0.93), strict=True))
    areas = {
        key: {limit: 0.1 * i + float(limit) / 2 for limit in limits} for i, key in enumerate(keys)
    }
    own = {"classification": {"auc_roc": aurocs}, "localization": {"auc_spro": areas}}
    run.metrics_file.write_text(json.dumps(metrics | own))
    page = show("out")
    cells, of = page.locator("#dataset-0-headline :is(th, td)"), metrics["glae"]
    expected = {f"AUROC {name}": aurocs[key] for name, key in zip(subsets, keys, strict=True)}
    expected |= {"AUROC pooled": of["auroc_pooled"], "AP": of["average_precision"]}
    expected |= {"F1max": of["f1_max"], "pixel AUROC": None}
    for limit in limits:
        names = zip(subsets, keys, strict=True)
        expected |= {f"sPRO {limit} {name}": areas[key][limit] for name, key in names}
    headline = [name for name in expected if name.startswith(("AUROC", "sPRO 0.05"))]
    for names in (headline, expected):
        shown = [cell.inner_text() for cell in cells.all() if cell.is_visible()]
        head, row = shown[: len(names) + 1], shown[len(names) + 1 :]
        assert head == ["Category", *names]
        assert row == ["kit", *(in_percent(expected[name]) for name in names)]
        page.get_by_label("All metrics").check()


def test_a_run_s_own_tables_are_the_files(make_output, show, tmp_path):
    run = make_output(tmp_path / "out", SCORES, 1.0)
    page, ours = show("out"), json.loads(run.metrics_file.read_text())["glae"]
    metrics, defects = (
        "#dataset-0-0-0 .pair > :nth-child(1)",
        "#dataset-0-0-0 .pair > :nth-child(2)",
    )
    assert body_of(page, metrics) == [[c, in_percent(stored(run, c))] for c in COLUMNS]
    aurocs = {name: in_percent(value) for name, value in ours["auroc_by_defect"].items()}
    assert body_of(page, defects) == [
        ["dent", "3", "1", aurocs["dent"], "80.0"],
        ["scratch", "2", "1", aurocs["scratch"], "80.0"],
    ]
    heads = page.locator(f"{defects} thead th").all_inner_texts()
    assert heads == ["Defect", "Images", "Found", "AUROC", "AU-PRO 0.3"]  # pixels have no AUROC


def test_seeds_are_averaged_and_models_compared(make_output, show, tmp_path):
    runs = [
        make_output(tmp_path / f"old{seed}", s, 1.0, seed=seed)
        for seed, s in enumerate((SCORES, BETTER))
    ]
    new = make_output(tmp_path / "new", BETTER, 1.0, train_steps=20)
    page = show("old0", "old1", "new")
    aurocs = [stored(run, "AUROC") for run in runs]
    mean, std = statistics.mean(aurocs), statistics.stdev(aurocs)
    seeds, single = body_of(page, "#dataset-0-headline")
    assert seeds[1] == "train_steps 0 2 seeds"
    assert seeds[2] == f"{100 * mean:.1f} ± {100 * std:.1f}"
    assert single[1:3] == ["train_steps 20", in_percent(stored(new, "AUROC"))]
    [[_, first, other, change]] = body_of(page, "#dataset-0-metric-0")
    assert (first, other) == (seeds[2], single[2])
    value, low, high = (
        float(n) for n in change.replace("[", "").replace(",", "").rstrip("]").split()
    )
    assert value == pytest.approx(100 * (stored(new, "AUROC") - mean), abs=0.051)
    assert low <= value <= high
    page.get_by_label("Metric", exact=True).select_option("AU-PRO 0.3")
    assert body_of(page, "#dataset-0-metric-4") == [["bolt", "80.0 ± 0.0", "80.0", "+0.0"]]
    assert page.locator("#dataset-0-metric-0").is_hidden()


def test_models_of_other_test_images_differ_as_their_values_do(make_output, show, tmp_path):
    fewer = SCORES | {"dent": SCORES["dent"][1:2]}
    for name, steps in (("old", 0), ("new", 20)):
        make_output(tmp_path / name, SCORES, 1.0, "nut", train_steps=steps)
    runs = (
        make_output(tmp_path / "old", SCORES, 1.0),
        make_output(tmp_path / "new", fewer, 1.0, train_steps=20),
    )
    page = show("old", "new")
    bolt, nut, mean = body_of(page, "#dataset-0-metric-0")
    old, new = (stored(run, "AUROC") for run in runs)
    assert bolt == ["bolt", in_percent(old), in_percent(new), f"{100 * (new - old):+.1f}"]
    assert nut[3] == "+0.0 [+0.0, +0.0]"
    assert mean[3] == f"{100 * (new - old) / 2:+.1f}"
    notes = page.locator("#dataset-0-metric-0 .notes").all_inner_texts()
    assert notes[1:] == [
        "No interval of a category, nor of the mean, where runs lack test images of one another: "
        "2 in all."
    ]


def test_a_difference_that_rounds_to_nothing_has_no_minus():
    found = change(Difference(-1e-6, -2e-4, 1e-6))
    assert (found.text, found.sure) == ("+0.0 [+0.0, +0.0]", False)


def test_the_chosen_run_is_shown_and_what_it_differs_in_is_marked(make_output, show, tmp_path):
    make_output(tmp_path / "one", SCORES, 1.0, image_size=[256])
    make_output(tmp_path / "two", BETTER, 1.0, image_size=[128, 160])
    page = show("one", "two")
    assert page.locator(".run:visible").count() == 1
    choice = page.get_by_label("Run", exact=True)
    assert (
        choice.locator("option").first.inner_text() == f"image_size 256, seed 0, {tmp_path / 'one'}"
    )
    choice.select_option(index=1)
    assert page.locator(".run:visible").get_attribute("id") == "dataset-0-0-1"
    marked = page.locator(".run:visible .differs")
    assert marked.all_inner_texts() == ["image_size\t128 160\tdiffers 256"]


def test_a_run_to_look_at_is_marked_where_it_is_chosen(make_output, show, tmp_path):
    make_output(tmp_path / "one", SCORES, 1.0)
    make_output(tmp_path / "two", {"good": [0.1, 0.2], "dent": [0.3, 0.4]}, 1.0, seed=1)
    page = show("one", "two")
    options = page.get_by_label("Run", exact=True).locator("option").all_inner_texts()
    assert [option.startswith("⚠ ") for option in options] == [False, True]  # all are missed


def test_what_is_printed_has_all_charts_of_the_run_that_is_shown(make_output, show, tmp_path):
    for name, seed in (("one", 0), ("two", 1)):
        make_output(tmp_path / name, SCORES, 1.0, seed=seed)
    page = show("one", "two")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    charts, shown = page.locator(".charts .chart"), page.locator(".run:visible .charts .chart")
    drawn = ".js-plotly-plot"
    assert 2 < shown.count() == shown.and_(page.locator(drawn)).count() < charts.count()
    assert charts.and_(page.locator(drawn)).count() == shown.count()


def test_a_table_is_sorted_by_click_and_by_keyboard(make_output, show, tmp_path):
    make_output(tmp_path / "out", SCORES, 1.0, "a")
    make_output(tmp_path / "out", BETTER, 1.0, "b")
    make_output(tmp_path / "out", {"good": [0.5], "dent": [0.4]}, 1.0, "c")
    make_output(tmp_path / "out", {"good": [0.5]}, 1.0, "d")  # has no AUROC
    page = show("out")
    rows = page.locator("#dataset-0-headline tbody:first-of-type th")
    header = page.locator("#dataset-0-headline th", has_text="AUROC").first
    header.get_by_role("button").click()
    assert (header.get_attribute("aria-sort"), rows.all_inner_texts()) == ("ascending", [*"cabd"])
    header.get_by_role("button").press("Enter")
    assert (header.get_attribute("aria-sort"), rows.all_inner_texts()) == ("descending", [*"bacd"])
    page.get_by_role("button", name="Category").first.press(" ")
    assert (header.get_attribute("aria-sort"), rows.all_inner_texts()) == (None, [*"abcd"])
    assert page.locator(".means th").inner_text() == "mean"


def test_links_open_a_category_and_skip_to_the_content(make_output, show, tmp_path):
    for name in "ab":
        make_output(tmp_path / "out", SCORES, 1.0, name)
    page = show("out")
    assert page.locator("details.category[open]").count() == 0
    page.locator("nav").get_by_text("b", exact=True).click()
    page.locator("#dataset-0-1[open]").wait_for()
    assert page.locator("details.category[open]").count() == 1
    page.locator("body").press("Tab")
    page.goto(page.url.partition("#")[0])
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_published_numbers_stand_beside_ours_and_are_marked(make_output, show, tmp_path):
    for category in ("bottle", "cable"):
        make_output(tmp_path / "out", SCORES, 1.0, category, dataset="mvtec_ad")
    page = show("out")
    rows = body_of(page, "#dataset-0-headline")
    ours = [row[0] for row in rows if row[1] == "this model"]
    assert ours == ["bottle", "cable", "mean"]
    assert all("published" in method for _, method, *_ in rows if method != "this model")
    glae = next(row for row in rows if row[1].startswith("GLAE\n"))
    assert (glae[0], glae[2]) == ("mean of all 15", "98.2")
    page.locator(".published:visible a").first.click()
    assert page.locator(".sources li").first.is_visible()
    page.get_by_label("Published numbers of each category").uncheck()
    assert page.locator("tbody:first-of-type .published:visible").count() == 0


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_no_wider_than_the_screen(
    make_output, show, tmp_path, width, scheme
):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    make_output(tmp_path / "a", SCORES, 1.0, "bottle", dataset="mvtec_ad")
    make_output(tmp_path / "b", BETTER, 1.0, "bottle", dataset="mvtec_ad", train_steps=5)
    make_output(tmp_path / "a", BETTER, 1.0, 60 * "<b>'", dataset="folder")
    page = show("a", "b", width=width, color_scheme=scheme, bypass_csp=True)  # axe is a script, too
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert page.evaluate(OVERFLOW) <= 0
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_data_in_the_page_cannot_end_its_element():
    value = ["</script><script>alert(1)</script>", "<!--", "&amp;", "\u2028"]
    assert not {*"<>&"} & {*as_data(value)}
    assert json.loads(as_data(value)) == value

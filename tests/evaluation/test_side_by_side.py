"""Models side by side: means, differences, wins, worked out anew from the metrics."""

import csv
import io
import json
import re
import statistics

import pytest

from evaluation.compared import IMAGES
from evaluation.comparison import difference, resampled
from evaluation.side_by_side import side_by_side
from evaluation.tables import tables
from tests.evaluation.made_up import PRO, from_github, made_up, percent
from tests.evaluation.test_comparison import run

GLAE, OTHER = "model glae", "model efficientad"
NAMES = ("bottle", "cable", "tile")


def results(model: str, seed: int, names=NAMES, images: bool = True) -> dict:
    """Make one output folder's results of MVTec AD; of "glae" or another model."""
    found = {}
    for place, name in enumerate(names):
        metrics = made_up("mvtec_ad", 10 * seed + place)
        metrics["glae"] |= {"seed": seed, "options": {"model": model}}
        shift = 1 + place / 4 + (model != "glae") / 2
        found[name] = metrics | {IMAGES: run(10 * seed + place, shift) if images else []}
    return {"mvtec_ad": found}


@pytest.fixture(scope="module")
def models() -> dict[str, list[dict]]:
    """Two seeds of one model, three of another."""
    return {
        GLAE: [results("glae", seed) for seed in (0, 1)],
        OTHER: [results("efficientad", seed) for seed in (2, 3, 4)],
    }


def flat(models: dict) -> list[dict]:
    return [one for seeds in models.values() for one in seeds]


def aurocs(models: dict, model: str, name: str) -> list[float]:
    return [one["mvtec_ad"][name]["classification_au_roc"] for one in models[model]]


def test_each_metric_has_a_table_with_a_column_for_each_model_and_difference(models):
    tables = side_by_side(flat(models), "github", ("AUROC", "AP")).split("\n\n")
    headers = [from_github(text)[0] for text in tables[:2]]
    assert headers == [[f"mvtec_ad, {name}", "A", "B", "B - A"] for name in ("AUROC", "AP")]
    _, table = from_github(tables[0])
    assert list(table) == [*NAMES, "mean", "wins"]
    means = {"A": [], "B": []}
    for name in NAMES:
        for letter, model in (("A", GLAE), ("B", OTHER)):
            assert table[name][letter] == percent(aurocs(models, model, name))
            means[letter].append(statistics.fmean(aurocs(models, model, name)))
    assert table["mean"]["B"].startswith(f"{100 * statistics.fmean(means['B']):.1f} ± ")
    wins = sum(f"{100 * a:.1f}" < f"{100 * b:.1f}" for a, b in zip(*means.values(), strict=True))
    assert (table["wins"]["A"], table["wins"]["B"]) == (str(3 - wins), str(wins))


def test_a_difference_of_aurocs_has_the_interval_of_its_images_and_others_have_none(models):
    tables = side_by_side(flat(models), "github", ("AUROC", "AU-PRO 0.3")).split("\n\n")
    _, table = from_github(tables[0])
    drawn = []
    for name in NAMES:
        sides = [[one["mvtec_ad"][name][IMAGES] for one in models[m]] for m in (GLAE, OTHER)]
        drawn.append(resampled(*sides, "AUROC", f"mvtec_ad/{name}"))
        assert table[name]["B - A"] == text_of(*difference(drawn[-1:]))
    assert table["mean"]["B - A"] == text_of(*difference(drawn))
    cells = [row["B - A"] for row in from_github(tables[1])[1].values()]
    assert all(re.fullmatch(r"[+-]\d+\.\d", cell) for cell in cells[:-1])
    assert "AU-PRO 0.3: no interval" in tables[2]


def text_of(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def test_the_legend_says_which_letter_is_which_model_and_how_many_seeds_it_has(models):
    lines = side_by_side(flat(models), "simple", ("AUROC",)).splitlines()
    assert f"– A: {GLAE}, 2 seeds" in lines
    assert f"– B: {OTHER}, 3 seeds" in lines
    assert f"– A: {OTHER}, 3 seeds" in side_by_side(flat(models)[::-1], "simple", ("AUROC",))


def test_of_three_models_each_is_compared_with_the_first(models):
    more = [*flat(models), results("vit", 5)]
    header, table = from_github(side_by_side(more, "github", ("AUROC",)).split("\n\n")[0])
    assert header[1:] == ["A", "B", "C", "B - A", "C - A"]
    assert sum(int(table["wins"][letter]) for letter in "ABC") == 3


def test_seeds_of_one_model_give_means_and_no_difference(models):
    text, notes = side_by_side(models[OTHER], "github", ("AUROC", "AP")).split("\n\n")
    header, table = from_github(text)
    assert header == ["mvtec_ad", "AUROC", "AP"]
    assert table["tile"]["AUROC"] == percent(aurocs(models, OTHER, "tile"))
    assert "3 seeds" in notes


def test_one_category_alone_has_neither_mean_nor_wins():
    pair = [results(model, seed, NAMES[:1]) for seed, model in enumerate(("glae", "efficientad"))]
    _, table = from_github(side_by_side(pair, "github", ("AUROC",)).split("\n\n")[0])
    assert list(table) == ["bottle"]


def test_equal_models_win_nothing_and_differ_by_nothing():
    same = [results("glae", 0), results("glae", 0)]
    for metrics in same[1]["mvtec_ad"].values():
        metrics["glae"] = {**metrics["glae"], "options": {"model": "efficientad"}}
    _, table = from_github(side_by_side(same, "github", ("AUROC",)).split("\n\n")[0])
    assert table["wins"] == {"A": "0", "B": "0", "B - A": ""}
    assert table["mean"]["B - A"] == "+0.0 [+0.0, +0.0]"


def test_means_of_other_categories_do_not_compare():
    pair = [results("glae", 0), results("efficientad", 1, NAMES[:2])]
    tables = side_by_side(pair, "github", ("AUROC",)).split("\n\n")
    _, table = from_github(tables[0])
    assert table["mean"] == dict.fromkeys(("A", "B", "B - A"), "–")
    assert (table["tile"]["B"], table["tile"]["B - A"]) == ("–", "–")
    assert "mean: the models are of different categories" in tables[1]


def test_without_results_of_images_there_is_a_difference_and_a_note():
    pair = [results("glae", 0), results("efficientad", 1, images=False)]
    tables = side_by_side(pair, "github", ("AUROC",)).split("\n\n")
    assert re.fullmatch(r"[+-]\d+\.\d", from_github(tables[0])[1]["mean"]["B - A"])
    assert "bottle: no interval, without all images' results" in tables[1]


def test_images_that_one_run_lacks_are_told(models):
    """What they left would be the interval of another difference than that of the values."""
    more = [models[GLAE][0], results("efficientad", 2), results("vit", 3)]
    for run_of, lost in zip(more[1:], (3, 2), strict=True):
        del run_of["mvtec_ad"]["cable"][IMAGES][-lost:]
    text, notes = side_by_side(more, "github", ("AUROC",)).split("\n\n")
    _, table = from_github(text)
    for row in ("cable", "mean"):
        for letter in "BC":
            plain = float(table[row][letter]) - float(table[row]["A"])
            shown = table[row][f"{letter} - A"]  # without an interval
            assert float(shown) == pytest.approx(plain, abs=0.11)
    assert all("[" in table[row]["B - A"] for row in ("bottle", "tile"))
    assert "cable: no interval, with test images that not every run has: 3" in notes
    assert "mean: no interval, without that of every category" in notes
    assert "bottle: " not in notes


def test_a_product_called_wins_is_not_the_row_of_wins():
    pair = [results(model, 0, ("wins", "mean")) for model in ("glae", "efficientad")]
    _, table = from_github(side_by_side(pair, "github", ("AUROC",)).split("\n\n")[0])
    assert list(table) == ["mvtec_ad/mean", "mvtec_ad/wins", "mean", "wins"]


def test_names_are_one_line_each_whatever_is_in_them():
    pair = [results(model, 0, ("a\x1b[2Jb", "c\nd")) for model in ("glae", "x\r\ny\u202e")]
    pair[1]["mvtec_ad"]["c\nd"]["au_pro"] = None  # which a note tells
    for style in ("simple", "github", "latex"):
        text = side_by_side(pair, style, ("AUROC",))
        text += tables(pair, style) + tables(pair[:1], style)
        assert all(line.isprintable() for line in text.split("\n"))
        assert "model x  y" in text
        assert "\nd" not in text


# Formats


def test_csv_and_json_say_the_same_of_every_metric(models):
    texts = {style: side_by_side(flat(models), style, ("AUROC",)) for style in ("csv", "json")}
    found = json.loads(texts["json"])
    assert {record["metric"] for record in found} == {*PRO}
    for row, record in zip(csv.DictReader(io.StringIO(texts["csv"])), found, strict=True):
        assert row == {key: "" if v is None else str(v) for key, v in record.items()}
    one = next(
        r for r in found if (r["category"], r["metric"], r["model"]) == ("tile", "AP", OTHER)
    )
    values = [seed["mvtec_ad"]["tile"]["glae"]["average_precision"] for seed in models[OTHER]]
    assert one["value"] == pytest.approx(statistics.fmean(values), abs=1e-12)
    assert one["std"] == pytest.approx(statistics.stdev(values), abs=1e-12)
    assert (one["seeds"], one["low"]) == (3, None)


def test_latex_floats_with_booktabs_a_caption_and_the_best_bold(models):
    text, more, notes = side_by_side(flat(models), "latex", ("AUROC", "AP")).split("\n\n")
    assert all(line.startswith("% ") for line in notes.splitlines())
    for table in (text, more):
        assert table.startswith("\\begin{table}\n")
        assert table.endswith("\\end{tabular}\n\\end{table}")
        rules = re.findall(r"\\(toprule|midrule|bottomrule|hline)", table)
        assert rules == ["toprule", "midrule", "bottomrule"]
    assert f"A: {GLAE}, 2 seeds; B: {OTHER}, 3 seeds" in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in lines} == {3}
    for line, name in zip(lines[1:], NAMES, strict=False):
        of_models = {m: statistics.fmean(aurocs(models, m, name)) for m in (GLAE, OTHER)}
        best = f"{100 * max(of_models.values()):.1f}"
        assert re.findall(r"\\textbf\{(.*?) ", line) == [best]


HOSTILE = r"50%_&_#1_$x$_{y}_\input{z}_~^<script>"


def test_names_are_no_commands_of_latex():
    pair = [results(model, 0, (HOSTILE, "[1] *")) for model in ("glae", HOSTILE)]
    text = side_by_side(pair, "latex", ("AUROC",)).split("\n\n")[0]
    plain = re.sub(r"\\[&%$#_{}]|\\ensuremath\{[<>]\}", "", text)  # escaped signs
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    known = {"begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "textbf"}
    known |= {"pm", "textasciitilde", "textbackslash"}
    assert {*re.findall(r"\\([a-z]+)", plain)} <= known
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert not re.search(r"\\\\\s*[\[*]", body)  # an option of the end of the line
    assert not any(sign in plain for sign in "%#~<>")

"""A page of hostile names, visited in a browser: they are text, lead nowhere, and fit."""

from pathlib import Path

import pytest

from tests.reporting.visiting import text_of, visit, write

NAMES = ("--gallery", "40")  # galleries of no pictures, which none has, but of their names
MARK = "owned"  # what hostile names would do
FOLDERS = [  # names that a folder can have
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=document.title='owned'>",
    "<a href='mailto:owned'>write",  # which plotly's labels would make a link
    "<b>bold<!--",
    "\u202egnp.exe\u2066",
    "{{ 7 * 7 }}{% x %}${7 * 7}",
    "javascript:alert(1)",
    "__proto__",
    "constructor",
    "a\nb\tc",
    "&lt;&amp;&#x3c;",
    "e" * 240,
]
TEXTS = [*FOLDERS, "</script><script>document.title='owned'</script>", "../../../etc/passwd"]
FOREIGN = """
script[src], [onerror], [onload], iframe, object, embed, base, form[action], img[src=x],
meta[http-equiv=refresh], [*|href^='mailto:']
"""


@pytest.fixture
def hostile(make_output, tmp_path) -> Path:
    """Two models of hostile names, options, defects and images, as far as files can have them."""
    scores = {"good": [0.1, 0.2, 0.3, 1.4], "dent": [0.9, 2.0, 3.0]}
    for seed, options in enumerate((dict.fromkeys("ab", "x"), dict(enumerate(TEXTS)))):
        output = tmp_path / FOLDERS[seed]
        named = {str(key): value for key, value in options.items()}
        defects = scores | {name: [0.5, 1.5 + seed] for name in FOLDERS}
        for category in FOLDERS[2:5]:
            run = make_output(output, defects, 1.0, category, seed, **named)
            run.folder.mkdir(parents=True)
            run.write_config(named | {"weights": TEXTS[-2]})
            names = ",".join(f'"{name}"' for name in TEXTS if '"' not in name)
            row = ",1" * names.count('","')
            run.losses_file.write_text(f"step,total,{names}\n1,1,1{row}\n2,1,1{row}\n")
    return tmp_path


def outputs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if (path / "metrics").is_dir())


def test_hostile_names_are_text_and_nothing_of_them_runs(hostile, open_page, tmp_path):
    damaged = outputs(hostile)[0] / "metrics" / "folder" / f"{FOLDERS[-1]}.json"
    damaged.write_text("")
    path, faults = write(outputs(hostile), tmp_path / "report", *NAMES)
    assert len([fault for fault in faults if str(damaged) in fault]) == 1
    page = open_page(path)
    title = page.title()
    visit(page)
    assert page.title() == title
    assert MARK not in title
    assert page.locator("script:not([type])").count() == 2  # ours, and plotly's
    assert page.locator(FOREIGN).count() == 0
    shown = text_of(page)
    assert [name for name in FOLDERS[:5] if name not in shown] == []
    links = page.eval_on_selector_all("[href]", "all => all.map(one => one.getAttribute('href'))")
    assert [link for link in links if not link.startswith(("#", "https://", "data:"))] == []
    assert page.evaluate("Object.keys(Object.prototype).length") == 0
    assert page.evaluate("typeof choose") == "undefined"  # scripts keep their names to themselves


def test_a_name_that_is_no_unicode_is_shown_as_far_as_it_is(make_output, open_page, tmp_path):
    run = make_output(tmp_path / "out\udcff", {"good": [0.1, 1.2], "dent": [3.0]}, 1.0)
    (run.metrics_file.with_name("nut\udcfe.json")).write_text("")
    path, faults = write([run.output], tmp_path / "report")
    assert len(faults) == 1
    assert "nut?.json" in text_of(open_page(path))


def test_nothing_is_wrong_for_who_cannot_see_it_well(hostile, open_page, tmp_path):
    """At both widths, in light and dark, with all opened; and a phone need not scroll sideways."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    path, _ = write(outputs(hostile), tmp_path / "report", *NAMES)
    page = open_page(path, bypass_csp=True)  # for axe's own code
    for width in (1400, 400):
        page.set_viewport_size({"width": width, "height": 900})
        visit(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = axe.run(page).response["violations"]
            assert [one for one in found if one["impact"] in ("serious", "critical")] == []

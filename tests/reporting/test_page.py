"""The page opens in a browser, and shows the names of what it is of."""

from reporting.collected import collect
from reporting.page import write_page


def test_the_page_names_its_categories(make_output, open_page, tmp_path):
    make_output(tmp_path / "out", {"good": [0.1, 0.4, 1.2], "dent": [0.9, 3.0]}, 1.0)
    write_page(tmp_path / "index.html", *collect([tmp_path / "out"]))
    page = open_page(tmp_path / "index.html")
    assert page.locator("h2").inner_text() == "folder/bolt"

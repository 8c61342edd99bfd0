"""The browser's page scores as Python does, and says in one line what it cannot take."""

import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import onnx
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from deployment.runtimes import load_exported
from tests.conftest import REPOSITORY, deep
from tests.deployment.test_runtimes import altered

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
PAGE = REPOSITORY / "examples" / "browser"
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*(at best|are few)"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.skipif(
        not (PAGE / "node_modules").is_dir(), reason="npm ci --prefix examples/browser was not run"
    ),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
HOSTILE = "<img src=x onerror=document.title='ran'>.png"


class Quiet(SimpleHTTPRequestHandler):
    """Any static server will do."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory, exported) -> Path:
    """The page's folder, with a detector beside it."""
    folder = tmp_path_factory.mktemp("site") / "browser"
    folder.mkdir()
    for path in PAGE.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "detector.onnx").symlink_to(exported)
    return folder


@pytest.fixture(scope="module")
def address(site):
    """Where the folder is served."""
    handler = partial(Quiet, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def problems() -> list[str]:
    """What the page's console says of errors."""
    return []


@pytest.fixture
def page(browser, address, problems):
    """The page as it opens; afterwards it must have failed nowhere and asked no other host."""
    page, asked = browser.new_page(), []
    page.on("console", lambda said: said.type == "error" and problems.append(said.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    page.close()
    assert problems == []
    assert f"{address}page.js" in asked
    assert [url for url in asked if not url.startswith((address, f"blob:{address}", "data:"))] == []


def say(page, text: str) -> None:
    """Wait until the page says so."""
    playwright.expect(page.get_by_role("status")).to_have_text(re.compile(text), timeout=60_000)


def opened(page, detector: Path) -> None:
    page.get_by_label("Detector").set_input_files(detector)
    say(page, "Ready for pictures")


def scored(page, *pictures: Path) -> list[dict]:
    """Return what the page shows of pictures, in their order."""
    page.get_by_label("Pictures").set_input_files(pictures)
    say(page, r" in [\d.]+ s")
    return [
        {
            "name": card.get_by_role("heading").inner_text(),
            "verdict": card.locator(".verdict").inner_text(),
            "score": float(card.locator("data").first.get_attribute("value")),
            "p_value": float(card.locator("data").last.get_attribute("value")),
        }
        for card in page.get_by_role("listitem").all()
    ]


def test_the_page_says_what_python_says(page, exported, product, tmp_path):
    wide, turned = tmp_path / "wide.png", tmp_path / "turned.png"
    with Image.open(product / "test" / "stain" / "001.png") as image:
        image.resize((301, 97)).convert("P").save(wide)
        exif, gamma = Image.Exif(), PngInfo()
        exif[ExifTags.Base.Orientation] = 6  # a quarter of a turn
        gamma.add(b"gAMA", (100_000).to_bytes(4, "big"))  # linear, which Pillow passes over
        image.save(turned, exif=exif, pnginfo=gamma)
    pictures = [product / "test" / "good" / "000.png", wide, turned]
    opened(page, exported)
    python = load_exported(exported, threads=1)
    for picture, shown in zip(pictures, scored(page, *pictures), strict=True):
        expected = python.predict(picture)
        assert shown["name"] == picture.name
        assert shown["verdict"] == expected.verdict
        assert shown["score"] == pytest.approx(expected.score, rel=1e-4)
        assert shown["p_value"] == pytest.approx(expected.p_value, rel=1e-4)
    assert expected.anomaly_map.shape == (96, 80)  # turned
    about, threshold = page.locator("#about").inner_text(), python.description.threshold
    assert float(re.search(r"above (-?[\d.,]+),", about)[1].replace(",", "")) == pytest.approx(
        threshold, rel=1e-2
    )


def test_the_heat_is_where_the_map_is_high_and_can_be_hidden(page, exported, product):
    picture = product / "test" / "stain" / "001.png"
    opened(page, exported)
    scored(page, picture)
    heat = page.locator("li .heat")
    alpha = heat.evaluate(
        "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        ".filter((_, i) => i % 4 == 3)"
    )
    found = load_exported(exported, threads=1)
    part = found.predict(picture).anomaly_map.ravel() / (2 * found.description.map_threshold)
    assert alpha == pytest.approx((0.6 * 255 * part.clip(0, 1)).round().tolist(), abs=1)
    assert max(alpha) > 1.2 * min(alpha)
    page.get_by_role("checkbox", name="Heat").press("Space")
    playwright.expect(heat).to_be_hidden()


def test_a_detector_is_loaded_from_an_address_beside_the_page(page, address):
    page.goto(f"{address}?detector=detector.onnx")
    say(page, "Ready for pictures")


def test_no_detector_is_asked_of_another_host(page, address, problems):
    page.goto(f"{address}?detector=http://127.0.0.2/detector.onnx")
    say(page, r"^http://127\.0\.0\.2/detector\.onnx: cannot be loaded from this page's own host$")
    assert "Content Security Policy" in problems[0]
    problems.clear()


def test_a_files_name_is_text(page, exported, product, tmp_path):
    hostile, text = tmp_path / HOSTILE, tmp_path / HOSTILE.replace("x", "y")
    shutil.copy(product / "test" / "good" / "000.png", hostile)
    text.write_text("no picture")
    opened(page, exported)
    page.get_by_label("Pictures").set_input_files([hostile, text])
    say(page, "1 not scored")
    assert page.get_by_role("heading", level=2).inner_text() == HOSTILE
    assert page.get_by_role("listitem").last.inner_text().startswith(f"{text.name}: no picture")
    assert page.title() == "Find anomalies"
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("part", [slice(0), slice(5000, None), slice(0, -5000)])
def test_a_damaged_detector_is_refused_in_one_line(page, exported, tmp_path, part):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(exported.read_bytes()[part])
    page.get_by_label("Detector").set_input_files(path)
    say(page, r"^damaged\.onnx: damaged, or not written by export\.py \(.+\)$")
    assert page.get_by_label("Pictures").is_disabled()


def test_a_model_of_another_tool_is_refused_in_one_line(page, exported, product, tmp_path):
    path = altered(exported, tmp_path / "other.onnx", layout="1")
    page.get_by_label("Detector").set_input_files(path)
    say(page, r"^other\.onnx: .+ export\.py \(it is not of layout 2\)$")
    model = onnx.load(exported)
    del model.graph.output[2:]
    onnx.save(model, tmp_path / "less.onnx")
    opened(page, tmp_path / "less.onnx")
    page.get_by_label("Pictures").set_input_files(product / "test" / "good" / "000.png")
    say(page, "1 not scored")
    line = page.get_by_role("listitem").inner_text()
    assert re.fullmatch(r"000\.png: cannot be scored \(.+\)", line)


def test_what_is_no_picture_of_8_bits_has_one_line_and_the_others_are_scored(
    page, exported, product, tmp_path
):
    text, clear = tmp_path / "text.png", tmp_path / "clear.png"
    text.write_text("no picture")
    Image.new("RGBA", (8, 8), (200, 0, 0, 100)).save(clear)
    dark = tmp_path / "dark.png"
    with Image.open(deep(tmp_path / "dark.tif", 12)) as image:
        image.save(dark)
    opened(page, exported)
    pictures = [text, product / "test" / "good" / "000.png", clear, dark]
    page.get_by_label("Pictures").set_input_files(pictures)
    say(page, "3 not scored")
    lines = [card.inner_text() for card in page.get_by_role("listitem").all()]
    assert lines[0] == "text.png: no picture that this browser can read"
    assert lines[1].startswith("000.png")
    assert lines[2].startswith("clear.png: partly transparent")
    assert lines[3].startswith("dark.png: deeper than 8 bits")


def test_a_graph_without_resize_says_which_size_it_takes(page, exported, product, tmp_path):
    opened(page, altered(exported, tmp_path / "a.onnx", **{"about.resizes": "false"}))
    page.get_by_label("Pictures").set_input_files(product / "test" / "good" / "000.png")
    say(page, "1 not scored")
    line = page.get_by_role("listitem").inner_text()
    assert line == "000.png: this detector takes pictures of 64 × 64 alone"


def test_a_phones_width_is_enough(page, exported, tmp_path):
    long = tmp_path / f"{'a' * 200}.png"
    Image.new("RGB", (900, 100)).save(long)
    opened(page, exported)
    scored(page, long)
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    name = page.get_by_role("heading", level=2)
    assert name.evaluate("name => name.scrollWidth <= name.clientWidth")

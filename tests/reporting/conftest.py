"""Pages in a browser that has no network, and output folders without a training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.samples import ANOMALOUS, GOOD
from evaluation.evaluation import common_metrics
from evaluation.results import TEST, ImageResult, write_results
from utils.runs import Run

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")  # a process can have one driver of browsers at a time
def chromium():
    """Debian's browser, without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """What opens a file as a page; in the end, no error was in its console, no request left it."""
    wrong: list[str] = []
    contexts = []

    def open_file(path: Path, width: int = 1400, **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda r: is_outside(r.url, path) and wrong.append(r.url))
        page.goto(path.resolve().as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert not wrong


def is_outside(url: str, path: Path) -> bool:
    """Tell whether a request is for anything but the page itself and what is in it."""
    own = url.split("#", maxsplit=1)[0] == path.resolve().as_uri()
    return not (own or url.startswith(("data:", "blob:")))


@pytest.fixture
def make_output() -> Callable[..., Run]:
    return write_output


def write_output(
    output: Path,
    scores: dict[str, list[float]],
    threshold: float,
    category: str = "bolt",
    seed: int = 0,
    dataset: str = "folder",
    **options: object,
) -> Run:
    """Write metrics and results as of an evaluation by AU-PRO; return its run.

    `scores` has those of each defect's images, and of the good ones; `options` decided the result.
    """
    run, rng = Run(output, dataset, category), np.random.default_rng(seed)
    kept = np.sort(rng.normal(0, 1, 99))  # of held-out good images
    results = [
        ImageResult(
            f"{defect}/{number:05}.png",
            TEST,
            defect,
            score,
            (1 + int((kept >= score).sum())) / 100,
            ANOMALOUS if score > threshold else GOOD,
            0.01,
            {"position": score, "composition": score / 2},
        )
        for defect, of in scores.items()
        for number, score in enumerate(of)
    ]
    common = common_metrics(scores, {None: None})
    curve = [[0.0, 0.0], [0.1, 0.8], [0.3, 0.9], [1.0, 1.0]]
    common |= {
        "curve": curve,
        "curve_by_defect": {defect: curve for defect in scores if defect != GOOD},
        "au_pro_by_defect": {defect: 0.8 for defect in scores if defect != GOOD},
        "counts": {"train": 99, "validation": 10, "test": len(results)},
        "threshold": threshold,
        "map_threshold": threshold,
        "false_alarm_rate": 0.05,
        "experts": {},
        "unreadable": [],
        "seconds": {"training": None, "evaluation": 1.0, "scoring_per_image": 0.01},
        "precision": "fp32",
        "versions": {"project": "1", "python": "3.11", "torch": "2.11"},
        "seed": seed,
        "options": {"model": "glae", "model_size": "small", "train_steps": 0} | options,
        "images": "0123abcd",
    }
    metrics = {"classification_au_roc": common["auroc_pooled"], "au_pro": 0.8, "glae": common}
    run.metrics_file.parent.mkdir(parents=True, exist_ok=True)
    run.metrics_file.write_text(json.dumps(metrics))
    run.results_file.parent.mkdir(parents=True, exist_ok=True)
    write_results(run.results_file, results)
    return run

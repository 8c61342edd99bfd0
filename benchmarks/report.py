"""Benchmark of report.py: how long the page of many images takes to write, and to open."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.prediction import draw_pictures
from benchmarks.timing import spread
from data.samples import ANOMALOUS, GOOD
from deployment.exported import required
from evaluation.evaluation import common_metrics
from evaluation.results import TEST, ImageResult, write_results
from utils.options import Parser, check_positive
from utils.runs import Run

ROOT = Path(__file__).resolve().parent.parent
SIDE = 512  # pixels of the drawn images
THRESHOLD = 1.6  # some 5 % of the good ones are above it
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def add_report_options(command: Parser) -> None:
    """Add the options of the benchmark of report.py."""
    text = "how many test images, drawn, half of them of a defect"
    command.add_argument("--images", type=int, default=20_000, help=text)
    command.add_argument("--repeats", type=int, default=3, help="runs that the median is of")


def check_report(options: argparse.Namespace) -> list[str]:
    return check_positive(options, "images", "repeats")


def make_output(folder: Path, count: int, seed: int) -> Run:
    """Write what an evaluation of `count` drawn images leaves, but for maps and a detector."""
    rng, run = np.random.default_rng(seed), Run(folder / "output", "folder", "product")
    counts = {"train/good": 2, "test/good": count - count // 2, "test/dent": count // 2}
    for place, number in counts.items():
        (folder / "product" / place).parent.mkdir(parents=True, exist_ok=True)
        draw_pictures(folder / "product" / place, number, SIDE, seed)
    kept, results = rng.normal(0, 1, 99), []  # scores of held-out good images
    for defect, shift in {GOOD: 0, "dent": 3}.items():
        for image in sorted((folder / "product" / "test" / defect).iterdir()):
            score = rng.normal(shift)
            p = (1 + int((kept >= score).sum())) / (1 + len(kept))
            verdict = ANOMALOUS if score > THRESHOLD else GOOD
            said = (f"{defect}/{image.name}", TEST, defect, score, p, verdict, 0.01)
            results.append(ImageResult(*said, {"position": score, "composition": score}))
    for file in (run.metrics_file, run.results_file, run.config_file):
        file.parent.mkdir(parents=True)
    run.write_config({"folder_path": str(folder / "product"), "seed": seed})
    write_results(run.results_file, results)
    run.metrics_file.write_text(json.dumps(made_up_metrics(results, seed)), encoding="utf-8")
    return run


def made_up_metrics(results: list[ImageResult], seed: int) -> dict:
    """Return metrics that fit the results; of pixels, of which there are none, any."""
    scores = {d: [r.score for r in results if r.defect == d] for d in (GOOD, "dent")}
    rates = np.linspace(0, 1, 500)
    ours = common_metrics(scores, {None: None}) | {"threshold": THRESHOLD, "seed": seed}
    ours |= {"map_threshold": 1.0, "curve": np.stack([rates, rates**0.1], 1).tolist()}
    return {"classification_au_roc": ours["auroc_pooled"], "au_pro": 0.8, "glae": ours}


def write_once(output: Path) -> float:
    """Return the seconds that report.py takes, from its call to its end."""
    begun = time.perf_counter()
    line = [sys.executable, str(ROOT / "report.py"), str(output)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode not in (0, 2):  # 2: there is no detector
        raise RuntimeError(f"report.py: {done.stderr}")
    return seconds


def open_pages(page: Path, repeats: int) -> list[float]:
    """Return the seconds until a browser has loaded and drawn a page, in a new window each."""
    playwright = required("playwright.sync_api", "requirements-dev.txt")
    flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    seconds = []
    with playwright.sync_playwright() as driver:
        own = shutil.which("chromium")  # else the library's
        with driver.chromium.launch(executable_path=own, args=flags) as browser:
            for _ in range(repeats):
                window = browser.new_page()
                begun = time.perf_counter()
                window.goto(page.resolve().as_uri())
                window.evaluate(DRAWN)
                seconds.append(time.perf_counter() - begun)
                window.close()
    return seconds


def benchmark_report(options: argparse.Namespace) -> dict:
    """Return how long the page of many images takes to write and to open, and its size."""
    with tempfile.TemporaryDirectory() as folder:
        output = make_output(Path(folder), options.images, options.seed).output
        page = output / "report" / "index.html"
        written = [write_once(output) for _ in range(options.repeats)]
        opened = open_pages(page, options.repeats)
        size = page.stat().st_size
    result = spread(written, "seconds_to_write") | spread(opened, "seconds_to_open")
    settings = {"images": options.images, "repeats": options.repeats, "seed": options.seed}
    return {"benchmark": "report", **result, "page_bytes": size, "settings": settings}

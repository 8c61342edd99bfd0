"""What tests of predict.py share: how it is called, new pictures, and what it wrote."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import predict
from tests.conftest import fill, picture
from utils.presets import parse

MACHINE = ["--device", "cpu", "--precision", "fp32", "--workers", "2"]


@pytest.fixture
def run_predict():
    """Run predict.py in this process; return its exit code."""

    def run(*argv: object) -> int:
        return predict.main(parse(predict.get_parser(), [*map(str, argv), *MACHINE]))

    return run


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder as a customer sends it: sub-folders, formats, sizes, umlauts, no image."""
    folder = tmp_path / "Neue Bilder"
    fill(folder / "Prüfplatz 2", 2)
    picture(np.random.default_rng(8), stain=True).save(folder / "größe.jpg")
    picture(np.random.default_rng(9), stain=False).convert("L").resize((50, 70)).save(
        folder / "grey.bmp"
    )
    (folder / "notes.txt").write_text("no image")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rgb(path: Path) -> np.ndarray:
    """Return an image's pixels, uint8 (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))

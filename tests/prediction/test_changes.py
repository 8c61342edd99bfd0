"""predict.py --drift: light that changes slowly is told; what does not change, is not."""

import re

import numpy as np
import pytest

from scoring.drift import Drift
from tests.conftest import fill, picture
from tests.prediction.conftest import rows_of
from tests.prediction.filming import film

pytestmark = pytest.mark.filterwarnings("ignore:.*at best")
CALM = 60  # pictures before the light begins to change


def lit(number: int, levels: int) -> np.ndarray:
    """Return a product, every twelfth with a stain, `levels` brighter, uint8 (80, 96, 3)."""
    image = np.asarray(picture(np.random.default_rng(number), stain=number % 12 == 7))
    return np.clip(image.astype(int) + levels, 0, 255).astype(np.uint8)


def test_light_that_changes_slowly_is_told_with_the_picture_where_it_began(
    alone, run_predict, tmp_path, capsys
):
    videos = {
        name: film(tmp_path / f"{name}.avi", [lit(n, max(0, n - CALM) * step) for n in range(110)])
        for name, step in (("same", 0), ("brighter", 1))
    }
    line = ("--drift", 0.01, "--csv", tmp_path / "a.csv")
    assert run_predict(alone.folder, "--video", videos["same"], *line) == 0
    assert "have changed" not in capsys.readouterr().err
    assert max(float(row["drift"]) for row in rows_of(tmp_path / "a.csv")) < 2

    assert run_predict(alone.folder, "--video", videos["brighter"], *line) == 0
    told = re.findall(
        r"have changed since about picture (\d+) \((.*?)\).*chance of 0\.01",
        capsys.readouterr().err,
    )
    assert told  # and again, as long as it goes on
    number, name = int(told[0][0]), told[0][1]
    assert name == f"{videos['brighter']}#{number - 1:06}"
    assert CALM - 10 < number < CALM + 30
    rows = rows_of(tmp_path / "a.csv")
    at = next(n for n, row in enumerate(rows, 1) if float(row["drift"]) >= 2)
    assert at < CALM + 45
    drift = Drift(0.01)
    for row in rows:
        drift.update(float(row["score"]))
        assert float(row["drift"]) == drift.evidence
    assert float(rows[at]["drift"]) < 1  # it has begun again


def test_without_drift_no_row_has_it(alone, run_predict, tmp_path):
    fill(tmp_path / "new", 2)
    for option, there in (((), False), (("--drift",), True)):
        line = (tmp_path / "new", "--csv", tmp_path / "a.csv", *option)
        assert run_predict(alone.folder, *line) == 0
        assert ("drift" in rows_of(tmp_path / "a.csv")[0]) == there

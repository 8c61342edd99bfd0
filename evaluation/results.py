"""Every image's result on disk: a row each of a file of results, written and read again."""

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data.samples import ANOMALOUS, GOOD, InputError, require_file
from utils.files import written_aside

FIELDS = ("image", "split", "defect", "score", "p_value", "verdict", "seconds")
NEEDED = {*FIELDS} - {"split", "seconds"}  # which an earlier version did not write
TEST, UNLABELLED = "test", "unlabelled"  # splits
MISSED, FALSE_ALARM, FOUND, PASSED = "missed", "false alarm", "found", "passed"
OUTCOMES = (MISSED, FALSE_ALARM, FOUND, PASSED)
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}  # file names may be no UTF-8


class ImageResult(NamedTuple):
    """What a detector said of an image of a run."""

    image: str  # its place below `test`, with slashes
    split: str  # TEST, or UNLABELLED
    defect: str  # its folder: GOOD, or what is wrong; of an unlabelled image the folder's name
    score: float
    p_value: float | None  # None by a detector of an earlier version
    verdict: str  # by the threshold that the run has stored
    seconds: float | None  # that the detector took; None in a file of an earlier version
    experts: dict[str, float]  # each expert's own score

    @property
    def anomalous(self) -> bool:
        return self.verdict == ANOMALOUS

    @property
    def outcome(self) -> str:
        """How the verdict came out, one of OUTCOMES; of an image without a label the verdict."""
        if self.split == UNLABELLED:
            return self.verdict
        if self.defect == GOOD:
            return FALSE_ALARM if self.anomalous else PASSED
        return FOUND if self.anomalous else MISSED


def worst_first(results: Iterable[ImageResult], threshold: float) -> list[ImageResult]:
    """Return results, the most wrong first.

    Missed defects by rising score, false alarms by falling score, then the right ones, the nearest
    to the threshold first; in the end those without a label, by falling score.
    """

    def place(result: ImageResult) -> tuple[int, float]:
        if result.split == UNLABELLED:
            return 3, -result.score
        if result.outcome == MISSED:
            return 0, result.score
        if result.outcome == FALSE_ALARM:
            return 1, -result.score
        return 2, abs(result.score - threshold)

    return sorted(results, key=place)


def write_results(path: Path, results: list[ImageResult]) -> None:
    """Write a row for each image; all have the same experts."""
    text = io.StringIO()
    writer = csv.writer(text)  # ends lines by CR LF, so that it quotes a name with either
    writer.writerow([*FIELDS, *results[0].experts])
    for *values, experts in results:
        writer.writerow([*values, *experts.values()])
    with written_aside(path) as aside:
        aside.write_text(text.getvalue(), newline="", **ENCODING)


def read_results_file(path: Path) -> list[ImageResult]:
    """Read what `write_results` wrote, or an earlier version. Raises InputError for another."""
    try:
        require_file(path)
        with path.open(newline="", **ENCODING) as file:
            rows = csv.DictReader(file, strict=True)
            if lacks := NEEDED - {*(rows.fieldnames or ())}:
                raise ValueError(f"it has no {', '.join(sorted(lacks))}")
            return [image_result(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        kind = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} is no file of results: evaluate it again ({kind})") from error


def image_result(row: dict[str, str]) -> ImageResult:
    """Return a row of a file of results. Raises ValueError, KeyError or TypeError for no such."""
    values = {"split": TEST, "seconds": "", **row}
    if values["verdict"] not in (GOOD, ANOMALOUS):
        raise ValueError(f"{values['verdict']!r} is no verdict")
    return ImageResult(
        values["image"],
        values["split"],
        values["defect"],
        number(values["score"]),
        number(values["p_value"]) if values["p_value"] else None,
        values["verdict"],
        number(values["seconds"]) if values["seconds"] else None,
        {name: number(value) for name, value in row.items() if name not in FIELDS},
    )


def number(text: str) -> float:
    """Read a finite number. Raises ValueError for another."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value

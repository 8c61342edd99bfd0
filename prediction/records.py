"""What predict.py says of each picture: a line of a table, a row of CSV, a JSON object."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from prediction.predictor import Prediction
from utils.commands import printable
from utils.files import written_aside

FIELDS = ("image", "verdict", "score", "p_value", "threshold", "left", "top", "right", "bottom")
FIELDS += ("area", "map_threshold", "milliseconds")
DRIFT = "drift"  # the last field, with --drift
HEAD = (
    f"{'verdict':9} {'score':>8} {'p':>6} {'threshold':>9} {'area':>8}  {'box':22} {'ms':>6}  image"
)

Sink = Callable[[Prediction], None]


def record(prediction: Prediction) -> dict:
    """Return FIELDS of a prediction, each expert's score, and the drift where it is followed.

    None is not known, or not there.
    """
    place = prediction.region or (None,) * 5
    values = (
        str(prediction.path),
        prediction.verdict,
        prediction.score,
        prediction.p_value,
        prediction.threshold,
        *place,
        prediction.map_threshold,
        round(1000 * prediction.seconds, 3),
    )
    drift = {} if prediction.drift is None else {DRIFT: prediction.drift}
    return dict(zip(FIELDS, values, strict=True)) | prediction.experts | drift


def line(prediction: Prediction) -> str:
    """Return a prediction as a line below HEAD."""
    region, p = prediction.region, prediction.p_value
    box = f"{region.left},{region.top} - {region.right},{region.bottom}" if region else "-"
    return (
        f"{prediction.verdict:9} {prediction.score:8.4g} {'-' if p is None else f'{p:.3f}':>6} "
        f"{prediction.threshold:9.4g} {region.area if region else '-':>8}  {box:22} "
        f"{1000 * prediction.seconds:6.1f}  {printable(prediction.path)}"
    )


def show(prediction: Prediction) -> None:
    """Print a line of the table."""
    print(line(prediction), flush=True)


def as_json(prediction: Prediction) -> str:
    """Return a prediction as one line of JSON."""
    return json.dumps(record(prediction), ensure_ascii=False)


def opened(path: Path, errors: str) -> TextIO:
    """Open a file of rows; `errors` is what becomes of names that are no UTF-8."""
    return path.open("w", encoding="utf-8", errors=errors, newline="")


@contextmanager
def csv_file(path: Path, more: tuple[str, ...]) -> Iterator[Sink]:
    """Give what adds a row to a CSV file, which is there when the block ends.

    `more` are the fields behind FIELDS.
    """
    with written_aside(path.resolve()) as aside, opened(aside, "surrogateescape") as file:
        writer = csv.DictWriter(file, (*FIELDS, *more), lineterminator="\n")
        writer.writeheader()
        yield lambda prediction: writer.writerow(record(prediction))


@contextmanager
def json_file(path: Path | None) -> Iterator[Sink]:
    """Give what adds a line of JSON to a file, which is there when the block ends, or to stdout."""
    if path is None:
        yield lambda prediction: print(as_json(prediction), file=sys.stdout, flush=True)
        return
    with written_aside(path.resolve()) as aside, opened(aside, "backslashreplace") as file:
        yield lambda prediction: file.write(f"{as_json(prediction)}\n")

"""What predict.py says of each picture: a line of a table, a row of CSV, a JSON object."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prediction.verdicts import Prediction, Predictor
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


def columns_of(predictor: Predictor, drift: bool) -> tuple[str, ...]:
    """Return the fields of each record that a detector gives, with `drift` where it is followed."""
    return (*FIELDS, *predictor.experts, *([DRIFT] if drift else []))


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


def csv_row(columns: tuple[str, ...], prediction: Prediction | None = None) -> bytes:
    """Return a prediction's row of CSV, or the header; names that are no UTF-8 stay as they are."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if prediction:
        writer.writerow(record(prediction))
    else:
        writer.writeheader()
    return text.getvalue().encode("utf-8", "surrogateescape")


def json_row(prediction: Prediction) -> bytes:
    """Return a prediction's line of JSON; names that are no UTF-8 are escaped."""
    return f"{as_json(prediction)}\n".encode("utf-8", "backslashreplace")


@contextmanager
def csv_file(path: Path, columns: tuple[str, ...]) -> Iterator[Sink]:
    """Give what adds a row to a CSV file, which is there when the block ends."""
    with written_aside(path.resolve()) as aside, aside.open("wb") as file:
        file.write(csv_row(columns))
        yield lambda prediction: file.write(csv_row(columns, prediction))


@contextmanager
def json_file(path: Path | None) -> Iterator[Sink]:
    """Give what adds a line of JSON to a file, which is there when the block ends, or to stdout."""
    if path is None:
        yield lambda prediction: print(as_json(prediction), file=sys.stdout, flush=True)
        return
    with written_aside(path.resolve()) as aside, aside.open("wb") as file:
        yield lambda prediction: file.write(json_row(prediction))

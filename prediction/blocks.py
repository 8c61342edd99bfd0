"""Blocks of pictures: what is scored at once on a cluster, and the part of the rows that it gives.

A folder of results holds `manifest.json`, which says what is scored by what, and a part a block.
What is there is whole, so that the same command goes on with the parts that are not.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data.listing import is_image
from data.samples import ANOMALOUS, InputError, noted, report_faults
from prediction.inputs import find_images
from prediction.verdicts import Tally
from utils.storage import Store, is_url

MANIFEST = "manifest.json"
ERROR = "error"  # the last column: why a picture has no score
TEXTS = ("image", "verdict", ERROR)  # the columns that hold no number
WHOLE = ("left", "top", "right", "bottom", "area")  # pixels, those of whole numbers
DIFFERENT = {  # what a manifest says, and what to call it
    "pictures": "other pictures",
    "detector": "another detector",
    "ignore": "another --ignore",
    "false_alarm_rate": "another --false_alarm_rate",
    "precision": "another --precision",
    "form": "another format",
    "block": "another --block",
}


class Item(NamedTuple):
    """A picture: its name below a URL, or its path where `root` is empty."""

    root: str
    name: str
    size: int  # bytes

    @property
    def shown(self) -> str:
        """What it is called in its row, as it was given."""
        return f"{self.root}/{self.name}" if self.root else self.name


def find_items(names: list[str]) -> tuple[list[Item], str]:
    """Return each picture that is meant, those of a URL by name; and a hash of what they were then.

    A name is as in `find_images`, or the URL of a folder. Raises InputError with every name that
    means no picture, or that holds one with a hostile name.
    """
    faults: list[str] = []
    found: dict[Item, float] = {}  # when it changed, in seconds since 1970
    for name in names:
        with noted(faults):
            found |= items_of_url(name.rstrip("/")) if is_url(name) else items_of_path(name)
    report_faults(faults)
    digest = hashlib.sha256()
    for item, changed in found.items():
        digest.update(json.dumps([*item, changed]).encode())
    return [*found], digest.hexdigest()


def items_of_url(url: str) -> dict[Item, float]:
    """Return the pictures below a URL, sorted by name."""
    listing = Store(url).listing()
    images = [name for name in listing if is_image(Path(name))]
    if not images:
        raise InputError(f"{url} holds no image: name a folder with images below it")
    return {Item(url, name, listing[name].size): listing[name].changed for name in images}


def items_of_path(name: str) -> dict[Item, float]:
    """Return the pictures that a path or a pattern means; what is gone meanwhile has no size."""
    found = {}
    for path in find_images([name]):
        status = path.stat() if path.is_file() else None
        item = Item("", str(path), status.st_size if status else 0)
        found[item] = status.st_mtime if status else 0.0
    return found


def found_in(store: Store, manifest: dict, option: str) -> set[str]:
    """Return the names of what a folder of results has already: a manifest and parts, or nothing.

    Raises InputError, which names the `option`, where it is another command's.
    """
    names = set(store.listing())
    if MANIFEST in names:
        former = read_manifest(store, option)
        others = [text for key, text in DIFFERENT.items() if former.get(key) != manifest[key]]
        if others:
            what = ", ".join(others)
            raise InputError(f"{option} holds the rows of {what}: name another folder")
    elif names:
        raise InputError(f"{option} holds files, and no {MANIFEST}: name an empty folder")
    return names


def claim(store: Store, manifest: dict) -> None:
    """Make an empty folder of results this command's."""
    store.write(MANIFEST, json.dumps(manifest, indent=2).encode())


def read_manifest(store: Store, option: str) -> dict:
    """Return what a folder of results says of itself. Raises InputError where that is damaged."""
    try:
        found = json.loads(store.read(MANIFEST))
    except ValueError as error:
        raise InputError(f"{option}: its {MANIFEST} is damaged: name another folder") from error
    return found if isinstance(found, dict) else {}


def part_name(number: int, form: str) -> str:
    return f"part-{number:06}.{form}"


def encoded(columns: tuple[str, ...], rows: list[dict], form: str) -> bytes:
    """Return rows as a file of "csv" or "parquet"."""
    return as_csv(columns, rows) if form == "csv" else as_parquet(columns, rows)


def as_csv(columns: tuple[str, ...], rows: Iterable[dict]) -> bytes:
    """Return rows as those of predict.py; names that are no UTF-8 stay as they are."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def as_parquet(columns: tuple[str, ...], rows: list[dict]) -> bytes:
    """Return rows with the same types in each part; names that are no UTF-8 are escaped."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = dict.fromkeys(TEXTS, pa.string()) | dict.fromkeys(WHOLE, pa.int64())
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in columns])
    plain = [
        {name: row.get(name) for name in columns}
        | {name: escaped(row[name]) for name in TEXTS if row.get(name) is not None}
        for row in rows
    ]
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(plain, schema), sink)
    return sink.getvalue().to_pybytes()


def escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def tally_of(content: bytes, form: str) -> Tally:
    """Return what a part says, which was written before."""
    if form == "csv":
        text = io.StringIO(content.decode("utf-8", "surrogateescape"), newline="")
        verdicts = [row["verdict"] for row in csv.DictReader(text)]
    else:
        from pyarrow import BufferReader, parquet

        table = parquet.read_table(BufferReader(content), columns=["verdict"])
        verdicts = table["verdict"].to_pylist()
    scored = sum(map(bool, verdicts))
    return Tally(scored, verdicts.count(ANOMALOUS), len(verdicts) - scored)

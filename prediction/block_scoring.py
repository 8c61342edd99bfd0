"""What Ray's actors do with a block of pictures: read and decode them, score them, write its rows.

A block is a row of Ray Data: its number and its items, then its decoded images, then what became of
them. A row holds numbers, arrays and text, never an object.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from data.image_files import Size, reason
from data.images import in_background, load_image
from data.samples import ANOMALOUS, InputError, require_file
from data.workers import WorkerDied
from prediction.blocks import ERROR, Item, encoded, part_name
from prediction.predictor import load_detector
from prediction.records import columns_of, record
from prediction.verdicts import Tally
from utils.commands import explained, printable
from utils.storage import Store

if TYPE_CHECKING:
    from ray.actor import ActorHandle

READERS = 8  # threads, which mostly wait for a store
MOST_BYTES = 2**30  # of a picture's file: a node's memory holds several
MOST_TRIES = 4  # of a block
NAMED = 3  # broken pictures, of which the row alone tells the others
Row = dict  # of Ray Data


class Loaded(NamedTuple):
    """A picture as the detector sees it, or why it cannot."""

    item: Item
    image: torch.Tensor | None  # uint8 (3, H, W)
    size: Size  # height, width of the picture itself
    error: str = ""
    is_deeper: bool = False  # has values of more bits than the training images


class Reader:
    """Reads and decodes blocks, for a detector that sees `size` and images of `bits`.

    `folder` is where the command was given: paths are relative to it.
    """

    def __init__(self, size: Size, bits: int, folder: str):
        self.size, self.bits, self.folder = size, bits, folder
        self.store = cache(Store)

    def items(self, row: Row) -> list[Item]:
        return [Item(*values) for values in json.loads(row["items"])]

    def content(self, item: Item) -> bytes:
        """Return a picture's file. Raises InputError for one that cannot be read."""
        if item.size > MOST_BYTES:
            raise InputError(f"{item.name} has more than {MOST_BYTES >> 30} GiB")
        if item.root:
            return self.store(item.root).read(item.name)
        path = Path(self.folder, item.name)
        try:
            require_file(path)
            return path.read_bytes()
        except OSError as error:
            text = f"cannot read the image {item.name}: {reason(error)}; replace or remove it"
            raise InputError(text) from error

    def load(self, item: Item) -> Loaded:
        """Return a picture decoded, by the one preprocessing."""
        deeper: list[Path] = []
        try:
            content = BytesIO(self.content(item))
            image, size = load_image(Path(item.name), self.size, self.bits, deeper, content)
        except InputError as error:
            return Loaded(item, None, (0, 0), printable(error))
        return Loaded(item, image, size, is_deeper=bool(deeper))

    def loaded(self, row: Row) -> Iterator[Loaded]:
        """Yield the pictures of a block, in order; threads read ahead."""
        return in_background(self.load, self.items(row), READERS)

    def __call__(self, row: Row) -> Row:
        """Decode a block where another actor scores it: uint8 (N, 3, H, W) of what can be read."""
        found = [*self.loaded(row)]
        images = [one.image for one in found if one.image is not None]
        empty = torch.empty((0, 3, *self.size), dtype=torch.uint8)
        about = [[one.size, one.error, one.is_deeper] for one in found]
        stacked = torch.stack(images) if images else empty
        return row | {"images": stacked.numpy(), "about": json.dumps(about)}


def unpacked(reader: Reader, row: Row) -> Iterator[Loaded]:
    """Yield the pictures of a block that `Reader` has decoded."""
    images = iter(torch.from_numpy(np.array(row["images"])))
    for item, (size, error, is_deeper) in zip(
        reader.items(row), json.loads(row["about"]), strict=True
    ):
        yield Loaded(item, None if error else next(images), tuple(size), error, is_deeper)


class Tries:
    """Counts how often each block was begun: Ray gives one to the next actor without end."""

    def __init__(self):
        self.begun: Counter[int] = Counter()
        self.stopped = False

    def begin(self, number: int) -> int:
        """Return which try of a block this is; 0 where no more shall begin."""
        if self.stopped:
            return 0
        self.begun[number] += 1
        return self.begun[number]

    def stop(self) -> list[int]:
        """Let no block begin any more; return those that have."""
        self.stopped = True
        return [*self.begun]


class BlockScorer:
    """Scores blocks with a detector that is loaded once, and writes their parts to a store.

    `files` are the contents of the detector's file and of a region to ignore, by the names of
    `load_detector`'s arguments, as Ray's object store holds them; `chosen` are its other arguments,
    `tries` is an actor of `Tries`.
    """

    def __init__(
        self, files: dict, chosen: dict, folder: str, url: str, form: str, tries: "ActorHandle"
    ):
        import ray

        self.begin = lambda number: ray.get(tries.begin.remote(number))
        with TemporaryDirectory() as aside:
            paths = {name: Path(aside, name) for name in files}
            for name, content in files.items():
                paths[name].write_bytes(ray.get(content))
            self.predictor = load_detector(**paths, **chosen)
        self.reader = Reader(self.predictor.size, self.predictor.bits, folder)
        self.columns = (*columns_of(self.predictor, False), ERROR)
        self.results, self.form = Store(url), form

    def __call__(self, row: Row) -> Row:
        """Score a block and write its part; return a tally, or why this failed.

        Ray would put words of its own in the place of an error's.
        """
        nothing = Tally()._asdict() | {"deeper": 0, "broken": "[]"}
        nothing |= {"number": row["number"], "failure": "", "mendable": False}
        try:
            return nothing | self.score(row)
        except Exception as error:
            text = "; ".join(explained(error, argparse.Namespace()))
            return nothing | {"failure": text, "mendable": isinstance(error, InputError)}

    def score(self, row: Row) -> Row:
        """Score a block, which it decodes where nobody has, and write its part.

        Return its tally, how many pictures have more bits than the training images, and why the
        first ones cannot be read; nothing where no more shall begin. Raises WorkerDied for a block
        that several actors have died of: a picture may be to blame.
        """
        tries = self.begin(row["number"])
        if not tries:
            return {}
        if tries > MOST_TRIES:
            items = self.reader.items(row)
            where = f"{items[0].shown} to {items[-1].shown}"
            raise WorkerDied(f"{MOST_TRIES} actors died, of too little memory maybe, at {where}")
        loaded = unpacked(self.reader, row) if "images" in row else self.reader.loaded(row)
        rows, deeper = [], 0
        while some := [*islice(loaded, self.predictor.batch_size)]:
            rows += self.rows(some)
            deeper += sum(one.is_deeper for one in some)
        content = encoded(self.columns, rows, self.form)
        self.results.write(part_name(row["number"], self.form), content)
        broken = [one[ERROR] for one in rows if ERROR in one]
        tally = Tally(
            sum("verdict" in one for one in rows),
            sum(one.get("verdict") == ANOMALOUS for one in rows),
            len(broken),
        )
        return tally._asdict() | {"deeper": deeper, "broken": json.dumps(broken[:NAMED])}

    def rows(self, some: list[Loaded]) -> list[dict]:
        """Return the rows of some pictures, of which those that can be read are scored at once."""
        readable = [one for one in some if one.image is not None]
        found = iter(())
        if readable:
            images = torch.stack([one.image for one in readable])
            found = iter(self.predictor.predict_loaded(images, [one.size for one in readable]))
        return [
            (record(next(found)) if one.image is not None else {ERROR: one.error})
            | {"image": one.item.shown}
            for one in some
        ]

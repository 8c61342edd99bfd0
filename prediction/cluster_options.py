"""What predict.py --ray is asked for: its options, every fault of them, what is then to be done."""

import argparse
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data.ignored import read_region
from data.samples import noted, report_faults
from prediction.blocks import Item, find_items
from prediction.exported_files import is_exported
from prediction.inputs import check_apart
from utils.detectors import find_detector
from utils.files import user_path
from utils.options import Parser, check_positive
from utils.recipe import check_false_alarm_rate
from utils.storage import check_url, is_url

BLOCK = 64  # pictures: a second's work or more, beside which handing it out is nothing
FORMS = ("csv", "parquet")
FILES = tuple(f".{form}" for form in FORMS)  # how a name ends that is meant for a file
ALONE = ("watch", "video", "camera", "jsonl", "pictures", "maps", "drift", "device_gpu", "runtime")
OWN = ("parquet", "scorers", "block")


def add_cluster_options(parser: Parser) -> None:
    """Add --ray and what it alone has."""
    group = parser.add_argument_group("on a cluster")
    text = (
        "score over a cluster of Ray, into a folder of parts: auto joins that of RAY_ADDRESS or of "
        "this machine, local starts Ray here; IMAGES and --csv may be URLs (s3://bucket/folder)"
    )
    group.add_argument("--ray", metavar="{auto,local,HOST:PORT}", help=text)
    text = "with --ray, parts in Parquet; as --csv a folder or a URL"
    group.add_argument("--parquet", type=place, metavar="DIR", help=text)
    text = "actors that score; default: one a GPU, where there is none one a CPU"
    group.add_argument("--scorers", type=int, metavar="N", help=text)
    group.add_argument("--block", type=int, metavar="N", help=f"pictures a part; default: {BLOCK}")


def place(text: str) -> Path | str:
    """Read a path; what can only be a folder stays text: a URL, with / at its end, or there."""
    path = user_path(text)
    return text if is_url(text) or text.endswith("/") or path.is_dir() else path


def check_here(options: argparse.Namespace) -> list[str]:
    """Return the faults of options that need --ray, where that is not given."""
    faults = []
    if any(map(is_url, options.images)):
        faults.append("IMAGES: a URL needs --ray")  # it is not repeated: it may hold a password
    if isinstance(options.csv, str):
        faults.append("--csv: a folder or a URL needs --ray, else name a file")
    own = [name for name in OWN if getattr(options, name) is not None]
    return faults + [f"--{name} is for a cluster: add --ray, or leave it out" for name in own]


class Job(NamedTuple):
    """What is scored by what, and where its parts go."""

    items: list[Item]
    listed: str  # a hash of what they were then
    block: int  # pictures
    files: dict[str, bytes]  # of `load_detector`'s arguments: the detector, a region to ignore
    chosen: dict  # its others
    url: str
    form: str  # one of FORMS

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return -(-len(self.items) // self.block)

    def rows(self, numbers: Iterable[int]) -> list[dict]:
        """Return blocks as rows of Ray Data, of numbers and text."""
        starts = {number: number * self.block for number in numbers}
        parts = {n: self.items[start : start + self.block] for n, start in starts.items()}
        return [{"number": number, "items": json.dumps(items)} for number, items in parts.items()]

    def manifest(self) -> dict:
        """Return what a folder of parts has to say of itself: see `prediction.blocks`."""
        hashes = {name: hashlib.sha256(file).hexdigest() for name, file in self.files.items()}
        said = {"detector": hashes["path"], "ignore": hashes.get("ignore"), "pictures": self.listed}
        said |= {name: self.chosen[name] for name in ("precision", "false_alarm_rate")}
        return said | {"form": self.form, "block": self.block, "images": len(self.items)}


def prepare(options: argparse.Namespace) -> Job:
    """Return what is to be done. Raises one InputError with every fault."""
    faults = check_positive(options, "workers", "scoring_batch_size", "scorers", "block")
    faults += check_false_alarm_rate(options) + check_results(options)
    given = [name for name in ALONE if getattr(options, name) not in (None, False)]
    faults += [f"--{name} is not for a cluster: leave it out, or --ray" for name in given]
    if is_exported(options.detector):
        text = "is an exported file: --ray takes the run that it was written from"
        faults.append(f"{options.detector} {text}")
    if options.ignore:
        with noted(faults):
            read_region(options.ignore)
    unclear = [f for name in options.images if is_url(name) for f in check_url(name, "IMAGES")]
    found: tuple[list[Item], str] = ([], "")
    if not options.images:
        faults.append("--ray scores IMAGES: name a folder or a URL")
    elif not unclear:
        with noted(faults):
            found = find_items(options.images)
    with noted(faults):
        file = find_detector(options.detector)
    report_faults(faults + unclear)
    files = {"path": file.read_bytes()}
    if options.ignore:
        files["ignore"] = options.ignore.read_bytes()
    names = ("device", "precision", "compile", "scoring_batch_size", "false_alarm_rate")
    chosen = {name: getattr(options, name) for name in names}
    form, folder = results_of(options)
    return Job(*found, options.block or BLOCK, files, chosen, url_of(folder), form)


def results_of(options: argparse.Namespace) -> tuple[str, Path | str]:
    """Return which of FORMS is wanted, and where."""
    return next((form, getattr(options, form)) for form in FORMS if getattr(options, form))


def check_results(options: argparse.Namespace) -> list[str]:
    """Return the faults of the folder of parts."""
    if bool(options.csv) == bool(options.parquet):
        return ["--ray writes parts: name one folder for them, by --csv or by --parquet"]
    form, folder = results_of(options)
    path = user_path(str(folder))
    if str(folder).endswith(FILES) and not path.is_dir():
        return [f"--{form}: with --ray it is a folder: name one, or put / at its end"]
    if is_url(str(folder)):
        return check_url(folder, f"--{form}")
    if path.exists() and not path.is_dir():
        return [f"--{form} {path} is a file: with --ray name a folder"]
    return check_apart(f"--{form}", path, options.images)


def url_of(folder: Path | str) -> str:
    """Return a folder as a URL."""
    if is_url(str(folder)):
        return str(folder)
    return Path(os.path.abspath(user_path(str(folder)))).as_uri()

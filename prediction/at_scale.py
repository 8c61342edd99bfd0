"""Score any number of pictures over a cluster of Ray: predict.py --ray. See docs/predict.md.

Ray Data hands out blocks, moves what is decoded, holds back who is too fast, and gives the block of
an actor that died to another. Rows do not pass through this process.
"""

import argparse
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from data.images import in_background
from data.samples import InputError
from data.workers import WorkerDied
from prediction.block_scoring import NAMED, BlockScorer, Reader, Tries
from prediction.blocks import MANIFEST, claim, found_in, part_name, tally_of
from prediction.cluster_options import Job, prepare, results_of
from prediction.predictor import load_detector
from prediction.verdicts import Predictor, Tally
from utils.commands import printable, say
from utils.interrupts import Interrupts
from utils.progress import progress
from utils.ray_cluster import beside_driver, connect, missing
from utils.storage import Store

READERS = 16  # threads that read the parts of before


class Cluster(NamedTuple):
    """Ray, joined, and what there is to score with."""

    ray: ModuleType
    cpus: int
    gpus: int  # 0 where none shall be used
    scorers: int | None  # that may be at once; None for as many as fit


def predict_at_scale(options: argparse.Namespace) -> tuple[Tally, Predictor]:
    """Score all that is meant into a folder of parts, but for those that are there.

    Return what there is then, and a predictor as those that scored. Raises InputError for every
    fault of the options, for what cannot be read or written, where no cluster is.
    """
    job = prepare(options)
    own = {"false_alarm_rate": options.false_alarm_rate, "ignore": options.ignore}
    predictor = load_detector(options.detector, device="cpu", **own)
    form, folder = results_of(options)
    results, manifest = Store(job.url), job.manifest()
    there = found_in(results, manifest, f"--{form} {folder}")
    former = [n for n in range(job.count) if part_name(n, form) in there]
    tally = tally_of_parts(results, [part_name(n, form) for n in former], form)
    begins = "; Ray begins ..." if len(former) < job.count else ""
    said = f"pictures: {len(job.items)}, in blocks: {job.count}"
    say(f"{said}, of which {len(former)} were done before{begins}")
    broken: list[str] = []
    if left := sorted({*range(job.count)} - {*former}):
        cluster = join(options)
        if MANIFEST not in there:
            claim(results, manifest)
        tally, broken = score_blocks(cluster, job, predictor, left, tally)
    tell_broken(broken, tally.unreadable, folder)
    if not tally.scored:
        raise InputError("no picture could be read")
    return tally, predictor


def join(options: argparse.Namespace) -> Cluster:
    """Join the cluster, or start one. Raises InputError where it lacks what scoring needs."""
    ray = connect(options.ray)
    try:
        import_module("ray.data")  # a part of Ray that has requirements of its own
    except ImportError as error:
        raise missing(error) from error
    there, device = ray.cluster_resources(), options.device
    cpus, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    if not cpus:
        text = "no node of the cluster has a core yet: wait for its workers"
        raise InputError(f"--ray {options.ray}: {text}")
    if device.startswith("cuda") and not gpus:
        raise InputError(f"--device {device}: no node of the cluster has a GPU: leave it out")
    return Cluster(ray, cpus, 0 if device == "cpu" else gpus, options.scorers)


def tell_broken(named: list[str], count: int, folder: Path | str) -> None:
    """Name some of the broken pictures with their reasons, and say where the others are named."""
    for fault in named:
        say(f"error: {printable(fault)}")
    if count > len(named):
        more = f"... and {count - len(named)} more" if named else f"broken pictures: {count}"
        say(f"{more}: column error in {printable(folder)}")


def tally_of_parts(results: Store, names: list[str], form: str) -> Tally:
    """Return what parts of before say."""
    found = in_background(lambda name: tally_of(results.read(name), form), names, READERS)
    return Tally.sum(found)


def score_blocks(
    cluster: Cluster, job: Job, predictor: Predictor, numbers: list[int], tally: Tally
) -> tuple[Tally, list[str]]:
    """Score blocks of these numbers.

    Return their tally and the one of before together, and why the first pictures are broken.
    Raises KeyboardInterrupt when interrupted, by which no part is lost.
    """
    deeper, total = 0, len(job.items)
    broken: list[tuple[int, str]] = []  # the number of its block, the reason
    bar = progress("scoring", total, "picture", initial=tally.pictures)
    with bar, closing(rows_of(cluster, job, predictor, numbers)) as found:
        for row in found:
            if row["failure"]:
                raise (InputError if row["mendable"] else WorkerDied)(row["failure"])
            deeper += row["deeper"]
            own = Tally(*(row[name] for name in Tally._fields))
            tally = Tally.sum((tally, own))
            bar.update(own.pictures)
            reasons = [(row["number"], reason) for reason in json.loads(row["broken"])]
            broken = sorted([*broken, *reasons])[:NAMED]
    if deeper:
        text = f"values of more than the {predictor.bits} bits of all training images"
        warnings.warn(f"{deeper} pictures have {text}; what is above is white", stacklevel=2)
    if tally.pictures < total:
        raise KeyboardInterrupt(f" after {tally.pictures} of {total}; the same command goes on")
    return tally, [reason for _, reason in broken]


def rows_of(cluster: Cluster, job: Job, predictor: Predictor, numbers: list[int]) -> Iterator[dict]:
    """Yield what became of each block, as it is done: see `BlockScorer`.

    At most so many actors score; more than fit begin when nodes join. Where these have GPUs, others
    decode for them; else each decodes its own blocks, which saves the way through Ray's store.
    After an interrupt no block begins, and those that have come to their end.
    """
    from ray.data import ActorPoolStrategy, DataContext, from_items

    ray, cpus, gpus, most = cluster
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # an error is told in one line
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    here = str(Path.cwd())
    blocks = from_items(job.rows(numbers), override_num_blocks=len(numbers))
    if gpus:
        view = (predictor.size, predictor.bits, here)
        pool = ActorPoolStrategy(min_size=1, max_size=cpus)
        blocks = blocks.map(Reader, fn_constructor_args=view, compute=pool, num_cpus=1)
    fit = gpus or cpus
    files = {name: ray.put(content) for name, content in job.files.items()}
    tries = beside_driver(ray, Tries)
    blocks = blocks.map(
        BlockScorer,
        fn_constructor_args=(files, job.chosen, here, job.url, job.form, tries),
        compute=ActorPoolStrategy(min_size=min(most or fit, fit), max_size=most or fit),
        num_cpus=0 if gpus else 1,
        num_gpus=1 if gpus else 0,
    )

    def stop() -> None:
        say("interrupted: waiting for the blocks in flight; again stops at once")
        tries.stop.remote()

    ended: set[int] = set()
    try:
        with Interrupts(stop) as interrupts:
            for row in blocks.iter_rows():
                ended.add(row["number"])
                yield row
                if interrupts.requested and ended.issuperset(ray.get(tries.stop.remote())):
                    break
    except ray.exceptions.RayError as error:  # an actor could not begin, or the cluster is gone
        raise WorkerDied(f"Ray: {' '.join(str(error).split())}") from error

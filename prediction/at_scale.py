"""Score any number of pictures over a cluster of Ray: predict.py --ray. See docs/predict.md.

Ray Data hands out blocks, moves what is decoded, holds back who is too fast, and gives the block of
an actor that died to another. Rows do not pass through this process.
"""

import argparse
import logging
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

from data.images import in_background
from data.samples import InputError
from data.workers import WorkerDied
from prediction.block_scoring import BlockScorer, Reader, Tries
from prediction.blocks import claim, part_name, tally_of
from prediction.cluster_options import Job, prepare, results_of
from prediction.predictor import load_detector
from prediction.verdicts import Predictor, Tally
from utils.commands import say
from utils.interrupts import Interrupts
from utils.progress import progress
from utils.ray_cluster import connect, missing
from utils.storage import Store

READERS = 16  # threads that read the parts of before


def predict_at_scale(options: argparse.Namespace) -> tuple[Tally, Predictor]:
    """Score all that is meant into a folder of parts, but for those that are there.

    Return what there is then, and a predictor as those that scored. Raises InputError for every
    fault of the options, for what cannot be read or written, where no cluster is.
    """
    job = prepare(options)
    own = {"false_alarm_rate": options.false_alarm_rate, "ignore": options.ignore}
    predictor = load_detector(options.detector, device="cpu", **own)
    form, folder = results_of(options)
    results = Store(job.url)
    there = claim(results, job.manifest(), f"--{form} {folder}")
    former = [n for n in range(job.count) if part_name(n, form) in there]
    tally = tally_of_parts(results, [part_name(n, form) for n in former], form)
    if former:
        say(f"{tally.pictures} pictures were done before: their parts are there")
    if missing := sorted({*range(job.count)} - {*former}):
        tally = score_missing(connect(options.ray), job, predictor, missing, tally, options.scorers)
    if not tally.scored:
        raise InputError("no picture could be read")
    return tally, predictor


def tally_of_parts(results: Store, names: list[str], form: str) -> Tally:
    """Return what parts of before say."""
    found = in_background(lambda name: tally_of(results.read(name), form), names, READERS)
    return Tally.sum(found)


def score_missing(
    ray: ModuleType,
    job: Job,
    predictor: Predictor,
    numbers: list[int],
    tally: Tally,
    most: int | None,
) -> Tally:
    """Score blocks of these numbers; return their tally and the one of before together.

    Raises KeyboardInterrupt when interrupted, by which no part is lost.
    """
    deeper, total = 0, len(job.items)
    bar = progress("scoring", total, "picture", initial=tally.pictures)
    with (
        Interrupts() as interrupts,
        bar,
        closing(rows_of(ray, job, predictor, numbers, most)) as found,
    ):
        for row in found:
            if row["failure"]:
                raise (InputError if row["mendable"] else WorkerDied)(row["failure"])
            deeper += row["deeper"]
            own = Tally(*(row[name] for name in Tally._fields))
            tally = Tally.sum((tally, own))
            bar.update(own.pictures)
            if interrupts.requested:
                break
    if deeper:
        text = f"values of more than the {predictor.bits} bits of all training images"
        warnings.warn(f"{deeper} pictures have {text}; what is above is white", stacklevel=2)
    if tally.pictures < total:
        raise KeyboardInterrupt(f" after {tally.pictures} of {total}; the same command goes on")
    return tally


def rows_of(
    ray: ModuleType, job: Job, predictor: Predictor, numbers: list[int], most: int | None
) -> Iterator[dict]:
    """Yield what became of each block, as it is done: see `BlockScorer`.

    At most so many actors score; more than fit begin when nodes join. Where these have GPUs, others
    decode for them; else each decodes its own blocks, which saves the way through Ray's store.
    """
    try:
        from ray.data import ActorPoolStrategy, DataContext, from_items
    except ImportError as error:  # a part of Ray that has requirements of its own
        raise missing(error) from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # an error is told in one line
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    there, here = ray.cluster_resources(), str(Path.cwd())
    cpus, gpus = int(there.get("CPU", 1)), int(there.get("GPU", 0))
    device = job.chosen["device"]
    if device.startswith("cuda") and not gpus:
        raise InputError(f"--device {device}: no node of the cluster has a GPU: leave it out")
    gpus = 0 if device == "cpu" else gpus
    blocks = from_items(job.rows(numbers), override_num_blocks=len(numbers))
    if gpus:
        view = (predictor.size, predictor.bits, here)
        pool = ActorPoolStrategy(min_size=1, max_size=cpus)
        blocks = blocks.map(Reader, fn_constructor_args=view, compute=pool, num_cpus=1)
    fit = gpus or cpus
    files = {name: ray.put(content) for name, content in job.files.items()}
    tries = ray.remote(Tries).options(num_cpus=0, max_restarts=-1).remote()
    blocks = blocks.map(
        BlockScorer,
        fn_constructor_args=(files, job.chosen, here, job.url, job.form, tries),
        compute=ActorPoolStrategy(min_size=min(most or fit, fit), max_size=most or fit),
        num_cpus=0 if gpus else 1,
        num_gpus=1 if gpus else 0,
    )
    try:
        yield from blocks.iter_rows()
    except ray.exceptions.RayError as error:  # an actor could not begin, or the cluster is gone
        raise WorkerDied(f"Ray: {' '.join(str(error).split())}") from error

"""Train and evaluate a grid of categories, options and seeds: `python3 sweep.py --help`."""

if __name__ == "__main__":
    from utils.startup import leave_when_interrupted

    leave_when_interrupted()

import argparse
import math
import os
import sys
from contextlib import ExitStack, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

from torch.cuda import device_count

import main as training
from data.catalog import find_all
from data.samples import report_faults
from reporting.writing import report_of
from sweeping.display import Display
from sweeping.driver import Sweep
from sweeping.finished import is_finished
from sweeping.grid import Task, read_grid, tasks_of
from sweeping.jobs import GIB, Planned, host_memory, planned
from sweeping.journal import Journal
from sweeping.local import LocalExecutor, slots_here
from sweeping.mirror import fetch_results
from sweeping.on_ray import RayExecutor
from sweeping.outcome import print_outcome
from sweeping.standing import DONE, FAILED, FOUND, WAITING, Standing
from training.preparation import prepare
from utils.cache import cached
from utils.commands import explained, printable, run_command, say
from utils.files import locked_folder, user_path
from utils.options import Parser, check_not_negative, check_positive
from utils.runs import Run
from utils.storage import check_url, is_url

EXAMPLES = (
    "./sweep.sh mvtec_loco path/mvtec_loco --model_size small",
    "python3 sweep.py mvtec_ad path/mvtec_ad --seeds 0 1 2 --grid model=glae,efficientad",
    "python3 sweep.py configs/sweeps/loco.yaml --mvtec_loco_path path/mvtec_loco --ray auto",
)
SHARE = "name an --output_dir that all nodes share, or a --storage"


class SweepParser(Parser):
    """Leaves what it does not know to main.py, in `more`; what is swept stands first."""

    def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
        args = list(sys.argv[1:] if args is None else args)
        first = next((i for i, text in enumerate(args) if text.startswith("-")), len(args))
        options, more = self.parse_known_args(args[first:], namespace)
        options.sweep = args[:first]
        options.more = [text for text in more if text != "--resume"]  # which it does by itself
        return options


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = SweepParser(
        "Train and evaluate every category of a data set, or a grid of data sets, options and "
        "seeds; then print one table. What is finished, on these images and by these options, is "
        "skipped, what was interrupted goes on, what fails is tried again and does not stop the "
        "rest. All other options are main.py's. GPUS=0,1,2 trains on these GPUs alone. Exit code: "
        "0 done, 1 a training failed, 2 wrong option, 130 interrupted.",
        EXAMPLES,
        presets=False,
        usage="%(prog)s {DATASET PATH | SWEEP.yaml} [options] [options for main.py]",
    )
    group = parser.add_argument_group("grid")
    group.add_argument("--seeds", nargs="+", metavar="N", help="train everything with each seed")
    text = "train everything with each value of an option of main.py; may be repeated"
    group.add_argument("--grid", action="append", default=[], metavar="NAME=VALUE,…", help=text)
    group = parser.add_argument_group("machines")
    text = "run on a Ray cluster: auto joins this machine's, local starts one here"
    group.add_argument("--ray", metavar="{auto,local,HOST:PORT}", help=text)
    text = "part of a GPU that a training takes; default: 1, where there are GPUs"
    group.add_argument("--gpus_per_run", type=float, metavar="PART", help=text)
    text = "cores that a training takes; default: 4 on Ray, else its share of this machine's"
    group.add_argument("--cpus_per_run", type=int, metavar="N", help=text)
    text = "how often a training that failed is tried again"
    group.add_argument("--retries", type=int, default=2, metavar="N", help=text)
    group = parser.add_argument_group("output")
    group.add_argument("--output_dir", type=user_path, default=Path("output"))
    text = (
        "also keep it all below s3://bucket/folder, or another URL: sent after each checkpoint, "
        "fetched where a training goes on; --output_dir then gets what tables and reports need"
    )
    group.add_argument("--storage", metavar="URL", help=text)
    text = "where a machine keeps data sets that come from URLs, and works on what it sends"
    cache = Path("~/.cache/sweeps").expanduser()
    group.add_argument("--cache", type=user_path, default=cache, metavar="DIR", help=text)
    text = "GiB that data sets from URLs may take there"
    group.add_argument("--cache_size", type=float, default=50.0, metavar="GIB", help=text)
    group.add_argument("--overwrite", action="store_true", help="replace earlier runs")
    text = "say of each training whether it could begin; train nothing"
    group.add_argument("--check", action="store_true", help=text)
    text = "in the end write a page of it all, as report.py does"
    group.add_argument("--report", action="store_true", help=text)
    return parser


def check(options: argparse.Namespace) -> None:
    """Raise one InputError with every fault of this command's own options."""
    faults = check_positive(options, "cpus_per_run") + check_not_negative(options, "retries")
    if options.gpus_per_run is not None and not 0.01 <= options.gpus_per_run <= 1:
        faults.append(f"--gpus_per_run must be from 0.01 to 1, not {options.gpus_per_run}")
    if not 0 < options.cache_size < math.inf:
        faults.append(f"--cache_size must be above 0 and finite, not {options.cache_size}")
    faults += check_url(options.storage, "--storage") if options.storage else []
    report_faults(faults)


def find_tasks(
    options: argparse.Namespace, parser: Parser, stack: ExitStack
) -> dict[Task, str | Path | None]:
    """Return the tasks, and where on this machine the data set of each lies.

    One that has a URL is in the cache until `stack` closes. `parser` is main.py's.
    """
    grid = read_grid(options, options.more, parser)
    urls = [chosen.root for chosen in grid.datasets if chosen.root and is_url(chosen.root)]
    report_faults([fault for url in urls for fault in check_url(url, "the data set's URL")])
    size, roots = int(options.cache_size * GIB), {}
    for url in dict.fromkeys(urls):
        roots[url] = stack.enter_context(cached(url, options.cache, size))
    tasks = tasks_of(grid, lambda dataset, root: find_all(dataset, roots.get(root, root)))
    return {task: roots.get(task.root, task.root) for task in tasks}


def check_all(plans: list[Planned]) -> list[str]:
    """Print for each task what main.py --check says; return the names of those that could not."""
    failed = []
    for one in plans:
        say(printable(one.job.task.name))
        try:
            training.main(argparse.Namespace(**vars(one.options) | {"check": True}))
        except Exception as error:
            tell_error(one, error)
            failed.append(one.job.task.name)
    return failed


def tell_error(one: Planned, error: Exception) -> None:
    """Say why a task cannot begin."""
    for line in explained(error, one.options):
        say(printable(f"error: {one.job.task.name}: {line}"))


def stand(one: Planned, options: argparse.Namespace, marked: set[Run]) -> Standing:
    """Return how a task stands before it begins; say when it is finished, or cannot begin.

    With a storage only what is `marked` there is finished: all else has still to be sent.
    """
    standing = Standing(one.job.task.name, steps=one.options.train_steps, log=one.job.log_place)
    try:
        kept = not options.storage or one.run in marked
        if kept and not options.overwrite and is_finished(one.run, one.options, prepare):
            standing.state = FOUND
            say(f"{printable(standing.name)}: finished already")
    except Exception as error:
        if options.ray:  # a node may have other hardware: its main.py tells what is wrong
            return standing
        standing.state, standing.line = FAILED, explained(error, one.options)[0]
        tell_error(one, error)
    return standing


def executor_of(due: list[Planned], options: argparse.Namespace) -> LocalExecutor | RayExecutor:
    """Return what makes the attempts: this machine, or the cluster that --ray names."""
    if not due:
        return LocalExecutor([])
    memory = max(host_memory(one.options) for one in due)
    if options.ray:
        return RayExecutor(options.ray, options.gpus_per_run, options.cpus_per_run, memory)
    first = due[0].options  # a sweep varies no device
    named = first.device != "auto" or first.device_gpu is not None
    gpus = list(filter(None, os.environ.get("GPUS", "").split(",")))
    gpus = gpus or ([] if named else [str(number) for number in range(device_count())])
    return LocalExecutor(slots_here(gpus, options.gpus_per_run, options.cpus_per_run, memory))


def run(
    plans: list[Planned], options: argparse.Namespace, marked: set[Run], stack: ExitStack
) -> list[Standing]:
    """Train and evaluate all that is left to be done; return how each task stands in the end."""
    standings = [stand(one, options, marked) for one in plans]
    due = [o for o, s in zip(plans, standings, strict=True) if s.state == WAITING]
    executor = executor_of(due, options)
    stack.callback(executor.close)
    folder = options.output_dir / "sweep"
    stack.enter_context(redirect_stdout(StringIO()))  # where Ray tells of nodes, beside results
    with Display(standings, lambda: executor.slots, folder / "status.json") as display:
        journal = stack.enter_context(Journal(folder / "journal.jsonl"))
        for standing in (one for one in standings if one.state == FOUND):
            journal.note(standing, FOUND)
        sweep = Sweep(executor, standings, display, journal, options.retries)
        sweep.run([one.job for one in due])
    if sweep.interrupted:
        again = "begins anew, main.py --resume goes on with one"
        if options.storage:
            again = "begins anew, without --overwrite it goes on with what has begun"
        raise KeyboardInterrupt(
            f": the same command {again if options.overwrite else 'goes on from here'}"
        )
    return standings


def main(options: argparse.Namespace) -> int:
    """Train and evaluate all that is left to be done, and tabulate it."""
    check(options)
    parser = training.get_parser()
    parser.prog = "main.py"  # whose --help its messages name
    with ExitStack() as stack:
        tasks = find_tasks(options, parser, stack)
        plans = [planned(task, root, options, parser) for task, root in tasks.items()]
        if options.check:
            return failure(check_all(plans))
        stack.enter_context(locked_folder(options.output_dir / "sweep", "--output_dir"))
        runs = [one.run for one in plans]
        fetch = partial(fetch_results, options.storage, options.output_dir.resolve(), runs)
        standings = run(plans, options, fetch(), stack)
        marked = fetch()
    for one, standing in zip(plans, standings, strict=True):
        if standing.state == DONE and one.run not in marked:
            standing.state = FAILED
            say(f"error: {printable(standing.name)}: its results stay on {standing.node}: {SHARE}")
    ended = [o.run for o, s in zip(plans, standings, strict=True) if s.state in (DONE, FOUND)]
    code = 2 if print_outcome(ended, options.output_dir) else 0
    if options.report and ended:
        outputs = [*dict.fromkeys(run.output for run in ended)]
        code = max(code, report_of(outputs, options.output_dir, plans[0].options))
    return failure([s.name for s in standings if s.state == FAILED]) or code


def failure(names: list[str]) -> int:
    """Say which tasks failed; return the exit code."""
    if names:
        say(f"failed: {printable(' '.join(names))}")
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

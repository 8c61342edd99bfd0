"""Score and tabulate trained categories: `python3 inference.py --help`."""

import argparse
import sys
from pathlib import Path

from data.catalog import DATASETS, find_root, read_category
from data.samples import Category, InputError
from utils.devices import pick_device
from utils.evaluation import check_maps, evaluate, measure
from utils.options import Parser, add_dataset_options, add_machine_options, run_command
from utils.runs import Run, find_runs
from utils.tables import FORMATS, Results, print_tables, write_csv


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser(
        "Evaluate every trained category of one or more output folders; print a table for each "
        "dataset. Over several folders (seeds) it shows mean ± standard deviation.",
        presets=False,
    )
    parser.add_argument("outputs", type=Path, nargs="*", default=[Path("output")], metavar="OUTPUT")
    parser.add_argument("--no_maps", action="store_true", help="do not write the anomaly maps")
    parser.add_argument(
        "--maps_dir",
        type=Path,
        help="evaluate maps made elsewhere, MAPS_DIR/<category>/test/<defect>/<stem>.tiff, of the "
        "runs in OUTPUT or of --dataset; nothing is written",
    )
    parser.add_argument("--format", choices=FORMATS, default="simple", help="of the table")
    add_dataset_options(parser, default=None)
    add_machine_options(parser, trains=False)
    return parser


def selected_runs(output: Path, options: argparse.Namespace) -> list[Run]:
    """Return the runs of an output folder that --dataset and --subdataset leave.

    With --maps_dir and --dataset no run is needed: every category with maps there counts.
    """
    if options.maps_dir and options.dataset:
        root = find_root(options.dataset, dataset_path(options, options.dataset))
        names = DATASETS[options.dataset].find(root) or [root.resolve().name]
        runs = [Run(output, options.dataset, name) for name in names]
        runs = [run for run in runs if maps_folder(options.maps_dir, run).is_dir()]
    else:
        runs = find_runs(output)
    wanted = (options.dataset, options.subdataset)
    runs = [
        r for r in runs if all(w in (None, n) for w, n in zip(wanted, identity(r), strict=True))
    ]
    if not runs:
        where = options.maps_dir or output
        raise InputError(f"{where} holds nothing of the --dataset and --subdataset asked for")
    return runs


def identity(run: Run) -> tuple[str, str]:
    """Return what --dataset and --subdataset select by."""
    return run.dataset, run.subdataset


def maps_folder(maps_dir: Path, run: Run) -> Path:
    """Return where a category's maps lie: below its dataset's name if that is there."""
    inside = maps_dir / run.dataset
    return (inside if inside.is_dir() else maps_dir) / run.subdataset


def dataset_path(options: argparse.Namespace, dataset: str) -> Path | None:
    """Return the path option of `dataset`, None when it was not given."""
    return getattr(options, f"{dataset}_path", None)


def load_category(run: Run, options: argparse.Namespace) -> Category:
    """Read the images of a run from where it was trained, unless a path option says otherwise."""
    config = run.read_config() if run.config_file.exists() else {}
    path = dataset_path(options, run.dataset) or config.get(f"{run.dataset}_path")
    root = find_root(run.dataset, path and Path(path))
    options.seed = config.get("seed", 0)
    category = read_category(run.dataset, root, run.subdataset, options.seed)
    if not category.test:
        raise InputError(f"{root} has no test images for {run.subdataset}")
    return category


def evaluate_run(run: Run, options: argparse.Namespace) -> dict:
    """Return the metrics of one run, of its detector or of the maps in --maps_dir."""
    category = load_category(run, options)
    if options.maps_dir:
        folder = maps_folder(options.maps_dir, run)
        check_maps(category, folder)
        return measure(category, folder, options.workers)
    device = pick_device(options)
    detector, size = run.load_detector(device)
    return evaluate(run, detector, category, size, device, options, not options.no_maps)


def evaluate_runs(runs: list[Run], options: argparse.Namespace) -> tuple[Results, bool]:
    """Return the results of one output folder's runs, and whether one of them failed."""
    results, failed = {}, False
    for run in runs:
        try:
            metrics = evaluate_run(run, options)
        except InputError as error:
            name = f"{run.dataset}/{run.subdataset} in {run.output}"
            print(f"error: {name}: {error}", file=sys.stderr)
            failed = True
        else:
            results.setdefault(run.dataset, {})[run.subdataset] = metrics
    return results, failed


def main(options: argparse.Namespace) -> int:
    """Evaluate what was trained; a run that cannot be does not stop the others."""
    pick_device(options)
    selected = {output: selected_runs(output, options) for output in options.outputs}
    evaluated = {output: evaluate_runs(runs, options) for output, runs in selected.items()}
    results = {output: found for output, (found, _) in evaluated.items() if found}
    if results:
        print_tables(results.values(), options.format)
    for output in () if options.maps_dir else results:
        write_csv(output)
    return 2 if any(failed for _, failed in evaluated.values()) else 0


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

"""Score and tabulate trained categories: `python3 inference.py --help`."""

if __name__ == "__main__":
    from utils.startup import leave_when_interrupted

    leave_when_interrupted()

import argparse
import os
import sys
from pathlib import Path

from data.catalog import DATASETS, find_root
from data.samples import InputError, noted, report_faults
from evaluation.columns import COLUMN_CHOICES
from evaluation.evaluation import evaluate, measure, tell_result
from evaluation.maps import check_maps
from evaluation.tables import FORMATS, Results, print_by_expert, print_tables, write_csv
from models.detector import THRESHOLDS
from models.experts import COMBINED, SCORED
from prediction.exported import add_exported_options, is_exported
from prediction.measured import evaluate_files, named, tell
from prediction.ranked import draw_ranked
from scoring.thresholds import set_thresholds
from utils.commands import run_command
from utils.detectors import FILE
from utils.devices import Compute, as_trained, pick_compute
from utils.files import user_path
from utils.labelling import add_labelling_options, load_category, load_test_set
from utils.options import (
    Parser,
    add_dataset_options,
    add_false_alarm_option,
    add_machine_options,
    add_speed_options,
    check_positive,
    dataset_path,
)
from utils.recipe import check_false_alarm_rate
from utils.runs import Run, find_runs

EXAMPLES = (
    "python3 inference.py",
    "python3 inference.py output_seed0 output_seed1 --no_maps",
    "python3 inference.py output/exports/mvtec_ad/bottle/detector.onnx",
)


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser(
        "Evaluate every trained category of one or more output folders, or exported files; print a "
        "table for each dataset. Over several folders (seeds) it shows mean ± standard deviation.",
        EXAMPLES,
        presets=False,
    )
    parser.add_argument(
        "outputs",
        type=user_path,
        nargs="*",
        default=[Path("output")],
        metavar="OUTPUT",
        help="output folders of main.py, or files of export.py, of which nothing is written",
    )
    parser.add_argument("--no_maps", action="store_true", help="do not write the anomaly maps")
    text = "a picture of each test image with heat and contours, the most wrong first"
    parser.add_argument("--pictures", action="store_true", help=text)
    parser.add_argument(
        "--maps_dir",
        type=user_path,
        help="evaluate maps made elsewhere, MAPS_DIR/<category>/test/<defect>/<stem>.tiff, of the "
        "runs in OUTPUT or of --dataset; nothing is written",
    )
    text = "whose map and score count; of a single expert nothing is written"
    parser.add_argument("--map", choices=SCORED, default=COMBINED, help=text)
    text = "a table of each expert alone, too"
    parser.add_argument("--by_expert", action="store_true", help=text)
    add_false_alarm_option(parser)
    parser.add_argument("--format", choices=FORMATS, default="simple", help="of the table")
    text = "of the table; csv and json always have all"
    parser.add_argument("--columns", choices=COLUMN_CHOICES, default="headline", help=text)
    add_dataset_options(parser, default=None)
    add_labelling_options(parser)
    as_trained = "that of the training where the hardware can"
    add_machine_options(parser, workers=os.cpu_count(), auto=as_trained)
    add_exported_options(parser)
    add_speed_options(parser, trains=False)
    return parser


def selected_runs(output: Path, options: argparse.Namespace) -> list[Run]:
    """Return the runs of an output folder that --dataset and --subdataset leave."""
    if options.maps_dir and options.dataset:
        return runs_with_maps(output, options)
    runs = [
        run
        for run in find_runs(output)
        if run.dataset in DATASETS
        and options.dataset in (None, run.dataset)
        and options.subdataset in (None, run.subdataset)
    ]
    if not runs:
        raise InputError(f"{output} holds nothing of the --dataset and --subdataset asked for")
    return runs


def runs_with_maps(output: Path, options: argparse.Namespace) -> list[Run]:
    """Return a run for every category with maps in --maps_dir, which need not be trained."""
    root = find_root(options.dataset, dataset_path(options, options.dataset))
    if options.subdataset:
        names = [options.subdataset]
    else:
        names = DATASETS[options.dataset].find(root) or [root.resolve().name]
    runs = [Run(output, options.dataset, name) for name in names]
    runs = [run for run in runs if maps_folder(options.maps_dir, run).is_dir()]
    if not runs:
        raise InputError(
            f"--maps_dir {options.maps_dir} holds no maps of {' or '.join(names)}: they belong in "
            f"{options.maps_dir}/<category>/test/<defect>/<stem>.tiff"
        )
    return runs


def maps_folder(maps_dir: Path, run: Run) -> Path:
    """Return where a category's maps lie: below its dataset's name if that is there."""
    inside = maps_dir / run.dataset / run.subdataset
    return inside if inside.is_dir() else maps_dir / run.subdataset


def evaluate_run(
    run: Run, options: argparse.Namespace, compute: Compute, shown: str, faults: list[str]
) -> dict | None:
    """Return the metrics of one run, of its detector or of the maps in --maps_dir.

    `shown` is what counts, "combined" or an expert. None, and a note, for a category without test
    images: it can be trained, so it is no error. None for an expert that only others have. Adds to
    `faults` what cannot be drawn.
    """
    category, seed = (load_category if options.maps_dir else load_test_set)(run, options)
    if not (category.test if options.maps_dir else category.scored):
        print(f"{run.dataset}/{run.subdataset} has no test images", file=sys.stderr)
        return None
    if options.maps_dir:
        folder = maps_folder(options.maps_dir, run)
        check_maps(category, folder)
        return measure(category, folder, options.workers)
    detector, size, precision = run.load_detector(compute.device)
    compute = as_trained(compute, options.precision, precision)
    if shown not in (COMBINED, *detector.experts):
        if options.by_expert:
            return None
        has = " and ".join(detector.experts)
        raise InputError(f"{run.detector_file} has {has}: train it with --experts {shown}, too")
    if getattr(detector, THRESHOLDS[shown]).isnan():
        if options.by_expert:
            return None
        raise InputError(
            f"{run.detector_file} is of an earlier version, which kept no threshold of the "
            f"{shown} map: train it again with --overwrite, or leave --map out"
        )
    if options.false_alarm_rate:
        set_thresholds(detector, options.false_alarm_rate, str(run.detector_file))
    keep = not options.no_maps
    metrics = evaluate(run, detector, category, size, options.workers, seed, compute, keep, shown)
    if shown == COMBINED:
        tell_result(category, run, metrics, keep)
        if options.pictures:
            faults += draw_ranked(run, category, detector, metrics, options.workers)
    return metrics


def evaluate_runs(
    runs: list[Run], options: argparse.Namespace, compute: Compute, shown: str
) -> tuple[Results, bool]:
    """Return the results of one output folder's runs, and whether one of them failed."""
    results, failed = {}, False
    for run in runs:
        faults: list[str] = []
        with noted(faults):
            if metrics := evaluate_run(run, options, compute, shown, faults):
                faults += metrics["glae"].get("unreadable", [])
                results.setdefault(run.dataset, {})[run.subdataset] = metrics
        place = "" if options.maps_dir else f" in {run.output}"
        failed |= tell(f"{run.dataset}/{run.subdataset}{place}", faults)
    return results, failed


def check(options: argparse.Namespace, files: list[Path]) -> list[str]:
    """Return every fault of the options, where exported `files` are among what is evaluated."""
    faults = check_positive(options, "workers", "scoring_batch_size")
    faults += check_false_alarm_rate(options)
    single = options.map != COMBINED or options.by_expert
    if options.maps_dir and (single or options.false_alarm_rate or options.pictures):
        faults.append(
            "--map, --by_expert, --false_alarm_rate and --pictures are of a detector, --maps_dir "
            "has maps made elsewhere: leave one out"
        )
    if options.pictures and (options.no_maps or options.map != COMBINED):
        faults.append("--pictures draws the maps that are written: leave --no_maps and --map out")
    if options.by_expert and options.map != COMBINED:
        faults.append("--by_expert shows --map's, too: leave one out")
    if files and (options.maps_dir or single or options.pictures):
        names = "--map, --by_expert, --maps_dir and --pictures"
        faults.append(f"{names} are of runs: leave {files[0]} out")
    if options.runtime and not files:
        faults.append("--runtime is of exported files: name one, or leave it out")
    return faults


def main(options: argparse.Namespace) -> int:
    """Evaluate what was trained or exported; what cannot be does not stop the others."""
    files = [path for path in options.outputs if is_exported(path)]
    report_faults(check(options, files))
    outputs = [path for path in options.outputs if path not in files]
    compute = pick_compute(options) if outputs else None
    selected = {output: selected_runs(output, options) for output in outputs}
    failed, by_expert = False, {}
    for shown in SCORED if options.by_expert else (options.map,):
        evaluated = {o: evaluate_runs(of, options, compute, shown) for o, of in selected.items()}
        results = {output: found for output, (found, _) in evaluated.items() if found}
        if results:
            by_expert[None if shown == COMBINED else shown] = [*results.values()]
        for output in () if options.maps_dir or shown != COMBINED else results:
            write_csv(output)
        failed |= any(wrong for _, wrong in evaluated.values())
    of_files, wrong = evaluate_files(files, options)
    if of_files:
        by_expert = {None: [*named(by_expert.get(None, []), FILE), *of_files]}
    failed |= wrong
    for single, results in () if options.by_expert else by_expert.items():
        print_tables(results, options.format, options.columns, single)
    if options.by_expert and by_expert:
        print_by_expert(by_expert, options.format, options.columns)
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

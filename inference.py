"""Score and tabulate trained categories: `python3 inference.py --help`."""

if __name__ == "__main__":
    from utils.startup import leave_when_interrupted

    leave_when_interrupted()

import argparse
import os
import sys
from pathlib import Path

from data.catalog import DATASETS
from data.samples import InputError, report_faults
from evaluation.columns import COLUMN_CHOICES, check_columns, check_shown
from evaluation.compared import read_stored
from evaluation.side_by_side import side_by_side
from evaluation.tables import FORMATS, print_by_expert, print_tables, write_csv
from models.experts import COMBINED, SCORED
from prediction.exported_files import add_exported_options, is_exported
from utils.commands import exit_code, run_command, tell
from utils.files import FILE, distinct, user_path
from utils.labelling import add_labelling_options
from utils.options import (
    Parser,
    add_dataset_options,
    add_false_alarm_option,
    add_machine_options,
    add_speed_options,
    check_positive,
)
from utils.recipe import check_false_alarm_rate
from utils.runs import Run, find_runs

EXAMPLES = (
    "python3 inference.py",
    "python3 inference.py output_seed0 output_seed1 --no_maps",
    "python3 inference.py output_glae output_efficientad --compare --columns AUROC",
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
    parser.add_argument(
        "--columns",
        nargs="+",
        default=["headline"],
        metavar="NAME",
        help=f"of the table: {', '.join(COLUMN_CHOICES)} or names such as 'AUROC pooled'; csv and "
        "json always have all",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="models side by side, the first folder's first, by what is stored: only what is not "
        "is scored",
    )
    text = "with --compare score what is stored, too"
    parser.add_argument("--score_again", action="store_true", help=text)
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
        from prediction.trained import runs_with_maps

        return runs_with_maps(output, options)
    runs = [
        run
        for run in find_runs(output, stored=options.compare)
        if run.dataset in DATASETS
        and options.dataset in (None, run.dataset)
        and options.subdataset in (None, run.subdataset)
    ]
    if not runs:
        raise InputError(f"{output} holds nothing of the --dataset and --subdataset asked for")
    return runs


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
    faults += check_columns(options.columns)
    return faults + check_compared(options, files)


def check_compared(options: argparse.Namespace, files: list[Path]) -> list[str]:
    """Return every fault of --compare and --score_again with what else is asked for."""
    if not options.compare:
        return ["--score_again is of --compare: add it, or leave it out"] * options.score_again
    unlike = {
        "--maps_dir": options.maps_dir,
        "--map": options.map != COMBINED,
        "--by_expert": options.by_expert,
        "--no_maps": options.no_maps,
        "--pictures": options.pictures,
        "--false_alarm_rate": options.false_alarm_rate,
    }
    faults = [
        f"{name}: --compare is of runs as they are stored, so leave one out"
        for name, given in unlike.items()
        if given
    ]
    faults += [f"--compare is of output folders: leave {file} out" for file in files]
    if len(options.outputs) == len(files) + 1:
        faults.append(
            f"--compare is of several output folders: name one beside {options.outputs[0]}"
        )
    return faults


def compare(options: argparse.Namespace) -> int:
    """Tabulate models side by side by what is stored; score what is not, or all of it again."""
    selected = {output: selected_runs(output, options) for output in options.outputs}
    datasets = dict.fromkeys(run.dataset for runs in selected.values() for run in runs)
    report_faults(check_shown(datasets, options.columns))
    failed, results = False, []
    for output, runs in selected.items():
        lacking = [run for run in runs if options.score_again or not run.is_evaluated()]
        lost, wrong = score(output, lacking, options) if lacking else ([], False)
        stored, faults = read_stored(run for run in runs if run not in lost)
        failed |= tell(str(output), faults) or wrong
        results += [stored] if stored else []
    if results:
        print(side_by_side(results, options.format, options.columns))
    return 2 if failed else 0


def score(output: Path, runs: list[Run], options: argparse.Namespace) -> tuple[list[Run], bool]:
    """Evaluate an output folder's runs; return those that could not be, and whether one failed."""
    from prediction.trained import evaluate_runs
    from utils.devices import pick_compute

    results, wrong = evaluate_runs(runs, options, pick_compute(options), COMBINED)
    write_csv(output)
    return [run for run in runs if run.subdataset not in results.get(run.dataset, {})], wrong


def main(options: argparse.Namespace) -> int:
    """Evaluate what was trained or exported; what cannot be does not stop the others."""
    twice: list[str] = []
    options.outputs = distinct(options.outputs, twice)
    files = [path for path in options.outputs if is_exported(path)]
    report_faults(check(options, files))
    code = exit_code(twice)
    if options.compare:
        return compare(options) or code

    from prediction.measured import evaluate_files, named  # here: these load torch, for seconds
    from prediction.trained import evaluate_runs
    from utils.devices import pick_compute

    outputs = [path for path in options.outputs if path not in files]
    compute = pick_compute(options) if outputs else None
    selected = {output: selected_runs(output, options) for output in outputs}
    if datasets := {run.dataset for runs in selected.values() for run in runs}:
        report_faults(check_shown(sorted(datasets), options.columns))
    failed, by_expert = bool(code), {}
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

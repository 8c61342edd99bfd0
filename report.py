"""Results as one page to look at: `python3 report.py --help`."""

if __name__ == "__main__":
    from utils.startup import leave_when_interrupted

    leave_when_interrupted()

import argparse
import os
import sys
from pathlib import Path

from data.samples import report_faults
from reporting.gallery import add_gallery_options
from reporting.writing import write_report
from utils.commands import exit_code, run_command
from utils.files import user_path
from utils.options import (
    Parser,
    add_machine_options,
    add_speed_options,
    check_not_negative,
    check_positive,
)

EXAMPLES = (
    "python3 report.py",
    "python3 report.py output_seed0 output_seed1 --output_dir report",
)


def get_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser(
        "Write one page, which needs no network, of what output folders hold: tables, charts, "
        "pictures. Exit code: 0 done, 2 wrong option, or something damaged, which the page lacks.",
        EXAMPLES,
        presets=False,
    )
    parser.add_argument(
        "outputs",
        type=user_path,
        nargs="*",
        default=[Path("output")],
        metavar="OUTPUT",
        help="output folders of main.py; those that differ in the seed alone are averaged",
    )
    text = "where index.html goes (default: report in the first OUTPUT)"
    parser.add_argument("--output_dir", type=user_path, metavar="DIR", help=text)
    add_gallery_options(parser)
    add_machine_options(parser, workers=os.cpu_count(), auto="that of the training")
    add_speed_options(parser, trains=False)
    return parser


def main(options: argparse.Namespace) -> int:
    """Write the page and print its path; what is damaged does not stop the rest."""
    wrong = check_positive(options, "workers", "scoring_batch_size")
    report_faults(wrong + check_not_negative(options, "gallery"))
    folder = options.output_dir or options.outputs[0] / "report"
    path, faults = write_report(options.outputs, folder, options)
    print(path)
    return exit_code(faults)


if __name__ == "__main__":
    sys.exit(run_command(main, get_parser))

"""What a sweep prints in the end: the table of one model, or models and seeds side by side."""

from collections.abc import Iterable
from pathlib import Path

from evaluation.compared import read_stored
from evaluation.side_by_side import side_by_side
from evaluation.tables import print_tables, write_csv
from utils.commands import tell
from utils.files import written_aside
from utils.runs import Run


def print_outcome(runs: Iterable[Run], folder: Path) -> bool:
    """Print the tables of runs that are evaluated; return whether any could not be read.

    Of several outputs results.csv in the sweep's own `folder` has all columns side by side.
    """
    outputs: dict = {}
    for run in runs:
        if run.metrics_file.exists():
            outputs.setdefault(run.output, []).append(run)
    results, failed = [], False
    for output, of in outputs.items():
        write_csv(output)
        stored, faults = read_stored(of)
        failed |= tell(str(output), faults)
        results += [stored] if stored else []
    if len(results) > 1:
        print(side_by_side(results, "simple", ["headline"]))
        with written_aside(folder / "results.csv") as aside:
            aside.write_text(side_by_side(results, "csv", []), encoding="utf-8", newline="")
    elif results:
        print_tables(results, "simple")
    return failed

"""What a sweep prints in the end: the table of one model, or models and seeds side by side."""

from collections.abc import Iterable

from evaluation.compared import read_stored
from evaluation.side_by_side import side_by_side
from evaluation.tables import print_tables, write_csv
from utils.commands import tell
from utils.runs import Run


def print_outcome(runs: Iterable[Run]) -> bool:
    """Print the tables of runs that are evaluated; return whether any could not be read."""
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
    elif results:
        print_tables(results, "simple")
    return failed

"""Write the report of output folders: what report.py does, and main.py in the end."""

from pathlib import Path
from tempfile import TemporaryFile

from data.samples import InputError
from utils.commands import exit_code, printable, say
from utils.files import remove_parts

PAGE = "index.html"


def write_report(outputs: list[Path], folder: Path) -> tuple[Path, list[str]]:
    """Write the page of output folders into `folder`; return its path, and a fault for each lack.

    It shows what was there when it was begun; of two that are written at once, the later stays.
    Raises InputError where nothing was evaluated, and before it reads where `folder` is no place.
    """
    try:
        from reporting.collected import collect
        from reporting.page import write_page
    except ModuleNotFoundError as error:
        text = f"a report needs {error.name}: pip install -r requirements.txt"
        raise InputError(text) from error
    claim(folder)
    found, faults = collect(outputs)
    write_page(folder / PAGE, found, faults)
    return folder / PAGE, faults


def claim(folder: Path) -> None:
    """Make the page's folder, and remove what a killed process had half written there.

    Raises InputError when nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            remove_parts(folder.glob(f".{PAGE}.*.part"))
    except OSError as error:
        raise InputError(f"--output_dir {folder} cannot be written: {error.strerror}") from error


def report_of(output: Path) -> int:
    """Write the report of one output folder into it, and say where; return the exit code."""
    path, faults = write_report([output], output / "report")
    say(printable(f"wrote {path}"))
    return exit_code(faults)

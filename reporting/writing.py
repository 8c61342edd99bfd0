"""Write the report of output folders: what report.py does, and main.py in the end."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryFile

from data.samples import InputError
from utils.commands import exit_code, printable, say
from utils.devices import pick_compute
from utils.files import remove_parts

PAGE = "index.html"


def write_report(outputs: list[Path], folder: Path, options: Namespace) -> tuple[Path, list[str]]:
    """Write the page of output folders into `folder`; return its path, and a fault for each lack.

    `options` are those of galleries, and what says how to compute. The page shows what was there
    when it was begun; of two that are written at once, the later stays. Raises InputError where
    nothing was evaluated, and before anything is read where `folder` cannot be written.
    """
    try:
        from reporting.collected import collect
        from reporting.gallery import all_galleries
        from reporting.page import write_page
    except ModuleNotFoundError as error:
        text = f"a report needs {error.name}: pip install -r requirements.txt"
        raise InputError(text) from error
    if any(output.is_dir() for output in outputs):  # else nothing is to be made there
        claim(folder)
    found, faults = collect(outputs)
    galleries = all_galleries(found, options, pick_compute(options), faults)
    write_page(folder / PAGE, found, faults, galleries)
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


def report_of(outputs: list[Path], folder: Path, options: Namespace) -> int:
    """Write the report of output folders below `folder`, and say where; return the exit code.

    `options` are main.py's.
    """
    from reporting.gallery import add_gallery_options

    usual = ArgumentParser()
    add_gallery_options(usual)  # where its images lie, each run in the folder knows
    options = Namespace(**vars(options) | vars(usual.parse_args([])))
    path, faults = write_report(outputs, folder / "report", options)
    say(printable(f"wrote {path}"))
    return exit_code(faults)

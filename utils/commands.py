"""How a script ends: its exit code, and what it says when it fails or is interrupted."""

import argparse
import errno
import logging
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from PIL import Image
from tqdm import tqdm

from data.samples import InputError
from data.workers import WorkerDied
from utils.failures import NotCaptured, out_of_memory
from utils.options import Parser
from utils.presets import parse
from utils.startup import leave, show_what_the_console_cannot

# what a script can be asked to do with less memory
THRIFTY = ("batch_size", "scoring_batch_size", "image_size", "feature_memory", "workers")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def say(line: str) -> None:
    """Print a line on stderr, above the progress bars that are there."""
    erase = "\x1b[K" if sys.stderr.isatty() else ""  # what the terminal has echoed, such as ^C
    tqdm.write(line + erase, file=sys.stderr)


def tell(where: str, faults: list[str]) -> bool:
    """Say what went wrong with a run or a file; return whether anything did."""
    for fault in faults:
        said = fault if where in fault else f"{where}: {fault}"
        say(f"error: {printable(said)}")
    return bool(faults)


def print_warning(message: Warning | str, *_: object) -> None:
    """Show a warning as one line, without the line of code that raised it."""
    say(f"warning: {printable(message)}")


@contextmanager
def resumable(stored: Callable[[], bool]) -> Iterator[None]:
    """Within the block, an interrupt says with which command the work goes on, if any is stored."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        from utils.processes import process_count

        where = interrupt.args[0] if interrupt.args else ""
        line = f"go on with: {shlex.join([*command_line(), '--resume'])}"
        if process_count() > 1:
            line = "--resume goes on from there"
        if not stored():
            line = "nothing was stored yet: the same command begins again"
        raise KeyboardInterrupt(f"{where}; {line}") from interrupt


def command_line() -> list[str]:
    """Return what this script was called with, the interpreter first, but for what begins anew."""
    interpreter = sys.orig_argv[: -len(sys.argv)] or [sys.executable]
    return [*interpreter, *(a for a in sys.argv if a not in ("--resume", "--overwrite"))]


def explained(error: Exception, options: argparse.Namespace) -> list[str]:
    """Return what to say of an error, one line each."""
    if isinstance(error, InputError):
        return [printable(fault) for fault in error.args]
    if out_of_memory(error):
        lower = " or ".join(f"--{name}" for name in THRIFTY if hasattr(options, name))
        return [f"out of memory: lower {lower}"]
    if isinstance(error, OSError) and error.strerror:
        mend = ": make room there" if error.errno in FULL else ""
        mend += ", then go on with --resume" if mend and hasattr(options, "resume") else ""
        return [printable(f"{error.filename or 'a file'}: {error.strerror}{mend}")]
    if isinstance(error, FloatingPointError | WorkerDied | NotCaptured):
        return [printable(error)]
    return [f"{type(error).__name__}: {' '.join(printable(error).split()) or 'no message'}"]


def printable(text: object) -> str:
    """Return a text as one line that a terminal shows as it is, whatever a file is called."""
    return "".join(c if c.isprintable() else " " for c in str(text)).strip()


def exit_code(faults: Iterable[str]) -> int:
    """Say on stderr each of the faults that stopped nothing; return 2, where there is none 0."""
    code = 0
    for fault in faults:
        say(f"error: {printable(fault)}")
        code = 2
    return code


def run_command(main: Callable, get_parser: Callable[[], Parser]) -> int:
    """Run a script; return its exit code: 0 done, 1 failed, 2 input error, 130 interrupted.

    Errors are one line each on stderr; a traceback only with --debug.
    """
    debug = "--debug" in sys.argv
    show_what_the_console_cannot()
    warnings.showwarning = print_warning
    logging.getLogger("tifffile").disabled = True  # a damaged file is an error of ours
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such images are refused
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what stops a job on a cluster
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    options = argparse.Namespace()
    try:
        options = parse(get_parser())
        return main(options) or 0
    except KeyboardInterrupt as interrupt:
        say(f"interrupted{interrupt.args[0] if interrupt.args else ''}")
        return 130
    except BrokenPipeError:
        return 1
    except Exception as error:
        if debug:
            raise
        for line in explained(error, options):
            say(f"error: {line}")
        return 2 if isinstance(error, InputError) else 1

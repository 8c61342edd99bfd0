"""What a script does first: loading torch takes seconds, in which Ctrl-C shall just end it.

Python's own answer is a traceback, or none at all where an import catches it.
"""

import os
import signal
import sys


def leave(*_: object) -> None:
    """End this process, whatever it does."""
    os.write(2, b"interrupted\n")
    os._exit(130)


def leave_when_interrupted() -> None:
    """Let SIGINT and SIGTERM end this process until `run_command` takes over."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if (
            signal.getsignal(number) is not signal.SIG_IGN
        ):  # a shell's background jobs ignore SIGINT
            signal.signal(number, leave)


def show_what_the_console_cannot() -> None:
    """Print a question mark for what an old code page lacks, instead of ending in an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where a test has put another in its place
            stream.reconfigure(errors="replace")

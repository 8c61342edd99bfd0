"""Become a program that ends when its parent does: tethered.py PARENT PROGRAM [ARGUMENT ...].

Without this, a training whose sweep was killed, or whose node was lost to the others, would go on
beside the one that is begun in its place. Linux alone can do so.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent: int, program: list[str]) -> None:
    """Replace this process by the program."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        sys.exit(1)
    os.execv(program[0], program)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

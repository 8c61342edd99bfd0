"""The project's version, which a run stores: git's name of the checkout, else a constant."""

import os
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = "1.0"  # of a copy without git
PATIENCE = 1  # seconds: a checkout on a slow disk must not hold up a run


@cache
def project_version() -> str:
    """Return what tells this code from another version's: v1.0-3-g2eec51d-dirty, or VERSION."""
    return described(ROOT) or VERSION


def described(root: Path) -> str | None:
    """Return git's name for the checkout at `root`; None where git cannot say, for any reason.

    A repository around `root` is another project's, so git may not look for one: neither in the
    folders above nor by the variables that it gives its hooks.
    """
    where = (f"--git-dir={root / '.git'}", f"--work-tree={root}")
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *where, "describe", "--always", "--dirty", "--tags"],
            env=own | {"GIT_OPTIONAL_LOCKS": "0"},  # somebody may be at work in the checkout
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None

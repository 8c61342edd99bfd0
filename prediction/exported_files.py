"""Exported files on a command line, told from detectors in PyTorch by their names."""

import argparse
from pathlib import Path

from data.samples import InputError
from deployment.runtimes import RUNTIMES, USUAL


def is_exported(path: Path) -> bool:
    """Tell whether a file is one of export.py, by its name."""
    return path.suffix in USUAL and not path.is_dir()


def check_trained(path: Path) -> None:
    """Raise InputError for an exported file where a detector in PyTorch is needed."""
    if is_exported(path):
        raise InputError(f"{path} is an exported file: name the run that it was written from")


def add_exported_options(parser: argparse.ArgumentParser) -> None:
    """Add --runtime and --trusted."""
    text = "of an exported file; default: its format's own"
    parser.add_argument("--runtime", choices=RUNTIMES, help=text)
    text = "the detector is a .pt2 of your own: such a file can do whatever a program can"
    parser.add_argument("--trusted", action="store_true", help=text)

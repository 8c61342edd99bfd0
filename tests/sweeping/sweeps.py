"""What a sweep's command line, or its file, asks for."""

import argparse
from pathlib import Path

import main
from sweeping.grid import Grid, read_grid

PLACE = ("mvtec_ad", "path/mvtec_ad")


def grid_of(*sweep: str | Path, more: tuple = (), seeds: list | None = None, grid=()) -> Grid:
    """Read a grid as sweep.py does; without any name it is a data set's."""
    names = [*map(str, sweep or PLACE)]
    options = argparse.Namespace(sweep=names, seeds=seeds, grid=[*grid], output_dir=Path("output"))
    return read_grid(options, [*more], main.get_parser())


def written(folder: Path, text: str) -> Path:
    """Write a sweep's file."""
    path = folder / "mine.yaml"
    path.write_text(text)
    return path

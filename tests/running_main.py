"""What tests of main.py share: a short run, and how it is called."""

from pathlib import Path

import main
from models.experts import EXPERTS, STATISTICS
from utils.presets import parse
from utils.runs import Run

TINY = ["--train_steps", "3", "--image_size", "64", "--workers", "1", "--device", "cpu"]
TINY += ["--experts", "student", "autoencoder"]  # the statistics have tests of their own
ALL = ["--experts", *EXPERTS]
ALONE = ["--experts", *STATISTICS, "--train_steps", "0"]


def arguments(product: Path, teacher: Path, output: Path, *more: str) -> list[str]:
    own = ["--dataset", "folder", "--folder_path", str(product), "--weights", str(teacher)]
    return [*own, "--output_dir", str(output), *TINY, *more]


def run_main(*argv: str) -> int:
    return main.main(parse(main.get_parser(), list(argv)))


def trained(product: Path, teacher: Path, output: Path, *more: str) -> Run:
    """Train in full precision; return the run."""
    assert run_main(*arguments(product, teacher, output, "--precision", "fp32", *more)) == 0
    return Run(output, "folder", product.name)

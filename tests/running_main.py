"""What tests of main.py share: a short run, and how it is called."""

from pathlib import Path

import main
from utils.presets import parse

TINY = ["--train_steps", "3", "--image_size", "64", "--workers", "1", "--device", "cpu"]
TINY += ["--experts", "student", "autoencoder"]  # the statistics have tests of their own


def arguments(product: Path, teacher: Path, output: Path, *more: str) -> list[str]:
    own = ["--dataset", "folder", "--folder_path", str(product), "--weights", str(teacher)]
    return [*own, "--output_dir", str(output), *TINY, *more]


def run_main(*argv: str) -> int:
    return main.main(parse(main.get_parser(), list(argv)))

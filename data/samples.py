"""What every layout reader returns: samples, categories, and the error for bad input."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
GOOD = "good"
MOST_BYTES = 255  # of a file's name, in usual file systems


class InputError(Exception):
    """The user can mend this: each argument is one line that names a file or option."""

    def __str__(self) -> str:
        return "; ".join(map(str, self.args))


def report_faults(faults: list[str]) -> None:
    """Raise one InputError that names every fault, if there is one."""
    if faults:
        raise InputError(*faults)


@contextmanager
def noted(faults: list[str]) -> Iterator[None]:
    """Add an InputError's lines to `faults` instead of raising it."""
    try:
        yield
    except InputError as error:
        faults += error.args


@dataclass(frozen=True)
class Sample:
    """One image: `label` is 1 for an anomaly; `defect` is its folder, `good` when there is none.

    Each of `masks` is one channel of ground truth: its pixels above 0 are one defect.
    """

    image: Path
    label: int
    defect: str
    masks: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Category:
    """The images of one product. `defects_config` is LOCO's table of saturation thresholds.

    `faults` are what a reader found wrong beside them, one line each.
    """

    name: str
    train: list[Sample]
    validation: list[Sample]
    test: list[Sample] = field(default_factory=list)
    defects_config: list[dict] | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def samples(self) -> list[Sample]:
        """All images, in the order of use."""
        return [*self.train, *self.validation, *self.test]


def check_inside(path: Path, root: Path) -> None:
    """Raise InputError for a path that leads out of `root`, by a link or as it is written."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):  # knows loops
        raise InputError(f"{path} leads outside of {root}: copy the file there")


def is_image(path: Path) -> bool:
    """Tell whether `path` is named like an image; hidden files (`._000.png`) are not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def require_file(path: Path) -> None:
    """Raise OSError for a path that is there but no file: reading a pipe would wait for ever."""
    if path.exists() and not path.is_file():
        raise OSError("it is no file")


def is_plain(name: str) -> bool:
    """Tell whether a folder of ours can have this name, and `.<name>.new`, inside any other."""
    one = Path(name).name == name != "" and not name.startswith(".")
    return one and name.isprintable() and len(os.fsencode(name)) < MOST_BYTES - 10


def list_images(folder: Path) -> list[Path]:
    """Return the images right inside `folder`, sorted; an absent folder has none."""
    return sorted(path for path in folder.iterdir() if is_image(path)) if folder.is_dir() else []


def list_folders(folder: Path) -> list[Path]:
    """Return the folders right inside `folder`, sorted; an absent folder has none."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def good_samples(paths: list[Path]) -> list[Sample]:
    """Label `paths` as images without a defect."""
    return [Sample(path, 0, GOOD) for path in paths]


def require_images(folder: Path, role: str) -> list[Path]:
    """Return the images in `folder`.

    Raises InputError, which calls them `role`, when there are none.
    """
    paths = list_images(folder)
    if not paths:
        state = "is empty of images" if folder.is_dir() else "does not exist"
        raise InputError(f"{folder} {state}: put the {role} images there")
    return paths


def hold_out(samples: list[Sample], seed: int) -> tuple[list[Sample], list[Sample]]:
    """Split off a seeded tenth (at least one) for validation: (train, validation).

    Raises InputError when fewer than two samples leave nothing to split.
    """
    if len(samples) < 2:
        raise InputError(
            f"{samples[0].image.parent} holds one image: at least two are needed, "
            "one to train on and one to calibrate with"
        )
    count = max(1, round(len(samples) / 10))
    held = set(random.Random(seed).sample(range(len(samples)), count))
    train = [sample for i, sample in enumerate(samples) if i not in held]
    return train, [samples[i] for i in sorted(held)]

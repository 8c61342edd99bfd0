"""What every layout reader returns: samples, categories, and the error for bad input."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

GOOD, ANOMALOUS = "good", "anomalous"  # verdicts; the first is a folder's name, too
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
def told_of(where: object) -> Iterator[None]:
    """Put before each line of an InputError where it comes from: a file, an option; if anywhere."""
    try:
        yield
    except InputError as error:
        lead = f"{where}: " if where else ""
        raise InputError(*(f"{lead}{fault}" for fault in error.args)) from error


@contextmanager
def noted(faults: list[str]) -> Iterator[None]:
    """Add an InputError's lines to `faults` instead of raising it."""
    try:
        yield
    except InputError as error:
        faults += error.args


def evenly(things: list, count: int) -> list:
    """Return at most `count` of some things, evenly spaced."""
    count = min(count, len(things))
    return [things[number * len(things) // count] for number in range(count)]


@dataclass(frozen=True)
class Sample:
    """One image: `label` is 1 for an anomaly; `defect` is its folder, `good` when there is none.

    Each of `masks` is one channel of ground truth: one defect where there is a defects_config,
    else any number. `within` is where a test image lies below its data set's `test`, if that is not
    `<defect>/<its name>`.
    """

    image: Path
    label: int
    defect: str
    masks: tuple[Path, ...] = ()
    within: Path | None = None

    @property
    def place(self) -> Path:
        """Where it lies below `test`: its map lies there too."""
        return self.within or Path(self.defect, self.image.name)

    @property
    def folder(self) -> str:
        """The folder of `test` that it is in."""
        return self.place.parts[0]


@dataclass(frozen=True)
class Category:
    """The images of one product. `defects_config` is LOCO's table of saturation thresholds.

    `folder` is where all of them lie: by their names below it they are known again elsewhere.
    `held_out` tells that the validation images were drawn from the training images; `unlabelled`
    images of test folders are scored, but in no metric. `faults` are what a reader found wrong
    beside them, `notes` what a user should know of, one line each.
    """

    name: str
    train: list[Sample]
    validation: list[Sample]
    test: list[Sample] = field(default_factory=list)
    defects_config: list[dict] | None = None
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    held_out: bool = False
    unlabelled: list[Sample] = field(default_factory=list)
    folder: Path = Path()

    @property
    def scored(self) -> list[Sample]:
        """All images that get an anomaly map."""
        return [*self.test, *self.unlabelled]

    @property
    def samples(self) -> list[Sample]:
        """All images, in the order of use."""
        return [*self.train, *self.validation, *self.scored]

    @property
    def test_folders(self) -> list[str]:
        """The names of the folders of `test`, sorted."""
        return sorted({sample.folder for sample in self.scored})


def check_inside(path: Path, root: Path) -> None:
    """Raise InputError for a path that leads out of `root`, by a link or as it is written."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):  # knows loops
        raise InputError(f"{path} leads outside of {root}: copy the file there")


def require_file(path: Path) -> None:
    """Raise OSError for a path that is there but no file: reading a pipe would wait for ever.

    Links are followed; one that leads to nothing is no file either.
    """
    if path.is_symlink() and not path.exists():
        raise OSError("it is a link to what is not there")
    if path.exists() and not path.is_file():
        raise OSError("it is no file")


def is_plain(name: str) -> bool:
    """Tell whether a folder of ours can have this name, and `.<name>.new`, inside any other."""
    one = Path(name).name == name != "" and not name.startswith(".")
    return one and name.isprintable() and len(os.fsencode(name)) < MOST_BYTES - 10


def good_samples(paths: list[Path]) -> list[Sample]:
    """Label `paths` as images without a defect."""
    return [Sample(path, 0, GOOD) for path in paths]


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

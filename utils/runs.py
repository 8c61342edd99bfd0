"""The output folder: where everything of a run lies; save, load, lock."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import yaml

from data.fingerprints import Images, validated
from data.image_files import Size
from data.samples import InputError, require_file
from utils.files import DAMAGED, FILE, locked_folder, read_yaml, remove_parts, written_aside

if TYPE_CHECKING:  # a comparison of runs loads no torch
    import torch

    from models.detector import Detector

MOST_IMAGES_FILE = 2**27  # bytes of an images.json: a million images


@dataclass(frozen=True)
class Run:
    """One trained category below an output folder.

    A `replacement` is trained and evaluated beside a former run, which stays until `take_over`.
    """

    output: Path
    dataset: str
    subdataset: str
    replacement: bool = False

    @property
    def folder(self) -> Path:
        name = f".{self.subdataset}.new" if self.replacement else self.subdataset
        return self.output / "trainings" / self.dataset / name

    @property
    def detector_file(self) -> Path:
        return self.folder / FILE

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def images_file(self) -> Path:
        """Where the fingerprints of the images lie that the run is trained on."""
        return self.folder / "images.json"

    @property
    def checkpoint_file(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def former_checkpoint(self) -> Path:
        """An earlier version's, which this one cannot read."""
        return self.folder / "checkpoint.pt"

    @property
    def losses_file(self) -> Path:
        return self.folder / "losses.csv"

    @property
    def maps_folder(self) -> Path:
        if self.replacement:
            return self.folder / "maps"
        return self.output / "anomaly_maps" / self.dataset / self.subdataset

    @property
    def metrics_file(self) -> Path:
        if self.replacement:
            return self.folder / "metrics.json"
        return self.output / "metrics" / self.dataset / f"{self.subdataset}.json"

    @property
    def results_file(self) -> Path:
        """Where each scored image has a row."""
        if self.replacement:
            return self.folder / "results.csv"
        return self.output / "results" / self.dataset / f"{self.subdataset}.csv"

    @property
    def exports_folder(self) -> Path:
        """Where the files lie that export.py writes."""
        return self.output / "exports" / self.dataset / self.subdataset

    def is_evaluated(self) -> bool:
        """Tell whether metrics and results are stored, by its detector as it is now.

        Where there is no detector any more, metrics are enough.
        """
        if not (self.detector_file.exists() and self.metrics_file.exists()):
            return self.metrics_file.exists()
        newer = self.detector_file.stat().st_mtime > self.metrics_file.stat().st_mtime
        return self.results_file.exists() and not newer

    def has_begun(self) -> bool:
        """Tell whether --resume would find something to go on with."""
        return self.detector_file.exists() or self.checkpoint_file.exists()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder beside the run's for what nobody wants to keep."""
        with TemporaryDirectory(prefix=".", suffix=".part", dir=self.folder) as folder:
            yield Path(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training this category into this folder."""
        with locked_folder(self.folder, "--output_dir"):
            new = replace(self, replacement=True)
            for folder in new.folder.glob(".*.part"):  # a scratch
                shutil.rmtree(folder, ignore_errors=True)
            remove_parts(new.folder.rglob(".*.part"))
            remove_parts(self.maps_folder.rglob(".*.part"))
            for file in (self.metrics_file, self.results_file):
                remove_parts(file.parent.glob(f".{file.name[:40]}.*.part"))
            remove_parts(self.output.glob(".*.part"))
            yield

    def clear(self) -> None:
        """Remove what an earlier training left in this folder."""
        # the detector first: one without a checkpoint would look like half of a `take_over`
        files = [self.detector_file, self.checkpoint_file, self.config_file, self.losses_file]
        files += [self.images_file, self.former_checkpoint, *self.folder.glob("events.*")]
        for path in files:
            path.unlink(missing_ok=True)

    @property
    def taking_over(self) -> Path:
        """What is there while a replacement moves: a crash in between shows by it."""
        return self.folder / ".taking_over"

    def take_over(self) -> None:
        """Put a finished replacement in the former run's place.

        A crash in between can be made good by calling this again.
        """
        former = replace(self, replacement=False)
        if not self.taking_over.exists():  # or what is there is the new run's already
            for path in former.folder.glob("events.*"):
                path.unlink()
            for file in ("checkpoint_file", "losses_file"):  # which statistics alone do not have
                if not getattr(self, file).exists():
                    getattr(former, file).unlink(missing_ok=True)
            self.taking_over.touch()
        special = {self.maps_folder: former.maps_folder, self.metrics_file: former.metrics_file}
        special[self.results_file] = former.results_file
        order = {self.checkpoint_file: -1, self.detector_file: 1}
        moved = [path for path in self.folder.iterdir() if path != self.taking_over]
        for path in sorted(moved, key=lambda path: (order.get(path, 0), path)):
            target = special.get(path, former.folder / path.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.rmtree(target, ignore_errors=True)
            os.replace(path, target)
        self.taking_over.unlink()
        self.folder.rmdir()

    def finish_take_over(self) -> None:
        """Make good a `take_over` of this run's replacement that a crash cut off."""
        new = replace(self, replacement=True)
        if new.folder.is_dir() and not any(new.folder.iterdir()):
            new.folder.rmdir()
        elif new.taking_over.exists():
            new.take_over()

    def write_config(self, config: dict) -> None:
        """Write the resolved options, enough to repeat the run with --config."""
        with written_aside(self.config_file) as aside:
            aside.write_text(
                yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8"
            )

    def read_config(self) -> dict:
        """Read the resolved options. Raises InputError when they are missing or damaged."""
        if not self.config_file.is_file():
            raise InputError(f"{self.config_file} is no file: train this category again")
        config = read_yaml(self.config_file)
        if not isinstance(config, dict):
            raise InputError(f"{self.config_file} is damaged: train this category again")
        return config

    def write_images(self, images: Images) -> None:
        """Write what `data.fingerprints.fingerprint` has found."""
        with written_aside(self.images_file) as aside:
            aside.write_text(json.dumps(images, indent=1), encoding="utf-8")

    def read_images(self) -> Images | None:
        """Read what `write_images` wrote; None for a run of a version that did not.

        Raises InputError when it is damaged.
        """
        if not os.path.lexists(self.images_file):
            return None
        try:
            require_file(self.images_file)
            if self.images_file.stat().st_size > MOST_IMAGES_FILE:
                raise ValueError(f"it has more than {MOST_IMAGES_FILE} bytes")
            return validated(json.loads(self.images_file.read_text(encoding="utf-8")))
        except (*DAMAGED, RecursionError) as error:
            raise InputError(
                f"{self.images_file} is damaged ({error}): train this category again"
            ) from error

    def read_training_seconds(self) -> float | None:
        """Return how long training took, all sessions together; None when that is not known."""
        from utils.tensors import read_about

        try:
            return float(read_about(self.checkpoint_file)["seconds"])
        except DAMAGED:  # and this is only a timing
            return None

    def save_detector(
        self, detector: "Detector", model: str, model_size: str, size: Size, precision: str
    ) -> None:
        """Write the trained and calibrated detector.

        `size` is its (height, width), `precision` that of training and calibration.
        """
        from utils.detectors import save_detector

        about = {"model": model, "model_size": model_size, "image_size": list(size)}
        about |= {"precision": precision, "dataset": self.dataset, "subdataset": self.subdataset}
        save_detector(detector, self.detector_file, about)

    def load_detector(self, device: "torch.device") -> tuple["Detector", Size, str]:
        """Read a trained detector in evaluation mode, its (height, width) and its precision.

        See `read_detector`.
        """
        from utils.detectors import read_detector

        return read_detector(self.detector_file, device)[:3]


def find_runs(output: Path, stored: bool = False) -> list[Run]:
    """Return every run below an output folder, finished or not, sorted.

    With `stored` also those of which there are metrics alone. Raises InputError when there is none.
    """
    configs = (output / "trainings").glob("*/[!.]*/config.yaml")
    found = {(path.parent.parent.name, path.parent.name) for path in configs}
    if stored:
        files = (output / "metrics").glob("*/[!.]*.json")
        found |= {(path.parent.name, path.stem) for path in files}
    if not found:
        raise InputError(f"{output} holds no trained category: train one with main.py")
    return [Run(output, *names) for names in sorted(found)]


def run_around(file: Path) -> Run | None:
    """Return the run that a detector's or an exported file lies in, None for one elsewhere."""
    folder = file.resolve().parent
    run = Run(folder.parents[2], folder.parent.name, folder.name) if len(folder.parts) > 3 else None
    inside = run and folder in (run.folder, run.exports_folder)
    return run if inside and run.config_file.is_file() else None

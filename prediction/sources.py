"""What is scored: images that are there, frames, or images that arrive. One way to use all three.

Each gives its `predictions`, says whether it is `endless`, which only Ctrl-C ends, how many it has
`promised`, if it knows, how many were `unreadable`, and what is to be said at the end.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from data.samples import InputError
from prediction.inputs import Places
from prediction.journal import Journal
from prediction.output import Output, predict_files, predict_frames
from prediction.verdicts import Prediction, Predictor
from utils.commands import say
from utils.interrupts import Interrupts

if TYPE_CHECKING:  # OpenCV is slow to load, and images need none of it at first
    from prediction.frames import Camera, Video


class Images:
    """Image files that are there."""

    endless = False

    def __init__(self, places: Places):
        self.places, self.promised = places, len(places)
        self.faults: dict[Path, str] = {}

    def predictions(
        self, predictor: Predictor, output: Output, workers: int, interrupts: Interrupts
    ) -> Iterator[Prediction]:
        return predict_files(predictor, self.places, output, workers, self.faults)

    @property
    def unreadable(self) -> int:
        return len(self.faults)

    def conclusion(self, scored: int) -> list[str]:
        return [f"error: {fault}" for fault in sorted(self.faults.values())]


class Frames:
    """The frames of a video or a camera."""

    promised, unreadable = None, 0

    def __init__(self, stream: "Video | Camera"):
        self.stream, self.endless = stream, stream.live

    def predictions(
        self, predictor: Predictor, output: Output, workers: int, interrupts: Interrupts
    ) -> Iterator[Prediction]:
        frames = self.stream.frames(interrupts)
        return predict_frames(predictor, frames, output, workers, self.stream.live)

    def conclusion(self, scored: int) -> list[str]:
        return [self.stream.summary(scored)]


class Arriving:
    """Image files that arrive in a folder. The journal, which has to be set, knows those before.

    Raises InputError when there is no such folder.
    """

    endless, promised = True, None

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise InputError(f"--watch {folder}: there is no such folder")
        self.folder = folder
        self.journal: Journal | None = None

    def predictions(
        self, predictor: Predictor, output: Output, workers: int, interrupts: Interrupts
    ) -> Iterator[Prediction]:
        from prediction.watching import predict_arriving  # watchdog takes as long as four pictures

        known = f"{len(self.journal.known)} pictures are done; " if self.journal.files else ""
        say(f"watching {self.folder}; {known}Ctrl-C ends it")
        how = (output, workers, self.journal, lambda: interrupts.requested)
        return predict_arriving(predictor, self.folder, *how)

    @property
    def unreadable(self) -> int:
        return len(self.journal.unreadable)

    def conclusion(self, scored: int) -> list[str]:
        again = "goes on" if self.journal.files else "scores all again: it has no file of rows"
        return [f"the same command, given once more, {again}"]


Source = Images | Frames | Arriving


def open_source(options: argparse.Namespace, places: Places) -> Source:
    """Return what is to be scored: `places`, or what an option says instead of images.

    Raises InputError for a video or camera that cannot be opened, a folder that is not there.
    """
    if options.images:
        return Images(places)
    if options.watch:
        return Arriving(options.watch)
    from prediction.frames import Camera, Video

    stream = Video(options.video, options.every) if options.video else None
    return Frames(stream or Camera(options.camera, options.every))

"""What is made of each prediction beside its row: a map, a picture; of files and of frames."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.images import decode, in_background
from data.samples import InputError
from prediction.inputs import Places
from prediction.verdicts import Prediction, Predictor
from scoring.stream import WRITERS, Scored, write_map


class Frame(NamedTuple):
    """A frame, what it is called, and where what is made of it goes below a folder."""

    name: str
    place: Path
    image: np.ndarray  # uint8 (H, W, 3), RGB


@dataclass(frozen=True)
class Output:
    """The folders of maps and of pictures; None for what is not wanted."""

    maps: Path | None
    pictures: Path | None

    def map_file(self, place: Path) -> Path:
        return self.maps / f"{place}.tiff"

    def picture_file(self, place: Path) -> Path:
        return self.pictures / f"{place}.png"

    def results(self, places: Places) -> dict[str, list[Path]]:
        """Return all files by the option that asks for them."""
        files = {"maps": self.map_file, "pictures": self.picture_file}
        return {
            option: [file(place) for place in places.values()]
            for option, file in files.items()
            if getattr(self, option)
        }

    def write(self, prediction: Prediction, place: Path, image: Callable[[], Image.Image]) -> None:
        """Write what is wanted of a prediction; any thread may. `image` gives its RGB image."""
        if self.maps:
            write_map(self.map_file(place), prediction.anomaly_map)
        if self.pictures:
            from prediction.pictures import write_picture  # here: who wants none starts sooner

            write_picture(self.picture_file(place), image(), prediction)


def predict_files(
    predictor: Predictor, places: Places, output: Output, workers: int, unreadable: dict[Path, str]
) -> Iterator[Prediction]:
    """Yield what a detector says of image files, in order; threads read ahead and write behind.

    What cannot be read is left out, and noted in `unreadable`; there, too, what was moved, or
    replaced, before its picture was drawn.
    """

    def finish(scored: Scored) -> Prediction:
        prediction = predictor.judge(scored)
        image = partial(decode, scored.path, bits=predictor.bits)
        try:
            output.write(prediction, places[scored.path], image)
        except InputError as error:
            unreadable[scored.path] = str(error)
        return prediction

    scored = predictor.score_files([*places], workers, unreadable)
    with closing(in_background(finish, scored, min(workers, WRITERS), prompt=True)) as finished:
        yield from finished


def predict_frames(
    predictor: Predictor, frames: Iterator[Frame], output: Output, workers: int, live: bool
) -> Iterator[Prediction]:
    """Yield what a detector says of frames, in order, under their names.

    As a rule several are scored at a time, and threads write behind; a `live` one is scored,
    written and yielded before the next is asked for.
    """

    def finish(found: tuple[Frame, Prediction]) -> Prediction:
        frame, prediction = found
        output.write(prediction, frame.place, lambda: Image.fromarray(frame.image))
        return replace(prediction, path=Path(frame.name))

    def scored() -> Iterator[tuple[Frame, Prediction]]:
        count = 1 if live else predictor.batch_size
        while batch := list(islice(frames, count)):
            yield from zip(batch, predictor.predict([f.image for f in batch]), strict=True)

    with closing(frames):
        if live:
            yield from map(finish, scored())
        else:
            writers = min(workers, WRITERS)
            with closing(in_background(finish, scored(), writers, prompt=True)) as finished:
                yield from finished

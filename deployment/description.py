"""What an exported file says of itself: a text for each key, written and read back here.

It goes with graphs to machines without PyTorch, so nothing here needs it.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data.depth import DEPTHS
from data.image_files import Size

LAYOUT = 2  # of the file: what it takes, gives and says
INPUT = "image"
OUTPUTS = {
    "score": "float32 (N,): how strange each image is",
    "p_value": "float32 (N,): how likely a good image scores as high",
    "anomalous": "bool (N,): whether the score is above the threshold",
    "anomaly_map": "float32 (N, H, W): how strange each pixel is",
    "experts": "float32 (N, number of experts): the score of each, in their order",
}
LICENCE = (
    "The program that wrote this file is under the MIT licence. Its weights were learned from a "
    "teacher and from images whose own licences may restrict their use."
)
MOST_SIDE = 2**16  # pixels
MOST_GOOD = 10**7  # scores of good images


class Description(NamedTuple):
    """What an exported detector does, and the thresholds of its verdicts."""

    image_size: Size  # height, width of what the networks see, in pixels
    resizes: bool  # images may have any size; else they must have this one
    experts: tuple[str, ...]  # whose scores are among the outputs
    bits: int  # from which images deeper than 8 bits are to be scaled
    threshold: float
    map_threshold: float
    false_alarm_rate: float  # of good images, that the threshold promises at most
    good_scores: tuple[float, ...]  # of held-out good images, rising: what p-values go by
    precision: str  # of the networks, as written: fp32, bf16 or int8
    dataset: str
    category: str
    version: str  # of the program
    fixed_size: Size | None = None  # height, width that images must have; None: see `resizes`
    compiled: str = ""  # for which kind of device: cpu or cuda; "": for none

    def texts(self) -> dict[str, str]:
        """Return a text for each key: words as they are, all else as JSON."""
        taken = self.fixed_size or (None if self.resizes else self.image_size)
        size = "{} x {} pixels".format(*taken) if taken else "any height and width"
        said = {"layout": LAYOUT, INPUT: f"uint8 (N, H, W, 3), RGB, {size}"}
        said |= {k: text for k, text in OUTPUTS.items() if k != "experts" or self.experts}
        said |= {f"about.{key}": value for key, value in self._asdict().items()}
        said["licence"] = LICENCE
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in said.items()}


def spread_of(good_scores: Sequence[float]) -> float:
    """Return the unit in which scores differ: good images' standard deviation; one has none."""
    return float(statistics.pstdev(map(float, good_scores)) or abs(good_scores[0]) or 1)


def read_description(texts: Mapping[str, str]) -> Description:
    """Return what `Description.texts` wrote. Raises ValueError or KeyError for anything else."""
    if texts.get("layout") != str(LAYOUT):
        raise ValueError(f"it is not of layout {LAYOUT}")
    words = ("precision", "dataset", "category", "version", "compiled")
    said = {name: texts[f"about.{name}"] for name in Description._fields}
    said = {name: text if name in words else json.loads(text) for name, text in said.items()}
    found = Description(**said)
    numbers = [found.threshold, found.map_threshold, found.false_alarm_rate, *found.good_scores]
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise ValueError("a threshold or a score is no finite number")
    rising = found.good_scores == sorted(found.good_scores)
    if not (rising and 0 < len(found.good_scores) <= MOST_GOOD and 0 < found.false_alarm_rate < 1):
        raise ValueError("its good images' scores and its false-alarm rate cannot be")
    image_size, fixed_size = size_of(found.image_size), found.fixed_size
    if found.bits not in DEPTHS or not isinstance(found.resizes, bool):
        raise ValueError("it does not say which images it takes")
    if not all(isinstance(name, str) for name in found.experts):
        raise ValueError("its experts have no names")
    return found._replace(
        image_size=image_size,
        fixed_size=None if fixed_size is None else size_of(fixed_size),
        experts=tuple(found.experts),
        good_scores=tuple(found.good_scores),
    )


def size_of(sides: list) -> Size:
    """Return a size (height, width) that was read. Raises TypeError or ValueError for none."""
    height, width = sides
    if not all(isinstance(side, int) and 0 < side <= MOST_SIDE for side in (height, width)):
        raise ValueError(f"it sees images of {height} x {width} pixels")
    return height, width

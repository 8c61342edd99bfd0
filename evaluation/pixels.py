"""Count the false positives at every threshold, in maps that do not fit into memory.

Thresholds are the scores of the positives, the pixels in ground-truth regions: only there can an
overlap rise. From the top: a pass over the maps keeps the negatives in a range of scores, sorts
them, and counts for every threshold in that range; the next pass takes the range below.

An example, worked by hand. A map has one region of 4 pixels, of which 2 are enough (saturation),
and 4 negatives, of which one scores as much as a positive:

    positives  9 7 5 2        negatives  8 7 3 1

    threshold   gain    fp_above    fp_at      false positive rate    sPRO
        9       1/2        0          0                 0             0 to 1/2
        7       1/2      1 (8)     2 (8, 7)        1/4 to 1/2       1/2 to 1
        5        0         2          2                1/2                1
        2        0         3          3                3/4                1

`fp_above` are the negatives strictly above the threshold, `fp_at` those that score at least as
much: its false positives. Between the two the curve is straight: (0, 0), (0, 1/2), (1/4, 1/2),
(1/2, 1), (3/4, 1), (1, 1). The area under it sums gain * (1 - the middle of the two rates):

    up to 1:     1/2 * (1 - 0) + 1/2 * (1 - 3/8)       = 13/16
    up to 3/8:   1/2 * 3/8     + (1/8 * 1/4) / 2       = 13/64, divided by the limit 13/24
    pixel AUROC: 1/4 * (1 + 5/8 + 1/2 + 1/4)           = 19/32, the same with 1/4 for every gain

(up to 3/8 the threshold 7 adds a triangle: its line is cut where it has risen by 1/4). If memory
held 2 negatives, a first pass would keep 8 and 7 and count for the thresholds 9 and 7, a second
would keep 3 and 1, with 2 negatives above its ceiling, and count for 5 and 2.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from data.images import in_background
from data.masks import Region
from evaluation.labels import LabelledPixels
from utils.progress import progress

NEGATIVES_IN_MEMORY = 80 * 2**20  # 320 MiB of scores
CHUNK = 2**17  # thresholds counted for at once: what they need stays in the processor's cache
SAMPLE = 997  # one score in so many tells well enough where to cut
FILL = 0.95  # of the memory, as the sample foretells; more than it holds costs another pass
AGAIN = ", lower scores"
T = TypeVar("T")

ReadMap = Callable[[int], np.ndarray]  # image's number -> float32 (H, W), finite
ReadRegions = Callable[[int], list[Region]]


class Thresholds(NamedTuple):
    """Thresholds, falling, and each group's false positives at them.

    One for each positive; where many positives of an image have one score, they share one.
    """

    scores: np.ndarray  # float32 (n,)
    positives: np.ndarray  # int (n,): how many have this score and share this entry
    gains: np.ndarray  # float64 (n,): summed over them
    group: np.ndarray  # int (n,): of their image
    fp_above: list[np.ndarray]  # of each group, int (n,): negatives strictly above the threshold
    fp_at: list[np.ndarray]  # of each group, int (n,): negatives at or above it


@dataclass
class Negatives:
    """The negatives of one group with scores in (floor, ceiling), rising, and how many are higher.

    Those at the ceiling are only counted: a plateau, however large, takes no memory.
    """

    scores: np.ndarray  # float32 (n,)
    ceiling: float = np.inf
    above_ceiling: int = 0
    at_ceiling: int = 0

    def false_positives(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (fp_above, fp_at), both int (n,), of rising thresholds in (floor, ceiling]."""
        if not len(thresholds):
            return np.empty(0, int), np.empty(0, int)
        start = np.searchsorted(self.scores, thresholds[0], "left")
        end = np.searchsorted(self.scores, thresholds[-1], "right")
        near = self.scores[start:end]  # few: what is searched n times stays in the cache
        not_above = np.searchsorted(near, thresholds, "right")
        below = _count_below(thresholds, near, not_above)
        from_start = len(self.scores) - start + self.above_ceiling
        fp_above, fp_at = from_start - not_above, from_start + self.at_ceiling - below
        if self.at_ceiling:
            fp_above += np.where(thresholds < self.ceiling, self.at_ceiling, 0)
        return fp_above, fp_at


def _count_below(
    thresholds: np.ndarray, negatives: np.ndarray, not_above: np.ndarray
) -> np.ndarray:
    """Return how many of the sorted negatives are below each threshold, int (n,).

    As many as are not above it, but where a negative equals it: only these, a few, are searched.
    """
    below = not_above.copy()
    if len(negatives):
        tied = np.flatnonzero((not_above > 0) & (negatives[not_above - 1] == thresholds))
        below[tied] = np.searchsorted(negatives, thresholds[tied], "left")
    return below


class HighestNegatives:
    """The negatives that one pass keeps: those above a floor that rises until they fit into memory.

    Groups come one after the other in one array; `counts` tells how many scores each has.
    """

    def __init__(self, groups: int):
        self.scores = np.empty(NEGATIVES_IN_MEMORY, np.float32)  # untouched pages take no memory
        self.counts, self.floor = [0] * groups, -np.inf

    def begin_pass(self, floor: float) -> None:
        """Forget all scores; keep those above `floor` from now on."""
        self.counts, self.floor = [0] * len(self.counts), floor

    def add(self, group: int, scores: np.ndarray, floor: float) -> None:
        """Take in scores above `floor` of `group`, which is not before that of the last call."""
        if floor < self.floor:
            scores = _above(scores, self.floor)
        while sum(self.counts) + len(scores) > len(self.scores):
            self._raise_floor(scores)
            scores = _above(scores, self.floor)
        end = sum(self.counts)
        self.scores[end : end + len(scores)] = scores
        self.counts[group] += len(scores)

    def _raise_floor(self, more: np.ndarray) -> None:
        """Drop about the lower half of the scores here, in place, so that `more` may fit too."""
        sample = np.concatenate([self.scores[: sum(self.counts) : SAMPLE], more[::SAMPLE]])
        self.floor = float(np.float32(np.median(sample)))
        end = 0
        for group, scores in enumerate(self._by_group()):
            begin = end
            for start in range(0, len(scores), CHUNK):
                kept = _above(scores[start : start + CHUNK], self.floor)
                self.scores[end : end + len(kept)] = kept
                end += len(kept)
            self.counts[group] = end - begin

    def _by_group(self) -> list[np.ndarray]:
        """Return each group's scores, views of the one array."""
        ends = np.cumsum(self.counts)
        return np.split(self.scores[: ends[-1]], ends[:-1])

    def by_group_sorted(self, workers: int) -> list[np.ndarray]:
        """Sort each group's scores in place and return them, views of the one array."""
        groups = self._by_group()
        deque(in_background(np.ndarray.sort, groups, workers), maxlen=0)
        return groups


class PixelCounts:
    """All pixels of a set of maps; `groups` gives each image's group as a number from 0.

    `negatives`, `positives` and `regions` are how many each group has, known once
    `count_false_positives` yields.
    """

    def __init__(self, read_map: ReadMap, read_regions: ReadRegions, groups: Sequence[int]):
        self.read_map, self.read_regions, self.groups = read_map, read_regions, groups
        self.images: list[LabelledPixels | None] = [None] * len(groups)
        self.negatives, self.positives, self.regions = np.zeros((3, max(groups) + 1), int)
        self.sample: list[np.ndarray] = []  # of all negatives

    def count_false_positives(
        self, use: Callable[[Thresholds], T], workers: int, what: str
    ) -> Iterator[T]:
        """Yield `use` of all thresholds, part after part from the highest to the lowest.

        Equal ones come together. `use` is called from `workers` threads.
        """
        for floor, ceiling, negatives in self._passes(workers, what):

            def count(parts: list[slice], negatives=negatives) -> T:
                return use(self._thresholds(parts, negatives))

            yield from in_background(count, self._chunks(floor, ceiling), workers)

    def _passes(self, workers: int, what: str) -> Iterator[tuple[float, float, list[Negatives]]]:
        """Read all maps for each range of scores; yield (floor, ceiling, the groups' negatives)."""
        highest, above = HighestNegatives(len(self.negatives)), np.zeros(len(self.negatives), int)
        ceiling = np.inf
        while ceiling > -np.inf:
            highest.begin_pass(self._floor(ceiling))
            at_ceiling = self._read_maps(highest, ceiling, workers, what)
            scores = highest.by_group_sorted(workers)
            groups = zip(scores, above.tolist(), at_ceiling.tolist(), strict=True)
            yield highest.floor, ceiling, [Negatives(s, ceiling, a, at) for s, a, at in groups]
            above += at_ceiling + highest.counts
            ceiling, what = highest.floor, f"{what.removesuffix(AGAIN)}{AGAIN}"

    def _floor(self, ceiling: float) -> float:
        """Return above which score the negatives below `ceiling` about fill the memory."""
        if not self.sample:
            return -np.inf
        below = np.concatenate(self.sample)
        below = np.sort(below[below < np.float32(ceiling)])
        fitting = int(FILL * NEGATIVES_IN_MEMORY / SAMPLE)
        return -np.inf if fitting >= len(below) else float(below[-1 - fitting])

    def _read_maps(
        self, highest: HighestNegatives, ceiling: float, workers: int, what: str
    ) -> np.ndarray:
        """Read every map into `highest`; return each group's number of negatives at `ceiling`."""
        first, at_ceiling = ceiling == np.inf, np.zeros(len(self.negatives), int)
        read = self._read_first if first else partial(self._read_again, ceiling=ceiling)
        images = sorted(range(len(self.groups)), key=self.groups.__getitem__)
        found = in_background(partial(read, highest=highest), images, workers)
        bar = progress(what, len(images), "map", found)
        for image, (negatives, floor, tied) in zip(images, bar, strict=True):
            highest.add(self.groups[image], negatives, floor)
            at_ceiling[self.groups[image]] += tied
        if first:
            self._count_pixels()
        return at_ceiling

    def _read_first(self, image: int, highest: HighestNegatives) -> tuple[np.ndarray, float, int]:
        """Label a map; return its negatives above the floor, the floor, and 0: none scores inf."""
        scores = self.read_map(image).ravel()
        self.images[image] = LabelledPixels.of(scores, self.read_regions(image))
        negatives = self.images[image].negatives_of(scores)
        self.sample.append(negatives[::SAMPLE].copy())
        floor = highest.floor  # rises meanwhile
        return _above(negatives, floor), floor, 0

    def _read_again(
        self, image: int, highest: HighestNegatives, ceiling: float
    ) -> tuple[np.ndarray, float, int]:
        """Return a map's negatives in (floor, ceiling), the floor, how many are at the ceiling."""
        negatives = self.images[image].negatives_of(self.read_map(image).ravel())
        floor = highest.floor  # rises meanwhile
        kept = (negatives > np.float32(floor)) & (negatives < np.float32(ceiling))
        return negatives[kept], floor, np.count_nonzero(negatives == np.float32(ceiling))

    def _count_pixels(self) -> None:
        """Add up how many negatives, positives and regions each group has."""
        for group, image in zip(self.groups, self.images, strict=True):
            self.negatives[group] += image.negatives
            self.positives[group] += len(image.scores)
            self.regions[group] += image.regions

    def _chunks(self, floor: float, ceiling: float) -> Iterator[list[slice]]:
        """Yield where in each image's positives the next lower thresholds are.

        Each time they are about CHUNK, from the ceiling down to the floor; equal ones together.
        """
        sample = [image.scores[image.between(floor, ceiling)][::SAMPLE] for image in self.images]
        cuts = np.sort(np.concatenate(sample))[:: CHUNK // SAMPLE].tolist()
        cuts = np.array(sorted({floor, *cuts, ceiling}), np.float32)
        places = np.stack([np.searchsorted(i.scores, cuts, "right") for i in self.images], 1)
        for high, low in pairwise(places[::-1].tolist()):
            if low != high:
                yield [slice(start, end) for start, end in zip(low, high, strict=True)]

    def _thresholds(self, parts: list[slice], negatives: list[Negatives]) -> Thresholds:
        """Count each group's false positives at the scores of a part of each image's positives."""
        scores, *others = self._positives_in(parts)
        rising = np.argsort(scores)
        counts = [group.false_positives(scores[rising]) for group in negatives]
        fp_above, fp_at = ([c[::-1] for c in column] for column in zip(*counts, strict=True))
        falling = rising[::-1]
        return Thresholds(scores[falling], *(o[falling] for o in others), fp_above, fp_at)

    def _positives_in(self, parts: list[slice]) -> tuple[np.ndarray, ...]:
        """Return (scores, positives, gains, group) of a part of each image's positives."""
        many_ties = sum(part.stop - part.start for part in parts) > 4 * CHUNK  # a cut parts no tie
        found = [
            (group, *image.thresholds(part, distinct=many_ties))
            for group, image, part in zip(self.groups, self.images, parts, strict=True)
            if part.start < part.stop
        ]
        groups, scores, *others = zip(*found, strict=True)
        group = np.repeat(np.array(groups, np.int16), [len(part) for part in scores])
        return *map(np.concatenate, (scores, *others)), group


def _above(scores: np.ndarray, floor: float) -> np.ndarray:
    """Return the scores above `floor`, a number that float32 holds."""
    return scores if floor == -np.inf else scores[scores > np.float32(floor)]

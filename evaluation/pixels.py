"""Count the negative pixels above each region pixel's score, in maps that do not fit into memory.

From the top: a pass over the maps keeps the negatives in a range of scores, sorts them, and settles
every region pixel in that range; the next pass takes the range below.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from data.images import in_background
from data.masks import Region

NEGATIVES_IN_MEMORY = 80 * 2**20  # 320 MiB of scores
CHUNK = 2**17  # region pixels settled at once: what they need stays in the processor's cache
SAMPLE = 997  # one score in so many tells well enough where to cut
FILL = 0.95  # of the store, as the sample foretells; more than it holds costs another pass
AGAIN = ", lower scores"
T = TypeVar("T")

ReadMap = Callable[[int], np.ndarray]  # image's number -> float32 (H, W), finite
ReadRegions = Callable[[int], list[Region]]


@dataclass
class Positives:
    """The region pixels of one image, their scores rising.

    A pixel's gain is 1 / saturation, summed over the regions among whose `saturation` best pixels
    it is. There are few different ones: `kinds` lists them, `gains` says which one a pixel has.
    """

    scores: np.ndarray  # float32 (n,)
    gains: np.ndarray  # the smallest unsigned integers that do, (n,)
    kinds: np.ndarray  # float64
    regions: int
    outside: np.ndarray | None  # which pixels are in no region, as packed bits; None: all

    @staticmethod
    def of(scores: np.ndarray, regions: list[Region]) -> "Positives":
        """Find the region pixels of a flat map, float32 (pixels,)."""
        if not regions:
            return Positives(np.empty(0, np.float32), np.empty(0, np.uint8), np.zeros(1), 0, None)
        outside = np.ones(len(scores), bool)
        if len(regions) == 1:  # as most images have: then the last ones are the best
            pixels, saturation = regions[0]
            outside[pixels] = False
            gains = (np.arange(len(pixels)) >= len(pixels) - saturation).astype(np.uint8)
            kinds = np.array((0.0, 1 / saturation))
            return Positives(np.sort(scores[pixels]), gains, kinds, 1, np.packbits(outside))
        gains, kinds = np.zeros(len(scores), np.int32), [0.0]
        for pixels, saturation in regions:
            outside[pixels] = False
            rest = len(pixels) - saturation
            best = pixels[np.argpartition(scores[pixels], rest)[rest:]] if rest else pixels
            former = gains[best]
            for kind in np.flatnonzero(np.bincount(former)):
                gains[best[former == kind]] = len(kinds)
                kinds.append(kinds[kind] + 1 / saturation)
        found = np.flatnonzero(~outside)
        found = found[np.argsort(scores[found])]
        gains = gains[found].astype(np.min_scalar_type(len(kinds)))
        return Positives(scores[found], gains, np.array(kinds), len(regions), np.packbits(outside))

    def negatives(self, scores: np.ndarray) -> np.ndarray:
        """Return the scores outside of all regions, of the same flat map."""
        if self.outside is None:
            return scores
        return scores[np.unpackbits(self.outside, count=len(scores)).view(bool)]

    def between(self, floor: float, ceiling: float) -> slice:
        """Return where the scores in (floor, ceiling] are."""
        ends = np.array((floor, ceiling), np.float32)
        return slice(*np.searchsorted(self.scores, ends, "right"))

    def lines(self, part: slice, join: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (scores, pixels, gains) of a part; `join` makes one line of equal scores.

        Without it, `pixels` is empty: each line is one.
        """
        scores, gains = self.scores[part], self.kinds[self.gains[part]]
        if not join:
            return scores, self.scores[:0], gains
        scores, line, pixels = np.unique(scores, return_inverse=True, return_counts=True)
        return scores, pixels, np.bincount(line, gains, len(scores))


@dataclass
class Negatives:
    """The negatives of one group with scores in (floor, ceiling), sorted.

    `above` counts those beyond the ceiling and `tied` those at it: a plateau, however large, takes
    no memory.
    """

    scores: np.ndarray
    above: int = 0
    tied: int = 0

    def count(self, wanted: np.ndarray, ceiling: float) -> tuple[np.ndarray, np.ndarray]:
        """Return how many negatives lie above, and how many not below, each of `wanted`.

        `wanted` rises, and is in (floor, ceiling].
        """
        if not len(wanted):
            return np.empty(0, int), np.empty(0, int)
        start = np.searchsorted(self.scores, wanted[0], "left")
        near = self.scores[start : np.searchsorted(self.scores, wanted[-1], "right")]
        up_to = np.searchsorted(near, wanted, "right")
        below = up_to.copy()
        if len(near):
            tied = np.flatnonzero((up_to > 0) & (near[up_to - 1] == wanted))
            below[tied] = np.searchsorted(near, wanted[tied], "left")
        beyond = self.above + len(self.scores) - start
        above, not_below = beyond - up_to, beyond + self.tied - below
        if self.tied:
            above += np.where(wanted < ceiling, self.tied, 0)
        return above, not_below


class Settled(NamedTuple):
    """Region pixels, their scores falling, and how many negatives of each group are above them."""

    scores: np.ndarray  # float32 (n,)
    pixels: np.ndarray  # int (n,): how many share this line, 1 unless many scores are equal
    gains: np.ndarray  # float64 (n,): summed over them
    group: np.ndarray  # int (n,): whose image
    above: list[np.ndarray]  # of each group, int (n,)
    not_below: list[np.ndarray]


class Store:
    """The negatives of one pass in one array: those above a floor that rises until they fit.

    Groups come one after the other, `counts` tells how many scores each has.
    """

    def __init__(self, groups: int):
        self.scores = np.empty(NEGATIVES_IN_MEMORY, np.float32)  # untouched pages take no memory
        self.clear(groups, -np.inf)

    def clear(self, groups: int, floor: float) -> None:
        """Forget all scores; begin a pass with `floor`."""
        self.counts, self.floor = [0] * groups, floor

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
        """Drop about the lower half of the scores here and in `more`."""
        groups = self.groups()
        sample = np.concatenate([self.scores[: sum(self.counts) : SAMPLE], more[::SAMPLE]])
        self.floor = float(np.float32(np.median(sample)))
        end = 0
        for index, scores in enumerate(groups):
            self.counts[index] = -end
            for start in range(0, len(scores), CHUNK):
                kept = _above(scores[start : start + CHUNK], self.floor)
                self.scores[end : end + len(kept)] = kept
                end += len(kept)
            self.counts[index] += end

    def groups(self) -> list[np.ndarray]:
        """Return each group's scores, views of the one array."""
        ends = np.cumsum(self.counts)
        return np.split(self.scores[: ends[-1]], ends[:-1])


class PixelCounts:
    """All pixels of a set of maps; `groups` gives each image's group as a number from 0.

    `negatives`, `positives` and `regions` are how many each group has, known once `settle` yields.
    """

    def __init__(self, read_map: ReadMap, read_regions: ReadRegions, groups: Sequence[int]):
        self.read_map, self.read_regions, self.groups = read_map, read_regions, groups
        self.images: list[Positives | None] = [None] * len(groups)
        self.negatives, self.positives, self.regions = np.zeros((3, max(groups) + 1), int)
        self.sample: list[np.ndarray] = []  # of all negatives

    def settle(self, use: Callable[[Settled], T], workers: int, what: str) -> Iterator[T]:
        """Yield `use` of all region pixels, part after part from the highest score to the lowest.

        Pixels of one score come together. `use` is called from `workers` threads.
        """
        store, above = Store(len(self.negatives)), np.zeros(len(self.negatives), int)
        ceiling = np.inf
        while ceiling > -np.inf:
            store.clear(len(above), self._floor(ceiling))
            tied = self._read(store, ceiling, workers, what)
            scores = store.groups()
            deque(in_background(np.ndarray.sort, scores, workers), maxlen=0)
            beyond = zip(scores, above.tolist(), tied.tolist(), strict=True)
            negatives = [Negatives(*fields) for fields in beyond]

            def work(parts: list[slice], negatives=negatives, ceiling=ceiling) -> T:
                return use(self._settled(negatives, ceiling, parts))

            yield from in_background(work, self._chunks(store.floor, ceiling), workers)
            above += tied + store.counts
            ceiling, what = store.floor, f"{what.removesuffix(AGAIN)}{AGAIN}"

    def _floor(self, ceiling: float) -> float:
        """Return above which score the negatives below `ceiling` about fill the store."""
        if not self.sample:
            return -np.inf
        below = np.concatenate(self.sample)
        below = np.sort(below[below < np.float32(ceiling)])
        fitting = int(FILL * NEGATIVES_IN_MEMORY / SAMPLE)
        return -np.inf if fitting >= len(below) else float(below[-1 - fitting])

    def _read(self, store: Store, ceiling: float, workers: int, what: str) -> np.ndarray:
        """Read every map into `store`; return how many negatives of each group are at `ceiling`."""
        first, tied = ceiling == np.inf, np.zeros(len(self.negatives), int)
        images = sorted(range(len(self.groups)), key=self.groups.__getitem__)

        def read(image: int) -> tuple[np.ndarray, float, int]:
            scores = self.read_map(image).ravel()
            if first:
                self.images[image] = Positives.of(scores, self.read_regions(image))
            scores = self.images[image].negatives(scores)
            floor = store.floor  # rises meanwhile
            if first:
                self.sample.append(scores[::SAMPLE].copy())
                return _above(scores, floor), floor, len(scores)
            kept = (scores > np.float32(floor)) & (scores < np.float32(ceiling))
            return scores[kept], floor, np.count_nonzero(scores == np.float32(ceiling))

        bar = tqdm(in_background(read, images, workers), what, len(images), unit="map", leave=False)
        for image, (scores, floor, counted) in zip(images, bar, strict=True):
            group = self.groups[image]
            store.add(group, scores, floor)
            if not first:
                tied[group] += counted
                continue
            self.negatives[group] += counted
            self.positives[group] += len(self.images[image].scores)
            self.regions[group] += self.images[image].regions
        return tied

    def _chunks(self, floor: float, ceiling: float) -> Iterator[list[slice]]:
        """Yield where in each image's region pixels those of the next lower scores are.

        Each time they are about CHUNK, from the ceiling down to the floor.
        """
        sample = [image.scores[image.between(floor, ceiling)][::SAMPLE] for image in self.images]
        cuts = np.sort(np.concatenate(sample))[:: CHUNK // SAMPLE].tolist()
        cuts = np.array(sorted({floor, *cuts, ceiling}), np.float32)
        places = np.stack([np.searchsorted(i.scores, cuts, "right") for i in self.images], 1)
        for high, low in pairwise(places[::-1].tolist()):
            if low != high:
                yield [slice(start, end) for start, end in zip(low, high, strict=True)]

    def _settled(self, negatives: list[Negatives], ceiling: float, parts: list[slice]) -> Settled:
        """Count the negatives above some of each image's region pixels."""
        crowded = sum(part.stop - part.start for part in parts) > 4 * CHUNK  # by equal scores
        found = zip(self.groups, self.images, parts, strict=True)
        lines = [
            (g, *image.lines(part, crowded)) for g, image, part in found if part.start < part.stop
        ]
        groups, scores, pixels, gains = zip(*lines, strict=True)
        group = np.repeat(np.array(groups, np.int16), [len(part) for part in scores])
        scores, gains = np.concatenate(scores), np.concatenate(gains)
        pixels = np.concatenate(pixels) if crowded else np.ones(len(scores), np.int32)
        order = np.argsort(scores)
        counts = [kind.count(scores[order], ceiling) for kind in negatives]
        above, not_below = ([c[::-1] for c in column] for column in zip(*counts, strict=True))
        columns = (column[order[::-1]] for column in (scores, pixels, gains, group))
        return Settled(*columns, above, not_below)


def _above(scores: np.ndarray, floor: float) -> np.ndarray:
    """Return the scores above `floor`, a number that float32 holds."""
    return scores if floor == -np.inf else scores[scores > np.float32(floor)]

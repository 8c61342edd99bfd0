"""Natural images, decoded by background workers: for the penalty and for distillation."""

import random
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from multiprocessing import Value
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from data.draws import Draw, generator
from data.images import Size, decode, resize
from data.listing import is_image, walk
from data.samples import InputError, noted
from data.shards import Member, Shards, list_members, list_readable_members
from data.workers import PATIENCE, Reading, WorkerDied, leave_interrupts_to_parent, raised_at_next

DISTILLATION_GRAYSCALE = 0.1  # probability; source: EfficientAD, appendix A.3
MOST_UNREADABLE = 0.05  # of the images asked for, before giving up
JUDGED = 1000  # images: the share is that of at least so many, or a bad start would end a run
NAMED = 10  # unreadable images that are named one by one
TRIED = 20  # images that are looked at before training
MOST_FILES = 10**8  # of natural images; the largest ImageNet has 14 million
HELD_OUT_IMAGES = 500  # at most; a twentieth of a small folder
PREFETCHED = 8  # small batches that a worker is ahead: decoding takes unequally long
HELD_OUT_SHARDS = 50  # at most, since a shard may hold one class alone


class Files:
    """An endless stream of image files, drawn at random."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def pick(self, position: int, attempt: int, seed: int, rng: np.random.Generator) -> Path:
        """Return a file by the next number of `rng`, which knows seed and position."""
        return self.paths[rng.integers(len(self.paths))]

    def members(self) -> list[Path]:
        """Return every file."""
        return self.paths


def find_natural_images(place: Path) -> Files | Shards:
    """Return the images below a folder, or in its tar shards where it has no image files.

    Folders may be nested and linked in any way. Raises InputError when there is no image.
    """
    if not place.exists():
        raise InputError(f"--imagenet_train_path {place} does not exist: name a folder of images")
    files = walk(place, MOST_FILES) if place.is_dir() else [place]
    images = [path for path in files if is_image(path)]
    shards = [path for path in files if path.suffix == ".tar"]
    if bool(images) == bool(shards):
        what = "both images and .tar shards" if images else "no image"
        if any(path.name.endswith((".tar.gz", ".tgz")) for path in files):
            what = "compressed shards, which cannot be read from the middle"
        raise InputError(
            f"--imagenet_train_path {place} holds {what}: name a folder of images or of .tar shards"
        )
    return Files(images) if images else Shards(shards)


def hold_out_natural(
    source: Files | Shards, seed: int
) -> tuple[Files | Shards, list[Path | Member]]:
    """Set images aside to judge a teacher by: (the rest, held out).

    A seeded twentieth of the files, or images of a twentieth of the shards; HELD_OUT_IMAGES at
    most. Raises InputError when there is only one file or shard.
    """
    shards = isinstance(source, Shards)
    items = source.shards if shards else source.paths
    if len(items) < 2:
        kind = "shard" if shards else "image"
        raise InputError(
            f"{items[0]} is the only {kind} of --imagenet_train_path: at least two are needed, "
            "since the teacher is judged on one that it never saw"
        )
    shuffled = random.Random(seed).sample(items, len(items))
    number = min(HELD_OUT_SHARDS if shards else HELD_OUT_IMAGES, max(1, len(items) // 20))
    if not shards:
        return Files(shuffled[number:]), shuffled[:number]
    share = HELD_OUT_IMAGES // number
    held_out = [m for members in list_readable_members(shuffled[:number]) for m in members[:share]]
    return Shards(shuffled[number:]), held_out


def penalty_view(
    image: Image.Image, size: Size, rng: np.random.Generator, grey: float
) -> torch.Tensor:
    """Resize to twice `size`, with probability `grey` to grey, cut the centre: uint8 (3, H, W).

    Nothing but the centre is resized, in a third of the time: equal pixels, or within one grey
    level where a side is odd.
    """
    height, width = size
    if rng.random() < grey:
        image = image.convert("L").convert("RGB")
    top, left = height // 2, width // 2
    y, x = image.height / (2 * height), image.width / (2 * width)  # of the file's pixels in one
    return resize(image, size, (left * x, top * y, (left + width) * x, (top + height) * y))


def distillation_view(
    image: Image.Image, size: Size, rng: np.random.Generator, mirror: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same image for the backbone and the PDN: uint8 (3, 2H, 2W) and (3, H, W)."""
    if rng.random() < DISTILLATION_GRAYSCALE:
        image = image.convert("L").convert("RGB")
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return resize(image, (2 * size[0], 2 * size[1])), resize(image, size)


class Unreadable:
    """Counts the images that could not be read, in all worker processes; too many are an error."""

    def __init__(self, allowed: float = MOST_UNREADABLE):
        self.allowed, self.asked, self.unreadable = allowed, Value("q", 0), Value("q", 0)

    @property
    def number(self) -> int:
        """How many there were so far."""
        return self.unreadable.value

    def ask(self) -> None:
        """Count in an image that is about to be read."""
        with self.asked.get_lock():
            self.asked.value += 1

    def skip(self, error: InputError) -> None:
        """Count in one that could not be. Raises InputError above the allowed share."""
        with self.unreadable.get_lock():
            self.unreadable.value += 1
            number = self.unreadable.value
        if number > self.allowed * max(self.asked.value, JUDGED):
            raise InputError(
                f"{number} of {self.asked.value} reads of natural images failed, more than the "
                f"allowed share of {self.allowed:g}; the last: {error}"
            )
        if number <= NAMED:  # the rest would fill the screen; their number is told in the end
            warnings.warn(f"skipped: {error}", stacklevel=2)


def read(member: Path | Member) -> Image.Image:
    """Read a natural image as 8-bit RGB; raises InputError naming the file or the shard."""
    return member.decode() if isinstance(member, Member) else decode(member)


def is_readable(member: Path | Member) -> bool:
    """Tell whether a natural image can be read."""
    try:
        read(member)
    except InputError:
        return False
    return True


def require_readable(members: list[Path | Member], what: str) -> None:
    """Raise InputError, which calls them `what`, when none of `members` can be read."""
    if members and not any(map(is_readable, members)):
        text = f"none of {len(members)} {what}, such as {members[0]}, can be read"
        raise InputError(f"--imagenet_train_path: {text}")


def some_members(source: Files | Shards) -> list[Path | Member]:
    """Return a few images from all over the source."""
    if isinstance(source, Files):
        return source.paths[:: -(-len(source.paths) // TRIED)]
    some: list[Path | Member] = []
    for shard in source.shards[:: -(-len(source.shards) // TRIED)]:
        with noted([]):  # it is skipped in training, too
            some += list_members(shard)[:TRIED]
    return some or [source.shards[0]]


class NaturalImages(Dataset):
    """An endless stream of views; item i depends on (source, seed, i) alone, so it can resume."""

    reading: Reading | None = None  # of the worker processes, if there are any

    def __init__(
        self,
        source: Files | Shards,
        size: Size,
        seed: int,
        view: Callable,
        allowed: float = MOST_UNREADABLE,
    ):
        self.source, self.size, self.seed, self.view = source, size, seed, view
        self.unreadable = Unreadable(allowed)

    def __getitem__(self, position: int):
        rng = generator(self.seed, Draw.NATURAL, position)
        for attempt in count():
            self.unreadable.ask()
            try:
                member = self.source.pick(position, attempt, self.seed, rng)
                if self.reading:
                    self.reading.note(str(member))
                return self.view(read(member), self.size, rng)
            except InputError as error:  # one bad file of a million must not end a long run
                self.unreadable.skip(error)
            finally:
                if self.reading:
                    self.reading.note()


def load_batches(
    images: NaturalImages,
    batch_size: int,
    steps: range,
    workers: int,
    part: slice = slice(None),
    pinned: bool = False,
    prefetched: int = 2,
) -> Iterator:
    """Yield one batch of views for each of `steps`, decoded by `workers` processes ahead of use.

    `part` is the slice of every batch that this process is to have; `pinned` puts it where a GPU
    can fetch it while the program goes on, `prefetched` batches each worker is ahead. Takes nothing
    from the global random generator. Raises InputError as a worker does, and WorkerDied, within
    seconds, when one is killed.
    """
    places = range(batch_size)[part]
    images.reading = Reading(workers) if workers else None
    with warnings.catch_warnings():
        # more workers than cores slow nothing down: they wait while the batches ahead last
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader = DataLoader(
            images,
            batch_size=len(places),
            sampler=(step * batch_size + place for step in steps for place in places),
            num_workers=workers,
            pin_memory=pinned,
            prefetch_factor=prefetched if workers else None,
            worker_init_fn=leave_interrupts_to_parent,
            generator=torch.Generator(),
        )
        with raised_at_next():
            batches = iter(loader)
    fault = None
    try:
        yield from batches
    except InputError as error:  # from a worker it comes with the worker's traceback
        fault = InputError(str(error).rpartition("InputError: ")[2].strip())
        error.__traceback__ = None  # a worker's error and its frames hold each other, and batches
    except (RuntimeError, OSError, EOFError) as error:  # the latter two from its connection
        dead = images.reading.of_the_dead(PATIENCE) if workers else []
        if not dead and "DataLoader worker" not in str(error):
            raise
        what = " and ".join(filter(None, dead))
        fault = WorkerDied(
            f"a process that decodes natural images was killed{' while it read ' * bool(what)}"
            f"{what}: lower --workers if memory is short"
        )
        error.__traceback__ = None
    finally:
        del batches  # ends the workers; at the exit of Python they would only be told to, see GRACE
    if fault:
        raise fault

"""Images in tar shards, as webdataset writes them (or ImageNet's own archive, unpacked once).

A shard is read where it lies, so a data set of a million images needs no unpacking. Shards suit
slow storage because each is read in one stretch, several of them side by side.
"""

import io
import tarfile
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from data.draws import Draw, generator, permutation
from data.images import decode
from data.listing import is_image
from data.samples import InputError, require_file

LANES = 16  # shards that are read side by side: what a batch mixes
SAMPLED = 5  # shards whose lengths are looked at in the beginning
KEPT = 4 * LANES  # shards whose tables of contents a process remembers


@dataclass(frozen=True)
class Member:
    """One image inside a shard: where its bytes lie."""

    shard: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return str(self.shard / self.name)

    def decode(self) -> Image.Image:
        """Read the image as 8-bit RGB. Raises InputError naming the shard and the member."""
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                content = io.BytesIO(file.read(self.size))
        except OSError as error:
            raise InputError(f"cannot read the shard {self.shard}: {error.strerror}") from error
        return decode(self.shard / self.name, content)


@lru_cache(maxsize=KEPT)
def list_members(shard: Path) -> tuple[Member, ...]:
    """Return the images of a shard in their order, reading its headers alone.

    Raises InputError when the file is missing, cut short or no uncompressed tar file.
    """
    try:
        require_file(shard)
        with tarfile.open(shard, "r:") as tar:
            end = shard.stat().st_size
            files = [info for info in tar if info.isfile() and is_image(Path(info.name))]
            if any(info.offset_data + info.size > end for info in files):
                raise OSError("a member is not whole in it")
    except (OSError, ValueError, OverflowError, tarfile.TarError) as error:
        raise InputError(f"cannot read the shard {shard}: {error}; replace or remove it") from error
    if not files:
        raise InputError(f"the shard {shard} holds no image: remove it")
    return tuple(Member(shard, info.name, info.offset_data, info.size) for info in files)


def list_readable_members(shards: list[Path]) -> list[tuple[Member, ...]]:
    """Return the images of each shard that can be read, and warn of the others.

    Raises InputError when none can.
    """
    found = []
    for shard in shards:
        try:
            found.append(list_members(shard))
        except InputError as error:
            warnings.warn(f"skipped: {error}", stacklevel=2)
            last = error
    if not found:
        raise last
    return found


class Shards:
    """An endless stream of the images in tar files; item i depends on (seed, i) alone.

    The stream has up to LANES lanes, item i in lane i modulo their number. A lane reads a shard's
    images one after another, from a random one on and round to it, then goes on to another shard;
    all lanes together use every shard once before any twice. So the storage is read in long
    stretches, and any item can be found without those before.
    """

    def __init__(self, shards: list[Path]):
        self.shards, self.bad = shards, set()
        self.lanes = min(LANES, len(shards))  # or a batch would hold one shard's image twice
        some = list_readable_members(shards[:: -(-len(shards) // SAMPLED)])
        self.length = int(np.median([len(members) for members in some]))  # taken from each shard

    def __len__(self) -> int:
        """Return about how many images there are, as if all shards had `length`."""
        return len(self.shards) * self.length

    def pick(self, position: int, attempt: int, seed: int, rng: np.random.Generator) -> Member:
        """Return the stream's item; after a failed attempt, or for a bad shard, any other image.

        Raises InputError when it meets an unreadable shard for the first time.
        """
        lane, place = position % self.lanes, position // self.lanes
        turn = place // self.length * self.lanes + lane
        epoch, rank = divmod(turn, len(self.shards))
        shard = self.shards[permutation(seed, Draw.SHARD_ORDER, epoch, len(self.shards))[rank]]
        if not attempt and shard not in self.bad:
            members = self._open(shard)
            start = generator(seed, Draw.SHARD_START, turn).integers(len(members))
            return members[(start + place % self.length) % len(members)]
        # what is drawn does not depend on when this process met a bad shard
        while (shard := self.shards[rng.integers(len(self.shards))]) in self.bad:
            if len(self.bad) == len(self.shards):
                raise InputError(f"none of {len(self.shards)} shards can be read, such as {shard}")
        members = self._open(shard)
        return members[rng.integers(len(members))]

    def _open(self, shard: Path) -> tuple[Member, ...]:
        """List a shard's images; remember a shard that cannot be read, so that it counts once."""
        try:
            return list_members(shard)
        except InputError:
            self.bad.add(shard)
            raise

    def members(self) -> list[Member]:
        """Return every image of every shard that can be read."""
        return [member for members in list_readable_members(self.shards) for member in members]

"""Images in tar shards, as webdataset writes them (or ImageNet's own archive, unpacked once).

A shard is read where it lies, so a data set of a million images needs no unpacking. Shards suit
slow storage because each is read from its beginning to its end, several of them side by side.
"""

import io
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from data.images import decode
from data.samples import InputError, is_image

LANES = 16  # shards that are read side by side: what a batch mixes
KEPT = 4 * LANES  # shards whose tables of contents a process remembers


@dataclass(frozen=True)
class Member:
    """One image inside a shard: where its bytes lie."""

    shard: Path
    name: str
    offset: int
    size: int

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
        with tarfile.open(shard, "r:") as tar:
            files = [info for info in tar if info.isfile() and is_image(Path(info.name))]
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"cannot read the shard {shard}: {error}; replace or remove it") from error
    if not files:
        raise InputError(f"the shard {shard} holds no image: remove it")
    return tuple(Member(shard, info.name, info.offset_data, info.size) for info in files)


class Shards:
    """An endless stream of the images in tar files; item i depends on (seed, i) alone.

    The stream has LANES lanes, item i in lane i modulo LANES. A lane reads a shard's images in
    their order, then goes on to another shard; all lanes together use every shard once before any
    twice. So the storage is read in long stretches, and any item can be found without those before.
    """

    unit = "images_in_shards"  # about, see __len__

    def __init__(self, shards: list[Path]):
        self.shards = shards
        self.length = len(list_members(shards[0]))  # images that a lane takes from each shard

    def __len__(self) -> int:
        """Return about how many images there are, as if all shards were like the first."""
        return len(self.shards) * self.length

    def pick(self, position: int, attempt: int, seed: int, rng: np.random.Generator) -> Member:
        """Return the stream's item; after a failed attempt any other image.

        Raises InputError when its shard cannot be read.
        """
        if attempt:
            members = list_members(self.shards[rng.integers(len(self.shards))])
            return members[rng.integers(len(members))]
        lane, place = position % LANES, position // LANES
        turn = place // self.length * LANES + lane
        epoch, rank = divmod(turn, len(self.shards))
        order = np.random.default_rng((seed, epoch)).permutation(len(self.shards))
        members = list_members(self.shards[order[rank]])
        # shards longer than the first one begin elsewhere each time, so all their images come up
        start = np.random.default_rng((seed, turn)).integers(len(members))
        start = start if len(members) > self.length else 0
        return members[(start + place % self.length) % len(members)]

    def members(self) -> list[Member]:
        """Return every image of every shard."""
        return [member for shard in self.shards for member in list_members(shard)]

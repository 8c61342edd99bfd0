"""What a teacher learns from: natural images, and what the backbone says of them.

Images come as a stream through the backbone at every step (the published protocol, for a large
image folder and a GPU), or from a cache of features, where the backbone sees every image once
and training takes random crops (for few images, or a CPU).
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from data.images import in_background
from data.natural import (
    Files,
    NaturalImages,
    Unreadable,
    distillation_view,
    load_batches,
    read,
)
from data.samples import InputError
from data.shards import Member, Shards
from models.backbone import Backbone
from models.pdn import TEACHER_CHANNELS
from scoring.calibration import ChannelMoments
from utils.devices import Compute
from utils.processes import Processes
from utils.progress import progress

OUTPUT_STRIDE = 4  # pixels between neighbouring outputs of a PDN
BORDER = 4  # outputs that the unpadded PDN lacks at each side
PATCH_MARGIN = 2 * BORDER * OUTPUT_STRIDE
STATISTICS_IMAGES = 10_000

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]  # uint8 (B, 3, H, W), features (B, C, h, w)


class FeatureCache:
    """Images and their backbone features, kept in memory in half precision.

    `images` uint8 (N, 3, S, S), `features` float16 (N, C, S / 4, S / 4) in channels-last order;
    N is `views` times the number of `members` that could be read.
    """

    def __init__(
        self,
        members: list[Path | Member],
        backbone: Callable,
        options: argparse.Namespace,
        views: int,
        channels: int = TEACHER_CHANNELS,
    ):
        count, size = len(members) * views, options.image_size
        side, kept = size // OUTPUT_STRIDE, 0
        self.images = torch.empty((count, 3, size, size), dtype=torch.uint8)
        self.features = torch.empty((count, side, side, channels), dtype=torch.float16)
        self.features = self.features.permute(0, 3, 1, 2)
        self.unreadable = Unreadable(options.max_unreadable)

        def load(index: int) -> tuple[torch.Tensor, torch.Tensor] | InputError:
            rng = np.random.default_rng((options.seed, index))
            try:
                image = read(members[index // views])
            except InputError as error:
                return error
            return distillation_view(image, (size, size), rng, mirror=index % views == 1)

        pairs = in_background(load, range(count), options.workers)
        for pair in progress("backbone features", count, "img", pairs):
            self.unreadable.ask()
            if isinstance(pair, InputError):
                self.unreadable.skip(pair)
                continue
            large, self.images[kept] = pair
            self.features[kept] = backbone(large[None])[0]
            kept += 1
        if not kept:
            raise InputError(f"none of {len(members)} natural images could be read: {members[0]}")
        self.images, self.features = self.images[:kept], self.features[:kept]

    def moments(self) -> ChannelMoments:
        """Return the channel statistics of all the cached features."""
        moments = ChannelMoments()
        for features in self.features:
            moments.add(features[None])
        return moments

    def __len__(self) -> int:
        return len(self.images)

    def pairs(self, mean: torch.Tensor, std: torch.Tensor) -> Batches:
        """Yield every image with its features, normalised: (1, 3, S, S), (1, C, S / 4, S / 4)."""
        for images, features in zip(self.images.split(1), self.features.split(1), strict=True):
            yield images, (features.to(mean.device) - mean) / std

    def batch(self, step: int, batch_size: int, crop: int, seed: int):
        """Return random aligned crops for `step`: uint8 (B, 3, crop, crop), features (B, C, h, h).

        Only outputs that saw no border are asked for: an unpadded PDN gives just these.
        """
        rng = np.random.default_rng((seed, step))
        outputs = (crop - PATCH_MARGIN) // OUTPUT_STRIDE
        last = (self.images.shape[-1] - crop) // OUTPUT_STRIDE
        images, features = [], []
        for index in rng.integers(len(self.images), size=batch_size):
            top, left = rng.integers(last + 1, size=2)
            y, x = top * OUTPUT_STRIDE, left * OUTPUT_STRIDE
            images.append(self.images[index, :, y : y + crop, x : x + crop])
            y, x = top + BORDER, left + BORDER
            features.append(self.features[index, :, y : y + outputs, x : x + outputs])
        return torch.stack(images), torch.stack(features)


class Cached:
    """Batches from features that were computed once: random crops, unpadded PDN."""

    padding = False
    waited = 0.0

    def __init__(self, source: Files | Shards, features: Callable, options: argparse.Namespace):
        self.options = options
        self.cache = FeatureCache(source.members(), features, options, options.cached_views)
        self.unreadable = self.cache.unreadable

    def moments(self, processes: Processes) -> ChannelMoments:
        """Return the statistics of all the features."""
        return self.cache.moments()

    def batches(self, steps: range, processes: Processes) -> Batches:
        """Yield one batch for each of `steps`."""
        o = self.options
        return (self.cache.batch(step, o.batch_size, o.crop_size, o.seed) for step in steps)


class Streamed:
    """Batches through the backbone at every step: whole images, padded PDN.

    Each of several processes decodes and describes its own part of every batch. `pinned` as in
    `load_batches`.
    """

    padding = True

    def __init__(
        self,
        source: Files | Shards,
        features: Callable,
        options: argparse.Namespace,
        pinned: bool = False,
    ):
        self.features, self.options, self.pinned = features, options, pinned
        size = (options.image_size, options.image_size)
        self.images = NaturalImages(
            source, size, options.seed, distillation_view, options.max_unreadable
        )
        self.unreadable = self.images.unreadable
        self.waited = 0.0  # seconds for images that were not decoded yet

    def moments(self, processes: Processes) -> ChannelMoments:
        """Return the statistics of the features of STATISTICS_IMAGES images.

        They are spread over the stream's first epoch, since shards may hold one class each.
        """
        epoch = max(1, len(self.images.source) // self.options.batch_size)
        number = max(1, min(epoch, STATISTICS_IMAGES // self.options.batch_size))
        steps = range(0, epoch, epoch // number)[:number]
        moments = ChannelMoments()
        batches = self.batches(steps, processes)
        hidden = not processes.leads
        bar = progress("feature statistics", len(steps), "batch", batches, disable=hidden)
        for _, features in bar:
            moments.add(features)
        for sums in (moments.total, moments.squares):
            processes.sum(sums)
        moments.count *= processes.count
        self.waited = 0.0
        return moments

    def batches(self, steps: range, processes: Processes) -> Batches:
        """Yield this process's part of one batch for each of `steps`."""
        o, part = self.options, processes.part(self.options.batch_size)
        views = load_batches(self.images, o.batch_size, steps, o.workers, part, self.pinned)
        began = time.perf_counter()
        for large, small in views:
            self.waited += time.perf_counter() - began
            yield small, self.features(large)
            began = time.perf_counter()


def describe(backbone: Backbone, compute: Compute) -> Callable:
    """Return a function from uint8 images (N, 3, 2S, 2S) to float32 features, on the device."""
    compute.place(backbone)

    @torch.no_grad()
    def features(images: torch.Tensor) -> torch.Tensor:
        with compute.autocast():
            return backbone(images.to(compute.device, non_blocking=True))

    return features

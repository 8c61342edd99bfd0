"""Distil a teacher: batches of (PDN input, backbone features), and how well it learnt them.

Images come as a stream through the backbone at every step (the published protocol, for a large
image folder and a GPU), or from a cache of features, where the backbone sees every image once
and training takes random crops (for few images, or a CPU).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from data.images import decode, in_background, normalise
from data.natural import distillation_view
from models.backbone import Backbone
from utils.calibration import ChannelMoments
from utils.devices import Compute

OUTPUT_STRIDE = 4  # pixels between neighbouring outputs of a PDN
BORDER = 4  # outputs that the unpadded PDN lacks at each side
PATCH_MARGIN = 2 * BORDER * OUTPUT_STRIDE


class FeatureCache:
    """Images and their backbone features, kept in memory in half precision.

    `images` uint8 (N, 3, S, S), `features` float16 (N, C, S / 4, S / 4) in channels-last order.
    """

    def __init__(
        self, paths: list[Path], size: int, backbone: Callable, channels: int, options, views: int
    ):
        count, side = len(paths) * views, size // OUTPUT_STRIDE
        self.images = torch.empty((count, 3, size, size), dtype=torch.uint8)
        self.features = torch.empty((count, side, side, channels), dtype=torch.float16)
        self.features = self.features.permute(0, 3, 1, 2)

        def read(index: int) -> tuple[torch.Tensor, torch.Tensor]:
            rng = np.random.default_rng((options.seed, index))
            image = decode(paths[index // views])
            return distillation_view(image, (size, size), rng, mirror=index % views == 1)

        pairs = in_background(read, range(count), options.workers)
        bar = tqdm(pairs, desc="backbone features", total=count, unit="img", leave=False)
        for index, (large, small) in enumerate(bar):
            self.images[index] = small
            self.features[index] = backbone(large[None])[0]

    def moments(self) -> ChannelMoments:
        """Return the channel statistics of all the cached features."""
        moments = ChannelMoments()
        for features in self.features:
            moments.add(features[None])
        return moments

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


@torch.no_grad()
def explained_variance(
    pdn: nn.Module, pairs: Iterator[tuple[torch.Tensor, torch.Tensor]], device: torch.device
) -> float:
    """Return 1 - squared error / variance of `pdn` over (image, normalised features) pairs.

    uint8 (N, 3, S, S) and (N, C, S / 4, S / 4); judged where the unpadded PDN has outputs.
    """
    error, moments = 0.0, ChannelMoments()
    for images, features in pairs:
        target = features[..., BORDER:-BORDER, BORDER:-BORDER].to(device).float()
        output = pdn(normalise(images.to(device))).float()
        error += (output - target).double().square().sum().item()
        moments.add(target)
    _, std = moments.mean_std()
    return 1 - error / (moments.count * std.double().square().sum().item())


def describe(backbone: Backbone, compute: Compute) -> Callable:
    """Return a function from uint8 images (N, 3, 2S, 2S) to float32 features, on the device."""
    compute.place(backbone)

    @torch.no_grad()
    def features(images: torch.Tensor) -> torch.Tensor:
        inputs = normalise(images.to(compute.device, non_blocking=True))
        with compute.autocast():
            return backbone(inputs.contiguous(memory_format=torch.channels_last))

    return features

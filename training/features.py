"""The teacher's features of the training images: computed once, since they never change."""

import sys

import torch

from data.images import normalise
from models.detector import Detector
from scoring.calibration import ChannelMoments
from utils.devices import Compute
from utils.progress import progress

BATCH_SIZE = 8
MIB = 2**20
DEVICE_RESERVE = 4096  # MiB of a GPU that training itself may need


@torch.no_grad()
def describe_training_images(
    detector: Detector, images: torch.Tensor, compute: Compute, budget: int
) -> torch.Tensor | None:
    """Store the teacher's channel mean and std over the training images; return its features.

    `images` is uint8 (N, 3, H, W) on the device. The features are the teacher's own outputs,
    (N, h, w, C) as the precision gives them, so that nothing is lost: on the device, else in pinned
    host memory; None if they take more than `budget` MiB or than there is.
    """
    moments, kept = ChannelMoments(), None
    starts = range(0, len(images), BATCH_SIZE)
    for start in progress("teacher's features", len(starts), "batch", starts):
        batch = images[start : start + BATCH_SIZE]
        with compute.autocast():
            features = detector.teacher(normalise(batch))
        moments.add(features.float())
        features = features.permute(0, 2, 3, 1)  # one image's features lie together
        if start == 0:
            kept = allocate(len(images), features, compute.device, budget)
        if kept is not None:
            kept[start : start + len(batch)] = features
    mean, std = moments.mean_std()
    detector.teacher_mean.copy_(mean)
    detector.teacher_std.copy_(std)
    return kept


def allocate(
    count: int, like: torch.Tensor, device: torch.device, budget: int
) -> torch.Tensor | None:
    """Return room for `count` images' features, of which `like` are some; None without enough."""
    shape = (count, *like.shape[1:])
    needed = count * like[0].numel() * like.element_size() / MIB
    reason = f"more than --feature_memory {budget}"
    if needed <= budget:
        try:
            if device.type == "cuda":
                free, _ = torch.cuda.mem_get_info(device)
                if free / MIB < needed + DEVICE_RESERVE:
                    return torch.empty(shape, dtype=like.dtype, pin_memory=True)
            return torch.empty(shape, dtype=like.dtype, device=device)
        except RuntimeError:
            reason = "more than there is"
    if budget:
        print(
            f"the teacher's features would take {needed:.0f} MiB, {reason}: they are computed "
            "again at every step",
            file=sys.stderr,
        )
    return None

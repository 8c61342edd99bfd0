"""What a training begins with: the detector, and the images as it sees them."""

import argparse

import torch

from models.building import build_detector
from models.detector import Detector
from training.preparation import Prepared
from utils.options import image_size
from utils.recipe import recipe_of

CHUNK = 32  # images at once


def begin(prepared: Prepared, options: argparse.Namespace) -> tuple[Detector, torch.Tensor]:
    """Return the detector that is to be trained, and the training images as it sees them.

    These are uint8 (N, 3, H, W) on the device, which `prepared` holds no longer.
    """
    what = (options.model, options.model_size, image_size(options), prepared.teacher)
    detector = build_detector(*what, recipe_of(options), tuple(options.experts))
    images, prepared.images = prepared.images, None
    if prepared.bits:
        detector.bits.fill_(prepared.bits)
    detector.view.typical = mean_image(images)
    if prepared.ignored is not None:
        detector.view.ignored = prepared.ignored
    prepared.compute.place(detector)
    return detector, detector.view.filled(images.to(prepared.compute.device))


def mean_image(images: torch.Tensor) -> torch.Tensor:
    """Return the mean of images, uint8 (N, 3, H, W) -> (3, H, W), rounded; in integers, exactly."""
    total = sum(some.sum(0) for some in images.split(CHUNK))  # int64
    return ((total + len(images) // 2) // len(images)).to(torch.uint8)

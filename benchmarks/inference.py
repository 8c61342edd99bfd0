"""Benchmark of scoring, from the image on the device to its map at full size."""

import argparse
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import forget_peaks, matmul_rate, peak_memories, speed_settings
from benchmarks.published import PublishedScoring
from benchmarks.timing import OURS, blocks, compared, repeated, time_blocks
from data.catalog import find_root, read_category
from data.images import Size, load_image, normalise
from data.samples import InputError
from models.building import build_detector
from models.detector import Detector
from scoring.scorer import Scorer
from utils.devices import Compute, seed_everything
from utils.options import dataset_path, image_size


def compare(
    detector: Detector,
    images: torch.Tensor,
    original: Size,
    options: argparse.Namespace,
    compute: Compute,
) -> dict:
    """Time the scoring of `images`, uint8 (N, 3, H, W) on the device; maps of size `original`."""
    number = len(images)
    warm_up, steps, repeats = blocks(options, compute)
    forget_peaks(compute)
    scorer = Scorer(detector, replace(compute, scoring_batch_size=number))
    contenders = {OURS: repeated(lambda: scorer.score(images, [original] * number))}
    time_blocks(contenders, compute.device, warm_up, 1, 1)
    peaks = peak_memories(compute)  # before the opponent takes any
    if options.against:
        published = PublishedScoring(detector, compute.device)
        inputs = normalise(images).to(published.dtype)
        contenders[options.against] = repeated(lambda: published.score(inputs, original))
    result = compared(
        time_blocks(contenders, compute.device, warm_up, steps, repeats), "image", number
    )
    with FlopCounterMode(display=False) as counter:
        scorer.detector.distances(normalise(images))
    return {
        "batch_size": number,
        **result,
        "images_per_second": 1 / result["seconds_per_image"],
        "operations_per_image": counter.get_total_flops() // number,
        **peaks,
        **speed_settings(compute),
    }


def benchmark_inference(options: argparse.Namespace, compute: Compute) -> dict:
    """Time scoring for each batch size; return the rows and the settings that gave them."""
    root = find_root(options.dataset, dataset_path(options, options.dataset))
    category = read_category(options.dataset, root, options.subdataset, options.seed)
    if not category.test:
        raise InputError(f"{root} has no test images of {category.name}: there is nothing to score")
    size = image_size(options)
    image, original = load_image(category.test[0].image, size)
    image = image.to(compute.device)
    seed_everything(options.seed)
    experts = tuple(options.experts)
    detector = build_detector(options.model, options.model_size, size, experts=experts)
    numbers = options.batch_size or ([1] if compute.device.type == "cpu" else [1, 16])
    rows = [
        compare(detector, image.repeat(number, 1, 1, 1), original, options, compute)
        for number in numbers
    ]
    rate = matmul_rate(compute)
    for row in rows:
        row["share_of_matmul"] = row["operations_per_image"] / row["seconds_per_image"] / rate
    warm_up, steps, repeats = blocks(options, compute)
    settings = {"dataset": options.dataset, "subdataset": category.name, "map_size": original}
    settings |= {"steps": steps, "warm_up": warm_up, "repeats": repeats}
    names = ("model", "model_size", "image_size", "seed", "experts")
    settings |= {name: getattr(options, name) for name in names}
    result = {"benchmark": "inference", **rows[-1], "matmul_operations_per_second": rate}
    return result | {"rows": rows, "settings": settings}

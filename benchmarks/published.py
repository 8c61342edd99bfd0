"""The published way to train and to score, to be compared with, as the papers' code does it.

Training: fp32 and channels first, a pass of teacher and of student for every input, all outputs of
the student, `torch.quantile` over all distances, images decoded, jittered and resized at full size
at every step, the loss read at every step. Scoring: one network after another, fp32, on a GPU fp16.
The reference implementation of EfficientAD has no dropout; nor has this, which is then faster.
Nothing here is used by the product itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from data.images import IMAGENET_MEAN, IMAGENET_STD, Size
from data.samples import InputError
from models.detector import Detector
from models.fusion import MAP_PADDING
from models.pdn import TEACHER_CHANNELS
from models.recipe import PUBLISHED

WORKERS = 4  # of each of the two loaders
QUANTILE_LIMIT = 2**24  # elements that torch.quantile takes


class Photographs(Dataset):
    """Images from files, decoded and transformed anew every time."""

    def __init__(self, paths: list[Path], transform: Callable):
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB"))


class ProductTransform:
    """What gives an image and its jittered twin, both normalised (3, H, W)."""

    def __init__(self, size: Size):
        kinds = ("brightness", "contrast", "saturation")
        jitters = [transforms.ColorJitter(**{kind: PUBLISHED.jitter}) for kind in kinds]
        self.jitter = transforms.RandomChoice(jitters)
        self.plain = transforms.Compose([transforms.Resize(size), *normalised()])

    def __call__(self, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
        return self.plain(image), self.plain(self.jitter(image))


def penalty_transform(size: Size) -> Callable:
    """Return what makes the penalty's view of a natural image."""
    double = (2 * size[0], 2 * size[1])
    grey = transforms.RandomGrayscale(PUBLISHED.penalty_probability)
    steps = [transforms.Resize(double), grey]
    return transforms.Compose([*steps, transforms.CenterCrop(size), *normalised()])


def normalised() -> list[Callable]:
    """Return the last transforms, which make the networks' input of a picture: (3, H, W)."""
    return [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]


class PublishedTraining:
    """The published training step, with its loaders."""

    def __init__(
        self,
        detector: Detector,
        paths: list[Path],
        natural: list[Path],
        size: Size,
        batch_size: int,
        device: torch.device,
    ):
        self.detector = as_published(detector).to(device).train()
        self.device, self.batch_size = device, batch_size
        self.products = Photographs(paths, ProductTransform(size))
        self.natural = Photographs(natural, penalty_transform(size)) if natural else None
        self.adam = torch.optim.Adam(
            self.detector.trained_parameters(),
            lr=PUBLISHED.learning_rate,
            weight_decay=PUBLISHED.weight_decay,
        )
        self.schedule = torch.optim.lr_scheduler.StepLR(self.adam, step_size=10**6, gamma=0.1)

    def batches(self, images: Dataset) -> Iterator:
        """Yield shuffled batches for ever."""
        loader = DataLoader(
            images,
            batch_size=self.batch_size,
            shuffle=True,
            num_workers=WORKERS,
            pin_memory=self.device.type == "cuda",
            drop_last=len(images) >= self.batch_size,
        )
        while True:
            yield from loader

    @contextmanager
    def running(self) -> Iterator[Callable[[], float]]:
        """Start the loaders' processes; give the step; stop them."""
        products = self.batches(self.products)
        natural = self.batches(self.natural) if self.natural else None
        try:
            yield lambda: self.step(*next(products), natural and next(natural))
        finally:
            for stream in filter(None, (products, natural)):
                stream.close()

    def step(
        self, image: torch.Tensor, jittered: torch.Tensor, natural: torch.Tensor | None
    ) -> float:
        """Take one training step on normalised (N, 3, H, W); return the loss."""
        detector, channels = self.detector, TEACHER_CHANNELS
        image, jittered = image.to(self.device), jittered.to(self.device)
        with torch.no_grad():
            described = detector.teacher(image)
            described = (described - detector.teacher_mean) / detector.teacher_std
        distance = (described - detector.student(image)[:, :channels]) ** 2
        if distance.numel() > QUANTILE_LIMIT:
            raise InputError(
                f"--against published: torch.quantile takes {QUANTILE_LIMIT} distances, not "
                f"{distance.numel()}: lower --batch_size or --image_size"
            )
        hard = distance[distance >= torch.quantile(distance, q=PUBLISHED.hard_quantile)].mean()
        penalty = 0.0
        if natural is not None:
            natural = natural.to(self.device)
            penalty = (detector.student(natural)[:, :channels] ** 2).mean()
        reconstructed = detector.autoencoder(jittered)
        with torch.no_grad():
            described = detector.teacher(jittered)
            described = (described - detector.teacher_mean) / detector.teacher_std
        as_autoencoder = detector.student(jittered)[:, channels:]
        both = ((described - reconstructed) ** 2).mean()
        both = both + ((reconstructed - as_autoencoder) ** 2).mean()
        loss = hard + penalty + both
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.schedule.step()
        return loss.item()


class PublishedScoring:
    """The published way to score: three networks one after another; half precision on a GPU."""

    def __init__(self, detector: Detector, device: torch.device):
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.detector = as_published(detector).to(device, self.dtype).eval()

    @torch.no_grad()
    def score(self, image: torch.Tensor, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (N,) and maps (N, height, width) of normalised (N, 3, H, W)."""
        detector, channels = self.detector, TEACHER_CHANNELS
        described = (detector.teacher(image) - detector.teacher_mean) / detector.teacher_std
        student, reconstructed = detector.student(image), detector.autoencoder(image)
        strange = ((described - student[:, :channels]) ** 2).mean(1, keepdim=True)
        logical = ((reconstructed - student[:, channels:]) ** 2).mean(1, keepdim=True)
        scaled = [
            0.1 * (distance - low) / (high - low)
            for distance, (low, high) in (
                (strange, detector.student_quantiles),
                (logical, detector.autoencoder_quantiles),
            )
        ]
        combined = F.pad(0.5 * scaled[0] + 0.5 * scaled[1], (MAP_PADDING,) * 4)
        maps = F.interpolate(combined, size, mode="bilinear")[:, 0]
        return maps.amax((1, 2)), maps


def as_published(detector: Detector) -> Detector:
    """Return a copy of the detector without dropout, its weights channels first."""
    copy = deepcopy(detector)
    for module in copy.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return copy.to(memory_format=torch.contiguous_format)

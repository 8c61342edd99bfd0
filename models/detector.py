"""The detector: teacher, student and autoencoder, with all trained state in one state_dict."""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from models.autoencoder import AUTOENCODERS, check_size
from models.gfencoder import Size
from models.pdn import PDNS, TEACHER_CHANNELS
from models.recipe import PUBLISHED, Recipe

LOW_VALUE, HIGH_VALUE = 0.0, 0.1  # what the two calibrated quantiles of a map become
UNCALIBRATED = (LOW_VALUE, HIGH_VALUE)  # quantiles that leave a map as it is
MAP_PADDING = 4  # outputs at each border that the unpadded PDN does not describe
# The least spread of two quantiles, of their level and at all: good images without any contrast
# have none, and what differs from them would be infinitely strange. Others have 100 times as much.
LEAST_SPREAD, LEAST_SPREAD_AT_ALL = 1e-3, 1e-6


class Maps(NamedTuple):
    """Anomaly maps of the whole image, each (N, 1, h + 8, w + 8) float32, where h x w is the PDN's.

    `combined` is the mean of the other two.
    """

    combined: torch.Tensor
    student: torch.Tensor
    autoencoder: torch.Tensor


# The buffers with the maps' thresholds; detectors of earlier versions lack those of single maps.
SINGLE_THRESHOLDS = ("student_threshold", "autoencoder_threshold")
THRESHOLDS = dict(zip(Maps._fields, ("threshold", *SINGLE_THRESHOLDS), strict=True))
# What detectors of earlier versions lack, and what holds for them: deep images were of 16 bits, and
# the thresholds of single maps are not known.
LATER = {"bits": torch.tensor(16, dtype=torch.uint8)}
LATER |= {name: torch.tensor(float("nan")) for name in SINGLE_THRESHOLDS}


def hard_feature_loss(
    distance: torch.Tensor, quantile: tuple[int, int] = PUBLISHED.hard_fraction
) -> torch.Tensor:
    """Return the mean of the elements of `distance` at or above a quantile q of them.

    Any shape -> scalar; `quantile` is q's numerator and denominator. The elements above the
    (linearly interpolated) quantile at position q (n - 1) of the sorted ones are the largest
    n - ceil(q (n - 1)): top-k finds them without sorting everything, for any n. Source:
    EfficientAD, section 3.2, where q is 0.999.
    """
    numerator, denominator = quantile
    position = -(-numerator * (distance.numel() - 1) // denominator)
    return distance.flatten().topk(distance.numel() - position, sorted=False).values.mean()


class Detector(nn.Module):
    """Finds where the student disagrees with the teacher, and with the autoencoder.

    Its buffers are the teacher's channel mean and std, two quantiles of each single map, each map's
    threshold on image scores and the bits that images deeper than 8 bits are scaled from, so
    `state_dict` is the whole trained thing. Before calibration they change nothing. `recipe` is
    what training and calibration go by; scoring needs none. Source: EfficientAD (Batzner et al.,
    WACV 2024); GLAE for its autoencoder.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        autoencoder: nn.Module,
        recipe: Recipe = PUBLISHED,
    ):
        super().__init__()
        self.teacher, self.student, self.autoencoder = teacher, student, autoencoder
        self.recipe = recipe
        self.hard_quantile = recipe.hard_fraction  # now: a compiler cannot trace how it is made
        self.teacher.requires_grad_(False)
        shape = (1, TEACHER_CHANNELS, 1, 1)
        self.register_buffer("teacher_mean", torch.zeros(shape))
        self.register_buffer("teacher_std", torch.ones(shape))
        self.register_buffer("student_quantiles", torch.tensor(UNCALIBRATED))
        self.register_buffer("autoencoder_quantiles", torch.tensor(UNCALIBRATED))
        for name in THRESHOLDS.values():
            self.register_buffer(name, torch.tensor(float("inf")))
        self.register_buffer("bits", LATER["bits"].clone())
        self.folded = False  # the teacher's last layer normalises; see `for_scoring`

    def train(self, mode: bool = True) -> "Detector":
        super().train(mode)
        self.teacher.train(False)
        return self

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that training changes: the student's and the autoencoder's."""
        return [*self.student.parameters(), *self.autoencoder.parameters()]

    def describe(self, image: torch.Tensor) -> torch.Tensor:
        """Return the teacher's features, normalised over the training images.

        Normalised image (N, 3, H, W) -> (N, C, h, w) float32, without gradient.
        """
        with torch.no_grad():
            return self.normalise_features(self.teacher(image))

    def normalise_features(self, features: torch.Tensor) -> torch.Tensor:
        """Bring the teacher's own output (N, C, h, w) to mean 0 and std 1 of each channel."""
        if self.folded:
            return features.float()
        return (features.float() - self.teacher_mean) / self.teacher_std

    def losses(
        self,
        image: torch.Tensor,
        jittered: torch.Tensor,
        natural: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return one step's loss terms, to be summed unweighted.

        `image`, `jittered` (the same images, their colours changed) and `natural`: normalised
        (N, 3, H, W). `features` is the teacher's own output for `image` where it is known already,
        (N, C, h, w). Source: EfficientAD, algorithm 1.
        """
        student = self.student_pass(image, jittered, natural, features)
        return join_losses(student, self.autoencoder_pass(jittered))

    def student_pass(
        self,
        image: torch.Tensor,
        jittered: torch.Tensor,
        natural: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return what the student expects of the autoencoder, its hard loss and its penalty.

        Arguments as in `losses`; (N, C, h, w) float32 and two scalars, the penalty None without
        natural images. One pass of the student for all inputs: fewer, larger operations.
        """
        described = self.describe(image) if features is None else self.normalise_features(features)
        inputs = [image, jittered] if natural is None else [image, jittered, natural]
        shared = self.student[:-1](torch.cat(inputs)).split([len(i) for i in inputs])
        as_teacher = self.half_of_student(shared[0], 0)
        # flat as it lies in memory, channels last: another order would be a copy
        distance = (described - as_teacher).square().permute(0, 2, 3, 1)
        hard = hard_feature_loss(distance, self.hard_quantile)
        penalty = None
        if natural is not None:
            penalty = self.half_of_student(shared[2], 0).square().mean()
        return self.half_of_student(shared[1], 1), hard, penalty

    def autoencoder_pass(self, jittered: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the autoencoder's features, (N, C, h, w) float32, and its loss.

        It needs nothing of `student_pass`, nor that of it.
        """
        reconstructed = self.autoencoder(jittered).float()
        return reconstructed, F.mse_loss(reconstructed, self.describe(jittered))

    def half_of_student(self, features: torch.Tensor, half: int) -> torch.Tensor:
        """Return the student's channels that imitate the teacher (0) or the autoencoder (1).

        The input of its last layer, (N, c, h', w') -> (N, C, h, w) float32. A loss needs one half,
        and in the small student the last layer is a third of the work.
        """
        last = self.student[-1]
        weight, bias = (p.chunk(2)[half] for p in (last.weight, last.bias))
        return F.conv2d(features, weight, bias).float()

    def for_scoring(self, dtype: torch.dtype = torch.float32) -> "Detector":
        """Return a frozen copy that scores faster: networks in `dtype`, normalisation folded.

        The teacher's last layer gives normalised features itself. Distances, calibration and what
        follows stay float32. Up to rounding, its maps are this detector's.
        """
        copy = deepcopy(self).eval().requires_grad_(False)
        if not self.folded:
            last = copy.teacher[-1]
            last.weight.div_(self.teacher_std.view(-1, 1, 1, 1))
            last.bias.sub_(self.teacher_mean.flatten()).div_(self.teacher_std.flatten())
            copy.folded = True
        for network in (copy.teacher, copy.student, copy.autoencoder):
            network.to(dtype)
        return copy

    @torch.no_grad()
    def distances(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the student's and the autoencoder's map before calibration.

        Normalised images (N, 3, H, W) -> two mean squared distances over the channels, each
        (N, 1, h, w) float32.
        """
        image = image.to(self.student[0].weight.dtype)
        as_teacher, as_autoencoder = self.student(image).float().split(TEACHER_CHANNELS, dim=1)
        student = (self.describe(image) - as_teacher).square().mean(1, keepdim=True)
        reconstructed = self.autoencoder(image).float()
        return student, (reconstructed - as_autoencoder).square().mean(1, keepdim=True)

    def calibrated(self, student: torch.Tensor, autoencoder: torch.Tensor) -> Maps:
        """Return the anomaly maps that `distances` become by the calibrated quantiles.

        The frame that the unpadded PDN leaves out has a distance of 0, less than any good pixel.
        The published code pads the calibrated map, where 0 is more than nine in ten of them.
        """
        student = calibrate_map(whole(student), self.student_quantiles)
        autoencoder = calibrate_map(whole(autoencoder), self.autoencoder_quantiles)
        return Maps((student + autoencoder) / 2, student, autoencoder)

    def maps(self, image: torch.Tensor) -> Maps:
        """Return the calibrated anomaly maps of normalised images (N, 3, H, W)."""
        return self.calibrated(*self.distances(image))

    def score(self, image: torch.Tensor, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image scores (N,) and anomaly maps (N, height, width), both float32.

        `image` is normalised, (N, 3, H, W); `size` the (height, width) that the map is wanted in,
        as a rule that of the image's file.
        """
        return score_maps(self.maps(image).combined, size)


def join_losses(
    student: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
    autoencoder: tuple[torch.Tensor, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Return the loss terms by name from what the passes of student and autoencoder gave."""
    (as_autoencoder, hard, penalty), (reconstructed, autoencoder_loss) = student, autoencoder
    losses = {
        "hard": hard,
        "autoencoder": autoencoder_loss,
        "student_autoencoder": F.mse_loss(as_autoencoder, reconstructed),
    }
    return losses if penalty is None else losses | {"penalty": penalty}


def score_maps(maps: torch.Tensor, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scores (N,) and the maps of `size`, (N, height, width), of maps (N, 1, h, w).

    A map is resized bilinearly; the score is its maximum.
    """
    resized = F.interpolate(maps, size, mode="bilinear", align_corners=False)[:, 0]
    return resized.amax((1, 2)), resized


def whole(raw: torch.Tensor) -> torch.Tensor:
    """Give distances (N, 1, h, w) the frame that they lack: (N, 1, h + 8, w + 8)."""
    return F.pad(raw, (MAP_PADDING,) * 4)


def calibrate_map(raw: torch.Tensor, quantiles: torch.Tensor) -> torch.Tensor:
    """Shift and scale a map so that its two calibrated quantiles become 0 and 0.1."""
    low, high = quantiles
    spread = torch.maximum(high - low, LEAST_SPREAD * high).clamp(min=LEAST_SPREAD_AT_ALL)
    return LOW_VALUE + (HIGH_VALUE - LOW_VALUE) * (raw - low) / spread


def build_detector(
    model: str,
    model_size: str,
    image_size: Size,
    teacher: nn.Module | None = None,
    recipe: Recipe = PUBLISHED,
) -> Detector:
    """Build an untrained detector around `teacher` (or an empty one, to load a state_dict into).

    Raises ValueError when `image_size` (height, width) does not suit `model`.
    """
    check_size(image_size, model)
    build = PDNS[model_size]
    autoencoder = AUTOENCODERS[model](image_size, recipe.dropout)
    student = build(2 * TEACHER_CHANNELS)
    return Detector(build() if teacher is None else teacher, student, autoencoder, recipe)


def empty_detector(model: str, model_size: str, image_size: Size) -> Detector:
    """Build a detector without memory for its tensors: to compare with, or to be given some."""
    with torch.device("meta"):
        return build_detector(model, model_size, image_size)

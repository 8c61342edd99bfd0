"""The detector: networks, statistics and their calibration, all in one state_dict."""

from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional as F

from models.experts import COMBINED, EXPERTS, NETWORKS, STATISTICS, chosen
from models.fusion import (
    CALMEST,
    UNCALIBRATED,
    Raw,
    calibrate_map,
    combine,
    raw_score,
    rows,
    score_maps,
    standardised,
    weighted,
    whole,
)
from models.gfencoder import Size
from models.losses import hard_feature_loss, join_losses
from models.pdn import TEACHER_CHANNELS, places_of
from models.recipe import PUBLISHED, Recipe
from models.view import View

# The buffer with the threshold on each expert's scores, and on the fused ones.
THRESHOLDS = {name: f"{name}_threshold" for name in EXPERTS} | {COMBINED: "threshold"}
# What detectors of earlier versions lack, and what holds for them: deep images were of 16 bits, and
# neither thresholds of maps are known nor the scores that thresholds come from, nor a mean image.
LATER = {"bits": torch.tensor(16, dtype=torch.uint8), "good_scores": torch.empty(0, 0)}
LATER |= {f"view.{name}": pixels for name, pixels in View().named_buffers()}
UNKNOWN = ("map_threshold", *(THRESHOLDS[name] for name in NETWORKS))
LATER |= {name: torch.tensor(float("nan")) for name in UNKNOWN}
SEEN_BY = ("view", "teacher_mean", "teacher_std", "bits")  # what images are seen by


class Detector(nn.Module):
    """Finds where its experts are surprised: two networks, and two statistics of the teacher's.

    Student and autoencoder are there if one of them is among the `experts`. Its buffers are the
    teacher's channel mean and std, two quantiles of each expert's map, held-out good images' scores
    and the thresholds by them, the bits that images deeper than 8 bits are scaled from, and the
    region that its `view` leaves out; with statistics also theirs, and what brings the experts'
    scores to one scale. So `state_dict` is the whole trained thing. Before calibration they change
    nothing. `recipe` is what training and calibration go by; scoring needs none.
    Source: EfficientAD (Batzner et al., WACV 2024); GLAE for its autoencoder.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module | None,
        autoencoder: nn.Module | None,
        recipe: Recipe = PUBLISHED,
        statistics: dict[str, nn.Module] | None = None,
        experts: tuple[str, ...] = NETWORKS,
    ):
        super().__init__()
        self.teacher, self.student, self.autoencoder = teacher, student, autoencoder
        self.recipe, self.experts = recipe, experts
        self.hard_quantile = recipe.hard_fraction  # now: a compiler cannot trace how it is made
        self.teacher.requires_grad_(False)
        shape = (1, TEACHER_CHANNELS, 1, 1)
        self.register_buffer("teacher_mean", torch.zeros(shape))
        self.register_buffer("teacher_std", torch.ones(shape))
        self.statistics = nn.ModuleDict(statistics or {})
        for name in (*(NETWORKS if self.networks() else ()), *self.statistics):
            self.register_buffer(f"{name}_quantiles", torch.tensor(UNCALIBRATED))
            self.register_buffer(THRESHOLDS[name], torch.tensor(float("inf")))
        self.register_buffer(THRESHOLDS[COMBINED], torch.tensor(float("inf")))
        if self.statistics:
            self.register_buffer("scales", torch.tensor([[0.0, 1.0]] * len(EXPERTS)))
            self.register_buffer("errors", torch.ones(len(EXPERTS), 2))  # of scores, of maps
        self.register_buffer("map_threshold", torch.tensor(float("inf")))
        self.register_buffer("good_scores", torch.empty(len(self.rated), 0))  # each row rising
        self.register_buffer("bits", LATER["bits"].clone())
        self.view = View()
        self.folded = False  # the teacher's last layer normalises; see `for_scoring`

    def train(self, mode: bool = True) -> "Detector":
        super().train(mode)
        self.teacher.train(False)
        return self

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that steps change: not those of a student in closed form."""
        trained = self.networks()[1 if self.recipe.ridge else 0 :]
        return [parameter for network in trained for parameter in network.parameters()]

    def networks(self) -> list[nn.Module]:
        """Return what is trained: the student and the autoencoder, or nothing."""
        return [] if self.student is None else [self.student, self.autoencoder]

    @property
    def rated(self) -> tuple[str, ...]:
        """What has a threshold, in the order of the rows of `good_scores`."""
        return (COMBINED, *self.experts)

    def of_statistics(self) -> list[str]:
        """Return the names of all state that a detector without statistics lacks."""
        names = ("statistics.", *(f"{name}_" for name in STATISTICS), "scales", "errors")
        return [name for name in self.state_dict() if name.startswith(names)]

    def hidden(self, raw: Raw) -> Raw:
        """Return raw maps, 0 at places that do not count; but the composition's is of the whole."""
        return {n: m if n == "composition" else self.view.hide(m) for n, m in raw.items()}

    def imputed(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, C, h, w) for statistics: good images' mean ones at ignored places."""
        if not self.view.ignored.numel() or "position" not in self.statistics:
            return features
        places = places_of(self.view.ignored, features.shape[-2:])
        # the mean image's own are others: a composition was 3 to 12 spreads stranger by them
        return self.statistics["position"].impute(features, places)

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
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | None:
        """Return what the student expects of the autoencoder, its hard loss and its penalty.

        Arguments as in `losses`; (N, C, h, w) float32 and two scalars, the penalty None without
        natural images: one pass of the student for all. None for a student in closed form.
        """
        if self.recipe.ridge:
            return None
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
        """Return the autoencoder's features, (N, C, h, w) float32, and its loss."""
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
        for network in (copy.teacher, *copy.networks()):
            network.to(dtype)
        for statistic in copy.statistics.values():
            statistic.prepare()
        return copy

    def without_networks(self) -> "Detector":
        """Return a detector of this one's statistics alone, to be calibrated; it shares them."""
        experts = chosen(STATISTICS, self.experts)
        alone = Detector(self.teacher, None, None, self.recipe, dict(self.statistics), experts)
        for name in SEEN_BY:
            setattr(alone, name, getattr(self, name))
        return alone.to(self.teacher_mean.device).eval()

    @torch.no_grad()
    def distances(self, image: torch.Tensor) -> Raw:
        """Return each expert's map before calibration, of normalised images (N, 3, H, W), `filled`.

        (N, 1, h, w) float32: mean squared distances over the channels of the networks, squared
        Mahalanobis distances of places, and what places add to that of the image.
        """
        image = image.to(self.teacher[0].weight.dtype)
        raw, features = {}, self.describe(image)
        if self.student is not None:
            as_teacher, as_autoencoder = self.student(image).float().split(TEACHER_CHANNELS, dim=1)
            raw["student"] = (features - as_teacher).square().mean(1, keepdim=True)
            reconstructed = self.autoencoder(image).float()
            off = (reconstructed - as_autoencoder).square()
            raw["autoencoder"] = off.mean(1, keepdim=True)
        imputed = self.imputed(features)
        raw |= {name: statistic(imputed) for name, statistic in self.statistics.items()}
        return self.hidden({name: raw[name] for name in self.experts})

    def calibrated(self, raw: Raw) -> dict[str, torch.Tensor]:
        """Return the anomaly maps that `distances` become by the calibrated quantiles.

        The combined one and each expert's, (N, 1, h + 8, w + 8) float32, where h x w is the PDN's.
        The frame that the unpadded PDN leaves out has a distance of 0, less than any good pixel but
        for the composition's, whose map may be negative. The published code pads the calibrated
        map, where 0 is more than nine in ten of them.
        """
        maps = {}
        for name in self.experts:
            shown = whole(self.view.hide(raw[name]))  # the composition's, too
            maps[name] = calibrate_map(shown, getattr(self, f"{name}_quantiles"))
        return {COMBINED: combine(maps, self.errors if self.statistics else None)} | maps

    def scores(self, raw: Raw) -> dict[str, torch.Tensor]:
        """Return the combined score of images and each expert's, (N,), 0 for a usual good image.

        Nothing without statistics: then a score is its map's maximum, as published.
        """
        if not self.statistics:
            return {}
        own = {n: standardised(raw_score(n, raw[n]), rows(self.scales, n)) for n in self.experts}
        if "composition" in own and self.view.overlooked.numel():  # of a whole that it never saw
            own["composition"] = torch.zeros_like(own["composition"])
        alarms = {name: score.clamp(min=CALMEST) for name, score in own.items()}
        return {COMBINED: weighted(alarms, self.errors[:, 0])} | own

    def maps(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the calibrated anomaly maps of normalised images (N, 3, H, W)."""
        return self.calibrated(self.distances(image))

    def score(self, image: torch.Tensor, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image scores (N,) and anomaly maps (N, height, width), both float32.

        `image` is normalised, (N, 3, H, W); `size` the (height, width) that the map is wanted in,
        as a rule that of the image's file.
        """
        raw = self.distances(image)
        maxima, maps = score_maps(self.calibrated(raw)[COMBINED], size)
        return self.scores(raw).get(COMBINED, maxima), maps

"""A student in closed form: ridge regression of its last layer, in place of its share of steps."""

import torch
from torch.nn import functional as F

from data.draws import Draw, generator
from data.images import normalise
from models.detector import Detector
from scoring.good_images import GoodImages
from utils.devices import Compute, in_float64

LEAST_VARIANCE = 1e-12  # of good images without contrast
ROWS = 4096  # samples at once in float64: of all it would be gigabytes
PLACES = 2**15  # of all images together: eight for each input of the small student's last layer


class RidgeRegression:
    """Linear regression with an intercept on any number of samples, from their sums.

    `add` takes samples of `inputs` (n, d) and `outputs` (n, k); `solve` minimises their squared
    error plus shrinkage * n * v * |weight|², v the mean variance of an input. The intercept is not
    shrunk. scikit-learn's `Ridge`, with alpha that product, is the same, of samples in memory.
    """

    def __init__(self):
        self.products, self.moments = 0.0, 0.0

    def add(self, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        """Take in samples. In float64: many inputs that vary together make float32 too coarse."""
        for some, expected in zip(inputs.split(ROWS), outputs.split(ROWS), strict=True):
            padded = F.pad(in_float64(some), (0, 1), value=1.0)
            self.products = self.products + padded.T @ padded
            self.moments = self.moments + padded.T @ in_float64(expected)

    def solve(self, shrinkage: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight (k, d) and intercept (k,), float64."""
        count = self.products[-1, -1]  # the last input is always 1
        mean, expected = self.products[-1, :-1] / count, self.moments[-1] / count
        centred = self.products[:-1, :-1] - count * mean.outer(mean)
        variance = (centred.diagonal().mean() / count).clamp(min=LEAST_VARIANCE)
        centred.diagonal().add_(shrinkage * count * variance)
        factor = torch.linalg.cholesky(centred)
        together = self.moments[:-1] - count * mean.outer(expected)
        weight = torch.cholesky_solve(together, factor).T
        return weight, expected - weight @ mean


@torch.no_grad()
def fit_student(
    detector: Detector,
    images: torch.Tensor,
    features: torch.Tensor | None,
    compute: Compute,
    seed: int,
) -> None:
    """Set the student's last layer to what imitates teacher and trained autoencoder best.

    Its other layers stay as they were drawn: random features of a patch, of which a regression on
    good images alone learns what the teacher says of patches like them. `images` are uint8
    (N, 3, H, W) and `features` the teacher's outputs for them (N, h, w, C), or None. The same seed
    and number of threads give the same weights.
    """
    detector.eval()
    body, last = detector.student[:-1], detector.student[-1]
    each, regression = -(-PLACES // len(images)), RidgeRegression()
    good = GoodImages(detector, compute, [(images, features)])
    for start, described in good.chunks("fitting the student", imputed=False):
        inputs, outputs = [], []
        for index, as_teacher in enumerate(described, start):
            image = normalise(images[index : index + 1].to(compute.device))
            with compute.autocast():
                hidden, as_autoencoder = body(image), detector.autoencoder(image)
            targets = torch.cat([as_teacher, as_autoencoder[0].float()]).flatten(1)  # (2 C, h w)
            order = generator(seed, Draw.PLACES, index).permutation(targets.shape[1])
            places = torch.from_numpy(order[:each]).to(compute.device)
            patches = F.unfold(hidden, last.kernel_size)[0]  # (d, h w), channels outermost
            inputs.append(patches[:, places].T)
            outputs.append(targets[:, places].T)
        regression.add(torch.cat(inputs), torch.cat(outputs))
    weight, bias = regression.solve(detector.recipe.ridge)
    last.weight.copy_(weight.view_as(last.weight).float())
    last.bias.copy_(bias.float())

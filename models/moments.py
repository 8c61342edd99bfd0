"""Sums over samples, which can be merged: mean, covariance and its shrinkage follow from them."""

from dataclasses import dataclass

import torch


@dataclass
class Moments:
    """Sums of samples (..., d) about their own mean, at any number of leading places.

    `products` is the sum of y yᵀ, `cubes` of |y|² y, `fourths` of |y|⁴ over y = sample - mean. With
    the higher ones Ledoit and Wolf's shrinkage is exact after a merge, too.
    """

    count: int
    mean: torch.Tensor  # (..., d)
    products: torch.Tensor  # (..., d, d)
    cubes: torch.Tensor  # (..., d)
    fourths: torch.Tensor  # (...)

    @staticmethod
    def of(samples: torch.Tensor) -> "Moments":
        """Return the moments of samples (n, ..., d)."""
        mean = samples.mean(0)
        moments = Moments.none(mean)
        moments.add(samples - mean)
        return moments

    @staticmethod
    def none(mean: torch.Tensor) -> "Moments":
        """Return the moments of no sample yet, about a mean (..., d) that is known before."""
        products = mean.new_zeros((*mean.shape, mean.shape[-1]))
        return Moments(0, mean, products, torch.zeros_like(mean), torch.zeros_like(mean[..., 0]))

    def add(self, centred: torch.Tensor) -> None:
        """Take in samples less the mean, (n, ..., d); in the end they must sum to 0."""
        self.count += len(centred)
        by_place = centred.movedim(0, -2)  # (..., n, d)
        self.products += by_place.mT @ by_place
        squares = by_place.square().sum(-1, keepdim=True)
        self.cubes += (squares * by_place).sum(-2)
        self.fourths += squares.square().sum((-2, -1))

    def about(self, mean: torch.Tensor) -> "Moments":
        """Return the same sums about another mean: y becomes y + the difference of the means."""
        shift, n = self.mean - mean, self.count
        length = shift.square().sum(-1)
        trace = self.products.diagonal(dim1=-2, dim2=-1).sum(-1)
        turned = (self.products @ shift[..., None])[..., 0]
        cubes = self.cubes + 2 * turned + (trace + n * length)[..., None] * shift
        fourths = self.fourths + 4 * ((self.cubes + turned) * shift).sum(-1)
        fourths += 2 * length * trace + n * length.square()
        products = self.products + n * shift[..., :, None] * shift[..., None, :]
        return Moments(n, mean, products, cubes, fourths)

    def merged(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of samples together."""
        count = self.count + other.count
        mean = (self.count * self.mean + other.count * other.mean) / count
        ours, theirs = self.about(mean), other.about(mean)
        return Moments(
            count,
            mean,
            ours.products + theirs.products,
            ours.cubes + theirs.cubes,
            ours.fourths + theirs.fourths,
        )

    def noise(self) -> torch.Tensor:
        """Return how far the covariance is off, (...): its expected squared Frobenius distance.

        Source: Ledoit and Wolf, *A well-conditioned estimator for large-dimensional covariance
        matrices*, 2004, lemma 3.4.
        """
        count = max(self.count, 1)
        squared = squared_norm(self.products) / count**2
        return ((self.fourths / count - squared) / count).clamp(min=0)

    def share(self, noise: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        """Return the part that a covariance is shrunk by, 0 to 1.

        All of it by two samples, whose noise cannot be told; nothing where nothing differs.
        """
        if self.count < 3:
            return torch.ones_like(noise)
        return torch.where(noise > 0, (noise / spread.clamp(min=1e-30)).clamp(max=1), 0)

    def shrunk(self) -> torch.Tensor:
        """Return the covariance (..., d, d) shrunk towards a multiple of the identity.

        Source: Ledoit and Wolf, 2004; of three samples or more scikit-learn's `LedoitWolf` is the
        same.
        """
        covariance = self.products / max(self.count, 1)
        d = covariance.shape[-1]
        scale = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        identity = scale * torch.eye(d, dtype=covariance.dtype, device=covariance.device)
        spread = squared_norm(covariance - identity)
        part = self.share(self.noise(), spread)[..., None, None]
        return (1 - part) * covariance + part * identity

    def shrunk_to_pooled(self) -> torch.Tensor:
        """Return each place's covariance (places, d, d) shrunk towards the mean over all places.

        All are shrunk by the same part, Ledoit and Wolf's for the places together: almost nothing
        where places differ and there are many samples, almost all where they are alike. A place
        without any variance, as one that is ignored, has no part in this.
        """
        covariance = self.products / max(self.count, 1)
        varying = self.fourths > 0
        pooled = covariance.sum(0) / max(int(varying.sum()), 1)
        spread = (squared_norm(covariance - pooled) * varying).sum()
        part = self.share(self.noise().sum(), spread)
        unbiased = self.count / max(self.count - 1, 1)
        return covariance.lerp_(pooled, part).mul_(unbiased)  # in place: it is 50 MB


def squared_norm(matrices: torch.Tensor) -> torch.Tensor:
    """Return the squared Frobenius norms (...) of matrices (..., d, d), without a copy of them."""
    return torch.linalg.vector_norm(matrices, dim=(-2, -1)).square()


def packed(symmetric: torch.Tensor) -> torch.Tensor:
    """Return the upper triangles of symmetric matrices: (..., d, d) -> (..., d (d + 1) / 2)."""
    rows, columns = torch.triu_indices(symmetric.shape[-1], symmetric.shape[-1])
    return symmetric[..., rows, columns]


def unpacked(triangles: torch.Tensor, d: int) -> torch.Tensor:
    """Return the symmetric matrices (..., d, d) of `packed`."""
    rows, columns = torch.triu_indices(d, d)
    source = torch.empty(d, d, dtype=torch.int64)  # where in a triangle each element is
    source[rows, columns] = source[columns, rows] = torch.arange(len(rows))
    matrices = triangles.index_select(-1, source.flatten().to(triangles.device))
    return matrices.unflatten(-1, (d, d))

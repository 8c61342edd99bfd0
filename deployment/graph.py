"""The graph that an exported file holds: from the bytes of images to scores, verdicts and maps."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from data.images import Size
from data.samples import InputError
from deployment.exported import said_by
from models.detector import Detector
from models.experts import COMBINED, score_maps
from scoring.scorer import look
from utils.devices import out_of_memory

EXAMPLE = (2, 67, 71)  # images, height, width to trace with: none is special, all may differ
BASE = 2**11  # of PIL's weights of 22 bits are two digits, with which float32 (and TF32) is exact
Digits = tuple[torch.Tensor, torch.Tensor]  # high and low, (pixels wanted, pixels)


class ScoringGraph(nn.Module):
    """Scores images as `Scorer` does, beginning with their bytes: nothing is left to the caller.

    Images of any size, or of a `fixed_size` alone, are resized to `size` (height, width), as PIL
    does; not if `resizes` is false, then they have it. It is traced, so no size may decide what is
    computed but one that is fixed.
    """

    def __init__(
        self,
        detector: Detector,
        size: Size,
        resizes: bool = True,
        fixed_size: Size | None = None,
    ):
        super().__init__()
        self.detector = detector.for_scoring()
        self.size, self.resizes = size, resizes and fixed_size != size
        self.fixed_size = fixed_size
        self.takes = fixed_size if resizes else size  # the only size, or None
        self.digits = digits(fixed_size, size) if fixed_size and self.resizes else None

    @property
    def free(self) -> dict[int, str]:
        """Axes of images that have any length, and their names."""
        return dict(enumerate("N" if self.takes else "NHW"))

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return `description.OUTPUTS` of images, uint8 (N, H, W, 3), RGB."""
        detector, size = self.detector, tuple(image.shape[1:3])
        image = image.permute(0, 3, 1, 2).float()
        if self.resizes:
            image = resized(image, self.digits or digits(size, self.size))
        found = look(detector, image)
        maxima, maps = score_maps(found.maps[COMBINED], size)
        score = found.scores.get(COMBINED, maxima)
        good = detector.good_scores[detector.rated.index(COMBINED)]
        as_high = (good >= score[:, None]).sum(1)
        outputs = {
            "score": score,
            "p_value": (1 + as_high) / (len(good) + 1),
            "anomalous": ~(score <= detector.threshold),  # nor is what is no number good
            "anomaly_map": maps,
        }
        if found.scores:
            outputs["experts"] = torch.stack([found.scores[n] for n in detector.experts], 1)
        return outputs


def traced(graph: ScoringGraph) -> torch.export.ExportedProgram:
    """Return a graph's operations, for every number of images, and every size if none is fixed."""
    number, *sides = EXAMPLE
    example = torch.zeros(number, *(graph.takes or sides), 3, dtype=torch.uint8)
    free = {axis: torch.export.Dim(name, min=1) for axis, name in graph.free.items()}
    graph(example)  # makes constants, which a trace must not
    with torch.no_grad():
        return torch.export.export(graph, (example,), dynamic_shapes=(free,))


@contextmanager
def expressing(name: str) -> Iterator[None]:
    """Raise InputError, in one line, for what a format cannot express or a compiler compile."""
    try:
        yield
    except Exception as error:  # torch and its exporters fail in ways of their own
        if isinstance(error, OSError | InputError) or out_of_memory(error):
            raise
        raise InputError(
            f"--format {name} cannot express this detector ({said_by(error)}): take another format"
        ) from error


def resized(image: torch.Tensor, by: list[Digits]) -> torch.Tensor:
    """Resize images (N, 3, H, W) in [0, 255] `by` their `digits`: grey levels, float32.

    Bit for bit PIL's antialiased bilinear resize, as matrix products, which every runtime has: rows
    first, both ways rounded. Source: PIL, Resample.c.
    """
    (top, low_top), (left, low_left) = by
    rows = levels(image @ left.mT, image @ low_left.mT)
    return levels(top @ rows, low_top @ rows)


def digits(size: Size, wanted: Size) -> list[Digits]:
    """Return the `weights` that resize images of `size` (height, width) to the `wanted` one."""
    return [weights(*sides) for sides in zip(size, wanted, strict=True)]


def weights(side: int, wanted: int) -> Digits:
    """Return what each of `side` pixels adds to each of `wanted`: two digits of base BASE.

    Whole numbers, float32 (wanted, side). A triangle, as wide as there are pixels for each that is
    wanted; distances are in 1 / (2 `wanted`) pixels, so that they are whole numbers, too.
    """
    places, centres = (2 * torch.arange(n, dtype=torch.int32) + 1 for n in (side, wanted))
    reach = 2 * torch.sym_max(side, wanted)
    triangle = (reach - (places * wanted - centres[:, None] * side).abs()).clamp(min=0)
    whole = triangle.sum(1, keepdim=True, dtype=torch.int32)
    high = BASE * triangle // whole
    low = ((BASE * triangle - high * whole) * (BASE / whole) + 0.5).floor()
    return high.float(), low


def levels(high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """Return the grey levels of sums of both digits: halves are rounded up, as PIL does."""
    return ((high + (low / BASE).floor()) / BASE + 0.5).floor()

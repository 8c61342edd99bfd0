"""The graph that an exported file holds: from the bytes of images to scores, verdicts and maps."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn

from data.images import Size
from data.samples import InputError
from deployment.compact import compact
from deployment.exported import said_by
from deployment.resizing import enlarged, resized, taps
from models.detector import Detector
from models.experts import COMBINED
from scoring.scorer import look
from utils.failures import out_of_memory

EXAMPLE = (2, 67, 71)  # images, height, width to trace with: none is special, all may differ


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
        self.resize_by(2)

    def resize_by(self, digits: int) -> None:
        """Choose the `digits` by which images are resized; see `taps`."""
        self.digits, known = digits, self.fixed_size and self.resizes
        self.taps = taps(self.fixed_size, self.size, digits) if known else None

    def lowered(self, precision: str) -> "ScoringGraph":
        """Return a graph for networks of a `precision` below fp32, which is not theirs here yet.

        Its statistics are `compact`, and its resizing takes half the time.
        """
        lower = deepcopy(self)
        lower.resize_by(1)
        compact(lower.detector, self.size, precision)
        return lower

    @property
    def free(self) -> dict[int, str]:
        """Axes of images that have any length, and their names."""
        return dict(enumerate("N" if self.takes else "NHW"))

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return `description.OUTPUTS` of images, uint8 (N, H, W, 3), RGB."""
        detector, size = self.detector, tuple(image.shape[1:3])
        if self.resizes:
            seen = resized(image, self.taps or taps(size, self.size, self.digits))
        else:
            seen = image.permute(0, 3, 1, 2).float()
        found = look(detector, seen)
        maps = enlarged(found.maps[COMBINED][:, 0], size)
        score = found.scores.get(COMBINED, maps.amax((1, 2)))
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

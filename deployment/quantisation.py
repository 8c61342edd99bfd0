"""Networks of an openvino.Model in INT8, by NNCF, and what corrects a lower precision's bias.

All of it goes by good images alone.
"""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data.images import load_image
from data.samples import InputError, evenly
from deployment.compiled import compile_model
from deployment.description import INPUT
from deployment.exported import REQUIREMENTS, required
from deployment.graph import ScoringGraph
from deployment.runtimes import AS_WRITTEN, is_convolution

if TYPE_CHECKING:
    import openvino

IMAGES = 32  # to fit on, and to judge by, evenly among the run's: more change nothing
COLOURS = 3
CENTRE = "detector.statistics.composition.mean"  # the constant in the model
# Of good images' spread, and of a map, of which one of 200 places of good images is above 0.1.
SCORE_GOAL, MAP_GOAL = 0.25, 0.02


class Good(NamedTuple):
    """The good images of a run, by which a quantisation is chosen and judged: never test images.

    Files; or what a graph takes of them, uint8 (1, h, w, 3) each: see `seen`.
    """

    train: list
    validation: list


def check_nncf() -> None:
    """Raise InputError when what quantises is not installed."""
    required("nncf", REQUIREMENTS)


def quantised(model: "openvino.Model", images: list[np.ndarray]) -> "openvino.Model":
    """Return a model with its networks' convolutions in INT8, but for the first of each.

    Those read the image, and gain nothing: they write more than they compute. All else stays.
    """
    import nncf

    nncf.set_log_level("ERROR")  # it tells every layer that it leaves
    nodes = model.get_ordered_ops()
    convolutions = [node for node in nodes if node.get_type_name() == "Convolution"]
    kept = [node for node in convolutions if not is_convolution(node) or reads_image(node)]
    others = {n.get_type_name() for n in nodes} - {"Convolution", "Constant", "Parameter", "Result"}
    scope = nncf.IgnoredScope([node.get_friendly_name() for node in kept], types=sorted(others))
    shown = nncf.Dataset(images, lambda image: {INPUT: image})
    with redirect_stdout(sys.stderr):  # where progress belongs
        return nncf.quantize(model, shown, subset_size=len(images), ignored_scope=scope)


def correct_bias(
    model: "openvino.Model", lower: "openvino.Model", images: Good, spread: float
) -> None:
    """Let `lower`, which is `model` in less precision, score good images as that does.

    The centre of its composition becomes that of its teacher, and each expert's score is lowered by
    what it rose: features are noisier, by nearly the same in every image. Raises InputError where
    validation images show that scores or maps are others by more than the goals.
    """
    centre_composition(model, lower, images.train)
    level_experts(model, lower, images.train)
    check(model, lower, images.validation, spread)


def seen(good: Good, graph: ScoringGraph) -> Good:
    """Return IMAGES of each, in the size that the graph takes, or else its detector."""
    size, bits = graph.takes or graph.size, int(graph.detector.bits)

    def taken(path: Path) -> np.ndarray:
        return load_image(path, size, bits)[0].permute(1, 2, 0)[None].contiguous().numpy()

    chosen = (evenly(paths, IMAGES) for paths in good)
    return Good(*([taken(path) for path in paths] for paths in chosen))


def reads_image(node: "openvino.Node") -> bool:
    """Tell whether a convolution reads an image: only that has few channels."""
    return node.input(1).get_partial_shape()[1].get_length() == COLOURS


def centre_composition(
    model: "openvino.Model", lower: "openvino.Model", images: list[np.ndarray]
) -> None:
    """Move the centre of a lower model's composition by what its images' summaries moved."""
    from openvino import opset13

    centres = [node for node in lower.get_ops() if node.get_friendly_name() == CENTRE]
    for centre in centres:  # one, or none
        moved = off_centre(lower, images) - off_centre(model, images)
        own = opset13.constant((centre.data + moved).astype(np.float32))
        for reader in centre.output(0).get_target_inputs():
            reader.replace_source_output(own.output(0))


def off_centre(model: "openvino.Model", images: list[np.ndarray]) -> np.ndarray:
    """Return how far images' summaries are from the composition's centre in the mean, (2 C,)."""
    import openvino

    copy = model.clone()  # as a new end would stay
    centre = next(node for node in copy.get_ops() if node.get_friendly_name() == CENTRE)
    (off,) = centre.output(0).get_target_inputs()
    copy = openvino.Model([off.get_node().output(0)], copy.get_parameters(), "off")
    return outputs(copy, images)[0].mean(0)


def level_experts(
    model: "openvino.Model", lower: "openvino.Model", images: list[np.ndarray]
) -> None:
    """Take from a lower model's experts what their scores of images rose by in the mean."""
    from openvino import opset13

    names = [output.any_name for output in lower.outputs]
    if "experts" not in names:
        return
    which = names.index("experts")
    rises = np.mean(outputs(lower, images)[which] - outputs(model, images)[which], 0)
    stack = lower.outputs[which].get_node().input_value(0)  # (N, 1) of each expert, joined
    joined = stack.get_node().get_type_name() == "Concat"
    columns = stack.get_node().input_values() if joined else [stack]
    for column, rise in zip(columns, rises, strict=True):
        score = column.get_node().input_value(0)  # (N,)
        readers = score.get_target_inputs()
        levelled = opset13.subtract(score, opset13.constant(np.float32(rise)))
        for reader in readers:
            reader.replace_source_output(levelled.output(0))


def check(
    model: "openvino.Model", lower: "openvino.Model", images: list[np.ndarray], spread: float
) -> None:
    """Raise InputError where the scores or maps of `lower` are not those of its model.

    Differences are root mean squares; of scores in units of good images' `spread`.
    """
    names = [output.any_name for output in lower.outputs]
    found, wanted = (dict(zip(names, outputs(m, images), strict=True)) for m in (lower, model))
    off = {n: np.sqrt(np.square(found[n] - wanted[n]).mean()) for n in ("score", "anomaly_map")}
    score, anomaly_map = off["score"] / spread, off["anomaly_map"]
    if not (score <= SCORE_GOAL and anomaly_map <= MAP_GOAL):
        raise InputError(
            f"--precision: validation images' scores differ by {score:.2g} of good images' spread, "
            f"maps by {anomaly_map:.2g} (goals {SCORE_GOAL:g}, {MAP_GOAL:g}): take a higher one"
        )


def outputs(model: "openvino.Model", images: list[np.ndarray]) -> list[np.ndarray]:
    """Return a model's outputs of images, one after the other: (N, ...) each."""
    compiled = compile_model(model, "CPU", AS_WRITTEN)
    found = [[v.copy() for v in compiled({INPUT: image}).to_tuple()] for image in images]
    return [np.concatenate(of_all) for of_all in zip(*found, strict=True)]

"""Whether the pictures that are scored have changed in the course of them."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from prediction.verdicts import Prediction
from scoring.drift import Drift
from utils.commands import printable, say


def follow(predictions: Iterator[Prediction], drift: Drift) -> Iterator[Prediction]:
    """Yield predictions with the evidence of a change so far; say when there is enough of it."""
    with closing(predictions):
        for number, prediction in enumerate(predictions, 1):
            if number == drift.since:
                first = printable(prediction.path)
            if drift.update(prediction.score):
                say(
                    f"warning: the pictures have changed since about picture {drift.since} "
                    f"({first}): is it the light, the lens, the position or the product? Look at "
                    "pictures from before and after; set it right, or train on what is good now. "
                    f"(Said of pictures that do not change with a chance of {drift.level:.3g} at "
                    "most, however many there are.)"
                )
            yield replace(prediction, drift=drift.evidence)

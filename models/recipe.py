"""The recipe: the numbers by which a detector is trained and calibrated."""

from dataclasses import dataclass
from fractions import Fraction


def exact(number: float) -> Fraction:
    """Return the decimal that a number was written as: 0.95 is 19/20, which no float is."""
    return Fraction(str(number))


@dataclass(frozen=True)
class Recipe:
    """EfficientAD's published numbers, which GLAE shares, unless others are given.

    Source: EfficientAD (Batzner et al., WACV 2024), where a line names no section its section 4;
    the last line is ours.
    """

    learning_rate: float = 1e-4  # of Adam
    weight_decay: float = 1e-5  # of Adam
    decay_at: float = 0.95  # after this part of the steps the learning rate is multiplied
    decay: float = 0.1  # by this
    hard_quantile: float = 0.999  # the hard loss keeps the distances from here on; section 3.2
    ridge: float = 0.0  # shrinkage of a student in closed form; 0: steps train it, as published
    jitter: float = 0.2  # most that brightness, contrast or saturation change; A.3
    penalty_probability: float = 0.3  # that a natural image of the penalty is turned grey; A.3
    dropout: float = 0.2  # of the decoder; table 8
    map_quantiles: tuple[float, float] = (0.9, 0.995)  # which become 0 and 0.1; section 3.4
    false_alarm_rate: float = 0.05  # of good images, that thresholds are to promise

    @property
    def hard_fraction(self) -> tuple[int, int]:
        """The hard quantile as numerator and denominator: 999, 1000."""
        return exact(self.hard_quantile).as_integer_ratio()

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate at `step` of `steps`."""
        decayed = step >= int(exact(self.decay_at) * steps)
        return self.learning_rate * (self.decay if decayed else 1.0)


PUBLISHED = Recipe()

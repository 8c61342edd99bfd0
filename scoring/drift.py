"""Whether the pictures themselves have changed: a conformal test martingale over their scores.

As long as pictures come in an order that could as well be any other, good and bad mixed, each
score's p-value among those before it is uniform and owes nothing to the others, and no way of
betting on them makes money: Ville, P(the capital ever reaches 1 / level times its start) <= level.
Sources: Vovk, *Testing Randomness Online*, Statistical Science 2021; Vovk et al., *Retrain or Not
Retrain: Conformal Test Martingales for Change-Point Detection*, COPA 2021.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from random import Random

LEVEL = 0.01
MOST = 10**6  # scores that are remembered, 8 bytes each
MARGIN = math.log10(3)  # a change begins where the capital leaves three times its lowest behind
BETS = (-1, -0.5, 0, 0.5, 1)  # on p: below 0 on small ones, which are high scores


class Drift:
    """A martingale that grows when scores come that are unlike those before, higher or lower.

    `evidence` is its logarithm to base 10, and `since` the number of the picture, from 1, at which
    it began to grow. `level` is how likely it is, at most, that a change is ever told of pictures
    that do not change, each of another piece: pictures of one are alike, which is an order.
    """

    def __init__(self, level: float = LEVEL, seed: int = 0):
        self.level, self.rng = level, Random(seed)
        self.count = 0  # of all pictures
        self._begin()

    def _begin(self) -> None:
        self.evidence, self.lowest, self.since, self.begun = 0.0, 0.0, self.count + 1, self.count
        self.shares = [1 / len(BETS)] * len(BETS)  # of the capital, in each bet
        self.rising = array("d")

    def update(self, score: float) -> bool:
        """Take in the next score; return whether pictures have changed.

        What comes behind a change is compared with itself alone: another one is told, too.
        """
        if self.changed:
            self._begin()
        self.count += 1
        self._bet(self._p_value(score))
        return self.changed

    @property
    def changed(self) -> bool:
        return self.evidence >= -math.log10(self.level)

    def _p_value(self, score: float) -> float:
        """Return the part of scores that are higher, equal ones and its own place drawn at random.

        After MOST the scores are forgotten: orders within two blocks owe nothing to one another
        either, so p-values stay uniform and independent.
        """
        score = math.inf if math.isnan(score) else score  # which is not called good either
        if len(self.rising) == MOST:
            self.rising = array("d")
        first, end = bisect_left(self.rising, score), bisect_right(self.rising, score)
        above, equal = len(self.rising) - end, end - first + 1
        self.rising.insert(end, score)
        return (above + self.rng.random() * equal) / len(self.rising)

    def _bet(self, p: float) -> None:
        """Let the capital in each bet e grow by 1 + e (p - 1/2): Vovk's Simple Jumper.

        His moves 1 % of the capital between the bets each time, which costs all of it where nothing
        happens for thousands of pictures. A part of 1 / n costs little: Adamskiy et al., *A Closer
        Look at Adaptive Regret*, 2012. No bet grows by more than half: a few defects in a row are
        no change.
        """
        moved = 1 / (self.count - self.begun + 1)
        kept = [(1 - moved) * share + moved / len(BETS) for share in self.shares]
        won = [share * (1 + bet * (p - 0.5)) for share, bet in zip(kept, BETS, strict=True)]
        grown = sum(won)
        self.shares = [share / grown for share in won]
        self.evidence += math.log10(grown)
        self.lowest = min(self.lowest, self.evidence)
        if self.evidence <= self.lowest + MARGIN:
            self.since = self.count + 1

"""Online models of velocity, on River's blocks: one per busy identity, one per workload class.

River's blocks are guarded as they need it: inputs are finite and on a log scale, variances have a floor. Each model is
rebuilt from scalars of our own: River's pickles do not survive its versions.
"""

import math
from collections.abc import Iterable
from typing import Any

from river import sketch, stats

_LEAST_VARIANCE = 0.05
"""Of log1p(sum): a relative spread of about a fifth is never called surprising."""
_FADING = 0.02
_BINS = 64


class VelocityModel:
    """What one identity's minute usually holds: exponentially weighted mean and variance of log1p(sum).

    The variance follows Finch, "Incremental calculation of weighted mean and variance" (2009), equation 143. `score`
    is how many standard deviations `value` lies above the mean; 0 until `warm` minutes were learnt.
    """

    __slots__ = ("_mean", "_variance", "count")

    def __init__(self, count: int = 0, mean: float = 0.0, variance: float = 0.0) -> None:
        self._mean: Any = stats.EWMean(_FADING)
        self._variance: Any = stats.EWMean(_FADING)
        self.count = count
        if count:
            # The first value that such a mean takes in is its state.
            self._mean.update(mean)
            self._variance.update(variance)

    @property
    def scalars(self) -> tuple[int, float, float]:
        """Minutes learnt, mean and variance: what the model can be made of again."""
        return (self.count, self._mean.get(), self._variance.get()) if self.count else (0, 0.0, 0.0)

    def score(self, value: float, warm: int) -> float:
        """Standard deviations above the mean of what was learnt."""
        if self.count < warm:
            return 0.0
        variance = max(float(self._variance.get()), _LEAST_VARIANCE)
        return (math.log1p(value) - float(self._mean.get())) / math.sqrt(variance)

    @property
    def usual(self) -> float:
        """The typical sum of a minute with traffic (the geometric mean)."""
        return math.expm1(float(self._mean.get())) if self.count else 0.0

    def learn(self, value: float) -> None:
        """Takes a closed minute's sum in; a value that is negative or not finite is left out."""
        if not (0.0 <= value < math.inf):
            return
        x = math.log1p(value)
        apart = x - self._mean.get() if self.count else 0.0
        self._mean.update(x)
        self._variance.update((1.0 - _FADING) * apart * apart)
        self.count += 1


class CohortModel:
    """What identities of a workload class reach in their busy minutes: a streaming histogram's high quantile.

    It speaks for an identity that has no history of its own yet.
    """

    __slots__ = ("_histogram", "_quantile")

    def __init__(self, quantile: float, bins: Iterable[tuple[float, float, float]] = ()) -> None:
        self._quantile = quantile
        self._histogram: Any = sketch.Histogram(_BINS)
        for left, right, count in bins:
            self._histogram.append(sketch.histogram.Bin(left, right, count))
            self._histogram.n += count

    @property
    def bins(self) -> list[tuple[float, float, float]]:
        """(left, right, count) of log1p(sum): what the model can be made of again."""
        return [(one.left, one.right, one.count) for one in self._histogram.data]

    @property
    def count(self) -> int:
        """Minutes learnt."""
        return int(self._histogram.n)

    def reach(self, warm: int) -> float:
        """The quantile of the sums learnt; 0 until `warm` were."""
        if self.count < warm or not self.count:
            return 0.0
        below = 0.0
        for left, right, count in self.bins:
            if below + count >= self._quantile * self.count:
                share = (self._quantile * self.count - below) / count
                return math.expm1(left + share * (right - left))
            below += count
        return math.expm1(self.bins[-1][1])

    def learn(self, value: float) -> None:
        """Takes a closed minute's sum in; a value that is negative or not finite is left out."""
        if 0.0 <= value < math.inf:
            self._histogram.update(math.log1p(value))

"""Online models of velocity, on River's blocks: one per busy identity, one per workload class.

River's blocks are guarded as they need it: inputs are finite and on a log scale, variances have a floor.
"""

import math
from typing import Any

from river import stats

_LEAST_VARIANCE = 0.05
"""Of log1p(sum): a relative spread of about a fifth is never called surprising."""


class VelocityModel:
    """What one identity's minute usually holds: exponentially weighted mean and variance of log1p(sum).

    `score` is how many standard deviations `value` lies above the mean; 0 until `warm` minutes were learnt.
    """

    __slots__ = ("_mean", "_variance", "count")

    def __init__(self, fading: float = 0.02) -> None:
        self._mean: Any = stats.EWMean(fading)
        self._variance: Any = stats.EWVar(fading)
        self.count = 0

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
        self._mean.update(x)
        self._variance.update(x)
        self.count += 1


class CohortModel:
    """What identities of a workload class reach in their busy minutes: the P² estimate of a high quantile.

    It speaks for an identity that has no history of its own yet.
    """

    __slots__ = ("_quantile", "count")

    def __init__(self, quantile: float) -> None:
        self._quantile: Any = stats.Quantile(quantile)
        self.count = 0

    def reach(self, warm: int) -> float:
        """The quantile of the sums learnt; 0 until `warm` were."""
        return math.expm1(float(self._quantile.get())) if self.count >= warm else 0.0

    def learn(self, value: float) -> None:
        """Takes a closed minute's sum in; a value that is negative or not finite is left out."""
        if not (0.0 <= value < math.inf):
            return
        self._quantile.update(math.log1p(value))
        self.count += 1

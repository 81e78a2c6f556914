"""Risk per identity: findings add to their family, each family fades, and families add up."""

from responses.config import FAMILY, Family, Risk
from schemas.finding import Finding
from schemas.times import parse_millis

_MOST = 100.0


class Standing:
    """One identity's risk. A second finding of a family adds little; one of another family adds all of its points."""

    __slots__ = ("_families", "_risk")

    def __init__(self, risk: Risk) -> None:
        self._risk = risk
        self._families: dict[Family, tuple[float, int]] = {}

    def add(self, finding: Finding) -> None:
        """Adds a finding's points to its family."""
        family, moment = FAMILY[finding.kind], parse_millis(finding.time)
        points, held = self._risk.points[finding.severity], self.of(family, moment)
        total = max(points, held) + self._risk.repeat_share * min(points, held)
        self._families[family] = (min(_MOST, total), moment)

    def of(self, family: Family, moment: int) -> float:
        """A family's points at `moment` (ms), faded by its half-life."""
        points, when = self._families.get(family, (0.0, moment))
        minutes = max(0, moment - when) / 60_000
        return float(points * 0.5 ** (minutes / self._risk.half_life_minutes[family]))

    def total(self, moment: int) -> float:
        """0 to 100: the families' sum at `moment` (ms)."""
        return min(_MOST, sum(self.of(family, moment) for family in self._families))

    def families(self, moment: int) -> list[Family]:
        """The families that hold at least half of a medium finding's points at `moment` (ms)."""
        least = self._risk.points["medium"] / 2
        return [family for family in self._families if self.of(family, moment) >= least]

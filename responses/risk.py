"""Risk per identity: findings add to their family, each family fades, and families add up."""

from collections.abc import Iterable
from math import ceil, log2

from responses.config import FAMILY, Family, Risk
from schemas.finding import Finding
from schemas.times import parse_millis

_MOST = 100.0


class Standing:
    """One identity's risk. A second finding of a family adds little; one of another family adds all of its points.

    What has faded to less than a hundredth of what opens an incident is nothing.
    """

    __slots__ = ("_families", "_least", "_risk")

    def __init__(self, risk: Risk, held: Iterable[tuple[Family, float, int]] = ()) -> None:
        self._risk = risk
        self._least = risk.open / 100
        self._families: dict[Family, tuple[float, int]] = {family: (points, when) for family, points, when in held}

    @property
    def held(self) -> list[tuple[Family, float, int]]:
        """Each family's points, and as of when (ms)."""
        return [(family, points, when) for family, (points, when) in self._families.items()]

    def add(self, finding: Finding) -> None:
        """Adds a finding's points to its family."""
        family, moment = FAMILY[finding.kind], parse_millis(finding.time)
        points, held = self._risk.points[finding.severity], self.of(family, moment)
        total = max(points, held) + self._risk.repeat_share * min(points, held)
        # What is nothing leaves no trace, not even in the order of the sum.
        self._families = {name: of for name, of in self._families.items() if self.of(name, moment)}
        self._families[family] = (min(_MOST, total), moment)

    def of(self, family: Family, moment: int) -> float:
        """A family's points at `moment` (ms), faded by its half-life."""
        points, when = self._families.get(family, (0.0, moment))
        minutes = max(0, moment - when) / 60_000
        left = float(points * 0.5 ** (minutes / self._risk.half_life_minutes[family]))
        return left if left >= self._least else 0.0

    def total(self, moment: int) -> float:
        """0 to 100: the families' sum at `moment` (ms). Where that is enough for an incident, each family beyond the
        first adds a bonus: independent evidence counts more than repeated evidence, but faint signs alone are faint."""
        points = sum(self.of(family, moment) for family in self._families)
        if points >= self._risk.open:
            points += self._risk.family_bonus * max(0, len(self.families(moment)) - 1)
        return min(_MOST, points)

    def since(self, moment: int) -> "Standing":
        """What of it was found at `moment` (ms) or later: what is hours apart is not the same event."""
        return Standing(self._risk, [held for held in self.held if held[2] >= moment])

    def faded(self) -> int:
        """When (ms) nothing is left; 0 where there never was anything."""
        half_lives = self._risk.half_life_minutes
        return max(
            (
                when + ceil(half_lives[family] * 60_000 * log2(max(points / self._least, 1.0)))
                for family, points, when in self.held
            ),
            default=0,
        )

    def families(self, moment: int) -> dict[Family, float]:
        """The families that hold at least three quarters of a low finding's points at `moment` (ms), with theirs."""
        least = self._risk.points["low"] * 0.75
        points = ((family, self.of(family, moment)) for family in self._families)
        return {family: held for family, held in points if held >= least}

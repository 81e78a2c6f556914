"""Risk per identity: findings add to their family, each family fades, and families add up."""

from collections.abc import Iterable
from math import ceil, log2

from responses.config import FAMILY, Config, Family
from schemas.finding import Finding
from schemas.times import parse_millis

_MOST = 100.0


class Standing:
    """One identity's risk. A second finding of a family adds little; one of another family adds all of its points.

    What is more than `together_minutes` apart is not the same event: a finding does not make news of what earlier
    events of its family left, unless it only reminds of them. What has faded to less than a hundredth of what opens an
    incident is nothing.
    """

    __slots__ = ("_config", "_families", "_least")

    def __init__(self, config: Config, held: Iterable[tuple[Family, float, int]] = ()) -> None:
        self._config = config
        self._least = config.risk.open / 100
        self._families: dict[Family, list[tuple[float, int]]] = {}
        """Points, and as of when (ms): of a family's last event, and before it what earlier ones left."""
        for family, points, when in held:
            self._families.setdefault(family, []).append((points, when))

    @property
    def held(self) -> list[tuple[Family, float, int]]:
        """Each family's points, and as of when (ms). Where earlier events left some, those come before the last's."""
        return [(family, points, when) for family, events in self._families.items() for points, when in events]

    def add(self, finding: Finding) -> None:
        """Adds a finding's points to its family."""
        family, moment = FAMILY[finding.kind], parse_millis(finding.time)
        points = self._config.risk.points[finding.severity]
        # What is nothing leaves no trace, not even in the order of the sum.
        self._families = {name: events for name, events in self._families.items() if self.of(name, moment)}
        events, earlier = self._families.get(family, []), list[tuple[float, int]]()
        if events and finding.severity != "info":
            when = events[-1][1]
            if moment - when > self._config.response.together_minutes * 60_000:
                earlier, events = [(self._sum(family, events, when), when)], []
            else:
                earlier, events = events[:-1], events[-1:]
        total = self._sum(family, [*events, (points, moment)], moment)
        self._families[family] = [*earlier, (total, moment)]

    def of(self, family: Family, moment: int) -> float:
        """A family's points at `moment` (ms), faded by its half-life."""
        return self._sum(family, self._families.get(family, []), moment)

    def total(self, moment: int) -> float:
        """0 to 100: the families' sum at `moment` (ms). Where that is enough for an incident, each family beyond the
        first adds a bonus: independent evidence counts more than repeated evidence, but faint signs alone are faint."""
        points = sum(self.of(family, moment) for family in self._families)
        if points >= self._config.risk.open:
            points += self._config.risk.family_bonus * max(0, len(self.families(moment)) - 1)
        return min(_MOST, points)

    def since(self, moment: int) -> "Standing":
        """What of it was found at `moment` (ms) or later: what is hours apart is not the same event."""
        return Standing(self._config, [held for held in self.held if held[2] >= moment])

    def faded(self) -> int:
        """When (ms) nothing is left; 0 where there never was anything."""
        half_lives = self._config.risk.half_life_minutes
        return max(
            (
                when + ceil(half_lives[family] * 60_000 * log2(max(points / self._least, 1.0)))
                for family, points, when in self.held
            ),
            default=0,
        )

    def families(self, moment: int) -> dict[Family, float]:
        """The families that hold at least three quarters of a low finding's points at `moment` (ms), with theirs."""
        least = self._config.risk.points["low"] * 0.75
        points = ((family, self.of(family, moment)) for family in self._families)
        return {family: held for family, held in points if held >= least}

    def _sum(self, family: Family, events: list[tuple[float, int]], moment: int) -> float:
        """What events of a family hold together at `moment` (ms): the most, and a share of the others."""
        left = sorted((self._left(family, *event, moment) for event in events), reverse=True)
        return min(_MOST, sum(left[:1]) + self._config.risk.repeat_share * sum(left[1:]))

    def _left(self, family: Family, points: float, when: int, moment: int) -> float:
        minutes = max(0, moment - when) / 60_000
        left = float(points * 0.5 ** (minutes / self._config.risk.half_life_minutes[family]))
        return left if left >= self._least else 0.0

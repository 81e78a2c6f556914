"""What the demo has measured so far. Times are Unix seconds of this machine, which all its parts share."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.finding import Finding
from schemas.incident import Incident
from schemas.times import parse_millis
from streams.demo.story import Attack, Name

State = Literal["quiet", "attacking", "found", "denied", "restored"]
RATE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Denial:
    """What a gateway answered instead of a completion."""

    status: int
    action: str
    reason: str
    incident_id: str
    command_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A gateway's answer to one call: when the call was sent and answered, what it cost (USD), or why it was denied."""

    sent: float
    at: float
    status: int
    tokens: int = 0
    usd: float = 0.0
    denial: Denial | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A command as the audit topic has it. `decided` in ms of event time."""

    command_id: str
    identity: str | None
    action: str
    scope: str
    subject: str
    reason: str
    manual: bool
    decided: int
    finding_ids: tuple[str, ...]


@dataclass(slots=True)
class Suspect:
    """One of the three who are attacked. Rates count all its calls; the rest only the attacker's."""

    attack: Attack
    tenant: str
    usual: int
    """Calls in its busiest minute before."""
    usual_tokens: int
    """Tokens in its busiest minute before."""
    tokens: Counter[int] = field(default_factory=Counter)
    usd: dict[int, float] = field(default_factory=dict)
    began: float | None = None
    spent: float = 0.0
    answered: int = 0
    denied: int = 0
    findings: list[Finding] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    denial: Denial | None = None
    denied_at: float | None = None
    restored_at: float | None = None

    @property
    def state(self) -> State:
        """How far its story has come."""
        if self.restored_at is not None:
            return "restored"
        if self.denied_at is not None:
            return "denied"
        if self.findings:
            return "found"
        return "quiet" if self.began is None else "attacking"

    @property
    def finding(self) -> Finding | None:
        """The finding that its denial hangs on: the last that the command names, or that gave it its reason."""
        order = next((o for o in self.orders if self.denial and o.command_id == self.denial.command_id), None)
        if order is None:
            return None
        named = [f for f in self.findings if f.finding_id in order.finding_ids or f.reason == order.reason]
        return max((f for f in named if parse_millis(f.time) <= order.decided), key=lambda f: f.time, default=None)

    @property
    def seconds_to_finding(self) -> float | None:
        """From the attack's first call to the time that the first finding carries."""
        if self.began is None or not self.findings:
            return None
        return parse_millis(min(finding.time for finding in self.findings)) / 1000 - self.began

    @property
    def seconds_to_denial(self) -> float | None:
        """From the attack's first call to its first denied one."""
        return None if self.began is None or self.denied_at is None else self.denied_at - self.began

    @property
    def seconds_from_finding(self) -> float | None:
        """From the time that the finding carries to the attack's first denied call."""
        if self.finding is None or self.denied_at is None:
            return None
        return self.denied_at - parse_millis(self.finding.time) / 1000

    @property
    def saved(self) -> float:
        """USD: what its denied calls would have cost, at the mean of those that were answered."""
        return self.denied * self.spent / self.answered if self.answered else 0.0

    def tokens_per_minute(self, now: float) -> float:
        """Over the last ten seconds."""
        return sum(self.tokens[int(now) - k] for k in range(RATE_SECONDS)) * 60 / RATE_SECONDS

    def usd_per_minute(self, now: float) -> float:
        """Over the last ten seconds."""
        return sum(self.usd.get(int(now) - k, 0.0) for k in range(RATE_SECONDS)) * 60 / RATE_SECONDS


class Board:
    """Everything that the screen shows and the summary counts. `tell(text, style)` is called for each step."""

    def __init__(self, suspects: list[Suspect], tell: Callable[[str, str], None]) -> None:
        self.suspects: dict[Name, Suspect] = {suspect.attack.name: suspect for suspect in suspects}
        self._named = {suspect.attack.identity: suspect for suspect in suspects}
        self._tell = tell
        self.published = 0
        """Events of the past."""
        self.answered = 0
        """Calls that the gateway answered, each of which is an event."""
        self.bystanders_denied = 0
        self.denied = 0
        self.rate: Counter[int] = Counter()
        self.incidents: dict[str, Incident] = {}
        self.orders: dict[str, Order] = {}
        self.lag: dict[str, int] = {}
        self.propagation: dict[str, float] = {}
        """Milliseconds from a command's publication to the gateway's acknowledgement, by command."""

    @property
    def events(self) -> int:
        """Usage events that were published."""
        return self.published + self.answered

    @property
    def missed(self) -> list[Name]:
        """The attacks that no gateway denied."""
        return [name for name, suspect in self.suspects.items() if suspect.denied_at is None]

    def call(self, identity: str, attack: Name | None, answer: Answer) -> None:
        """A call was answered; `attack` is whose it was, None for an honest one."""
        self.answered += 1
        self.rate[int(answer.at)] += 1
        suspect = self._named.get(identity)
        if answer.denial is not None:
            self.denied += 1
            self.bystanders_denied += suspect is None
        if suspect is None:
            return
        second = int(answer.at)
        if answer.denial is not None and suspect.restored_at is not None:
            suspect.restored_at = None
            self._tell(f"denied again: {identity}, {answer.denial.reason}", "bold red")
        suspect.tokens[second] += answer.tokens
        suspect.usd[second] = suspect.usd.get(second, 0.0) + answer.usd
        if attack is None:
            return
        if suspect.began is None:
            suspect.began = answer.sent
        if answer.denial is None:
            suspect.answered += 1
            suspect.spent += answer.usd
            return
        suspect.denied += 1
        if suspect.denied_at is None:
            suspect.denied_at, suspect.denial = answer.at, answer.denial
            took = answer.at - (suspect.began or answer.at)
            self._tell(
                f"DENIED  {identity}: the gateway answers {answer.status} {answer.denial.action}, "
                f"{took:.1f} s after the first bad call",
                "bold green",
            )

    def found(self, finding: Finding) -> None:
        """A detector spoke."""
        suspect = self._named.get(finding.identity)
        if suspect is not None and all(known.finding_id != finding.finding_id for known in suspect.findings):
            suspect.findings.append(finding)
        self._tell(f"finding {finding.kind} ({finding.severity}) {finding.identity}: {finding.reason}", "yellow")

    def incident(self, incident: Incident) -> None:
        """An incident was opened or changed."""
        if incident.incident_id not in self.incidents:
            self._tell(f"incident {incident.incident_id} opens: {incident.identity or incident.tenant}", "bold yellow")
        self.incidents[incident.incident_id] = incident

    def ordered(self, order: Order) -> None:
        """A command was published."""
        if order.command_id in self.orders:
            return
        self.orders[order.command_id] = order
        suspect = self._named.get(order.identity or "")
        if suspect is not None:
            suspect.orders.append(order)
        by = "a person" if order.manual else "policy"
        self._tell(f"command {order.action} {order.scope} {order.subject} (signed, by {by})", "bold magenta")

    def acknowledged(self, word: dict[str, Any]) -> None:
        """A gateway spoke of a command."""
        uid, took = word.get("command_uid"), word.get("unmapped", {}).get("propagation_ms")
        if uid in self.orders and isinstance(took, int | float):
            self.propagation[uid] = float(took)

"""Findings as detectors would tell them, and the decider of the shipped policy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from msgspec.structs import replace

from responses import Config, Decider, Outcome
from schemas.command import Command
from schemas.directory import Directory
from schemas.finding import Cause, Evidence, Finding, Signal, TenantBucket, Tick
from schemas.incident import Incident
from schemas.request import Request
from schemas.times import format_millis
from streams.policy import read_policy

# A deadline would measure the machine.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

START_MS = 1_772_409_600_000
_EVIDENCE = {
    "age_seconds",
    "deterministic",
    "extreme",
    "span_seconds",
    "workload",
    "credential_id",
    "session_id",
    "identity_trust",
    "shared",
    "details",
}


def make_finding(
    at: float,
    kind: str = "spike",
    severity: str = "high",
    *,
    identity: str = "key_1",
    tenant: str = "acme",
    **changes: Any,
) -> Finding:
    """A finding told `at` seconds after the start, of an identity that is known for a day."""
    evidence = Evidence(
        partition=0, offsets=(0, 9), policy="p", detector_version=1, state_digest="d" * 16,
        cause=Cause("gateway/eu-1", f"{identity}-{kind}-{at}"), usd_per_minute=9.5, baseline_usd_per_minute=0.5,
        age_seconds=86_400.0, credential_id=f"cred_{identity}", identity_trust="authenticated",
    )  # fmt: skip
    evidence = replace(evidence, **{name: value for name, value in changes.items() if name in _EVIDENCE})
    made = Finding(
        finding_id=f"f-{tenant}-{identity}-{kind}-{at}", time=format_millis(START_MS + round(at * 1000)), tenant=tenant,
        identity=identity, kind=kind, severity=severity, score=0.5, detector=f"{kind}@1", window="1m", observed=80.0,
        baseline=10.0, reason=f"{kind} of {identity}", evidence=evidence,
    )  # fmt: skip
    return replace(made, **{name: value for name, value in changes.items() if name not in _EVIDENCE})


class Story:
    """A decider and what came of it so far. Times are seconds after the start."""

    def __init__(self, config: Config, directory: Directory) -> None:
        self.decider = Decider(config, directory)
        self.outcomes: list[Outcome] = []
        self._orders = 0

    def take(self, signal: Signal, arrived: int = 0) -> list[Outcome]:
        out = self.decider.take(signal, arrived)
        self.outcomes += out
        return out

    def find(self, at: float, *args: Any, arrived: int = 0, **changes: Any) -> list[Outcome]:
        return self.take(make_finding(at, *args, **changes), arrived)

    def loop(self, at: float, session: str = "s1", **changes: Any) -> list[Outcome]:
        """A loop that is long enough to block."""
        return self.find(at, "loop", deterministic=True, session_id=session, **changes)

    def extreme(self, at: float, **changes: Any) -> list[Outcome]:
        return self.find(at, "spike", "critical", extreme=True, **changes)

    def denied(self, at: float, identity: str = "key_1", tenant: str = "acme") -> list[Outcome]:
        time = format_millis(START_MS + round(at * 1000))
        return self.take(TenantBucket(time, tenant, time, 0, 1, 0, 0, 0.0, 0.0, {identity: 3}))

    def tell(self, at: float, what: str, identity: str, session: str, **changes: Any) -> list[Outcome]:
        """A loop, an extreme spike, denied calls, or a finding of the kind `what` with `changes`."""
        match what:
            case "extreme":
                return self.extreme(at, identity=identity)
            case "loop":
                return self.loop(at, session, identity=identity)
            case "denied":
                return self.denied(at, identity)
            case _:
                return self.find(at, what, identity=identity, **changes)

    def until(self, at: float) -> list[Outcome]:
        """The clock moves on, second by second where it matters, as ticks would move it."""
        out: list[Outcome] = []
        now = (self.decider.now - START_MS) / 1000 if self.decider.now else 0.0
        while now < at:
            now = min(now + 10.0, at)
            out += self.take(Tick(format_millis(START_MS + round(now * 1000))))
        return out

    def order(self, at: float, action: str, identity: str = "key_1", tenant: str = "acme") -> list[Outcome]:
        self._orders += 1
        time = format_millis(START_MS + round(at * 1000))
        out = self.decider.order(Request(f"req-{self._orders}", time, tenant, identity, action, "because", "ann"))
        self.outcomes += out
        return out

    @property
    def commands(self) -> list[Command]:
        return [outcome for outcome in self.outcomes if isinstance(outcome, Command)]

    @property
    def incidents(self) -> dict[str, Incident]:
        """Each incident in its last state."""
        return {outcome.incident_id: outcome for outcome in self.outcomes if isinstance(outcome, Incident)}

    @property
    def incident(self) -> Incident:
        [only] = self.incidents.values()
        return only

    @property
    def brief(self) -> list[tuple[str, str, str]]:
        return [(command.action, command.scope, command.subject) for command in self.commands]


@pytest.fixture(scope="session")
def config() -> Config:
    return read_policy(Path(__file__).parent.parent.parent / "policy.toml").for_responses


@pytest.fixture(scope="session")
def finding() -> Callable[..., Finding]:
    return make_finding


@pytest.fixture(scope="session")
def story(config: Config) -> Callable[..., Story]:
    """`story(directory=…, cap_tenant=2)`: a fresh decider; named settings replace those of `[response]`."""

    def begin(directory: Directory | None = None, **response: Any) -> Story:
        changed = replace(config, response=replace(config.response, **response))
        return Story(changed, directory or Directory())

    return begin

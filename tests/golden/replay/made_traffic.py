"""Traffic made by hand: a few identities that do one thing each, the same at every run.

`python made_traffic.py` writes the events of each golden case beside this file (`<case>.events.jsonl.gz`).
"""

import gzip
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from schemas.usage import UsageData, UsageEvent

START = datetime(2026, 3, 2, tzinfo=UTC)
START_MS = int(START.timestamp()) * 1000
HOUR = 3600.0
BERLIN = {"country": "DE", "asn": 16509, "lat": 52.52, "lon": 13.40, "accuracy_km": 20.0}
DUBLIN = {"country": "IE", "asn": 16509, "lat": 53.35, "lon": -6.26, "accuracy_km": 20.0}
LAGOS = {"country": "NG", "asn": 37282, "lat": 6.45, "lon": 3.39, "accuracy_km": 20.0}

Events = list[UsageEvent]


class Traffic:
    """Collects calls. Times are seconds after `START`; ids count up, so that the same story has the same ids."""

    def __init__(self, subject: str = "key_1", **common: Any) -> None:
        self.events: Events = []
        self._subject = subject
        self._common = {
            "model": "gpt-5-mini",
            "status": 200,
            "tenant": "acme",
            "input_tokens": 900,
            "output_tokens": 100,
        }
        self._common |= {
            "cost_usd": 0.002,
            "credential_id": f"cred_{subject}",
            "identity_trust": "authenticated",
        } | common

    def call(self, at: float, *, event_id: str = "", source: str = "gateway/eu-1", **changes: Any) -> UsageEvent:
        """One call that ended `at` seconds after `START`."""
        name = event_id or f"{self._subject}-{len(self.events)}"
        moment = START + timedelta(milliseconds=round(at * 1000))
        made = UsageEvent(name, source, self._subject, moment, UsageData(**(self._common | changes)))
        self.events.append(made)
        return made

    def every(self, seconds: float, start: float, end: float, **changes: Any) -> None:
        """A call each `seconds`, from `start` until before `end`."""
        for step in range(int((end - start) / seconds)):
            self.call(start + step * seconds, **changes)

    def quietly(self, hours: float, *, seed: int = 1, per_hour: int = 40, **changes: Any) -> None:
        """An unremarkable history of `hours` from `START` on."""
        dice = random.Random(seed)
        for at in sorted(dice.uniform(0, hours * HOUR) for _ in range(round(hours * per_hour))):
            self.call(at, **{"fingerprint": f"prompt {dice.random()}", **changes})


def in_order(*sources: Iterable[UsageEvent]) -> Events:
    """Everything in the order of time."""
    return sorted((event for events in sources for event in events), key=lambda event: (event.time, event.id))


def as_lines(events: Iterable[UsageEvent]) -> bytes:
    """As an events file holds them."""
    return b"".join(msgspec.json.encode(event) + b"\n" for event in events)


def _bystander(hours: float) -> Events:
    """Somebody else's traffic, which moves the clock on."""
    traffic = Traffic("key_bystander", **BERLIN)
    traffic.quietly(hours, seed=99, per_hour=60)
    return traffic.events


def spike_stolen_key() -> Events:
    """A key that used a few thousand tokens a minute uses half a million for three minutes."""
    traffic = Traffic("key_spike", **BERLIN)
    traffic.quietly(7)
    traffic.every(1.0, 7 * HOUR, 7 * HOUR + 180, input_tokens=8000, output_tokens=500, cost_usd=0.05)
    return in_order(traffic.events, _bystander(7.5))


def spike_growing_customer() -> Events:
    """A customer that grows by a third each hour, and ends at sixteen times what it began with."""
    traffic = Traffic("key_growth", **BERLIN)
    for hour in range(10):
        traffic.every(60.0, hour * HOUR, (hour + 1) * HOUR, input_tokens=round(3000 * 1.34**hour), cost_usd=0.01)
    return in_order(traffic.events, _bystander(10))


def loop_runaway_agent() -> Events:
    """An agent that asks the same in one session every second and a half."""
    traffic = Traffic("agent_loop", workload="agent", **BERLIN)
    traffic.quietly(2)
    traffic.every(1.5, 2 * HOUR, 2 * HOUR + 90, fingerprint="same again", session_id="s-runaway", tool="search")
    return in_order(traffic.events, _bystander(2.5))


def loop_popular_prompt() -> Events:
    """A prompt that many people's sessions send once each, and a cron job that sends its own once a minute."""
    traffic = Traffic("app_popular", **BERLIN)
    for visitor in range(200):
        traffic.call(visitor * 2.0, fingerprint="what is new?", session_id=f"s-{visitor}")
    cron = Traffic("cron_job", **BERLIN)
    cron.every(60.0, 0, 1.5 * HOUR, fingerprint="nightly report", session_id="s-cron")
    return in_order(traffic.events, cron.events, _bystander(2))


def geo_shift_stolen_key() -> Events:
    """A key of a Berlin service is used from Lagos, and loudly: the place and the velocity together."""
    traffic = Traffic("key_moved", **BERLIN)
    traffic.quietly(8)
    traffic.every(1.0, 8 * HOUR, 8 * HOUR + 120, **(LAGOS | {"input_tokens": 9000, "cost_usd": 0.06}))
    return in_order(traffic.events, _bystander(8.5))


def geo_shift_failover() -> Events:
    """A cloud region fails and its calls come from another country of the same network."""
    traffic = Traffic("key_failover", **BERLIN)
    traffic.quietly(8)
    traffic.every(60.0, 8 * HOUR, 9 * HOUR, **DUBLIN)
    return in_order(traffic.events, _bystander(9.5))


CASES: dict[str, Callable[[], Events]] = {
    case.__name__: case
    for case in (
        spike_stolen_key,
        spike_growing_customer,
        loop_runaway_agent,
        loop_popular_prompt,
        geo_shift_stolen_key,
        geo_shift_failover,
    )
}


def write_events(folder: Path) -> None:
    """Writes each case's events into `folder`, the same bytes each time."""
    for name, case in CASES.items():
        # Neither a name nor a moment in the header.
        (folder / f"{name}.events.jsonl.gz").write_bytes(gzip.compress(as_lines(case()), mtime=0))


if __name__ == "__main__":
    write_events(Path(__file__).parent)

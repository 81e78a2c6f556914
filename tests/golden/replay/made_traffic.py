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

from schemas.directory import Directory, Entry
from schemas.quota import Quota
from schemas.usage import UsageData, UsageEvent

START = datetime(2026, 3, 2, tzinfo=UTC)
START_MS = int(START.timestamp()) * 1000
HOUR = 3600.0
DIRECTORY = Directory(
    {
        "key_beyond": Entry(tenant="acme", models=["gpt-5-mini"]),
        "key_dated": Entry(tenant="acme", models=["gpt-5-mini", "claude-*"]),
        "key_metered": Entry(tenant="acme", quotas=[Quota("day", usd=1.0), Quota("hour", requests=600)]),
        "key_thrifty": Entry(tenant="acme", quotas=[Quota("day", usd=1.0), Quota("hour", requests=600)]),
    }
)
"""What the directory has: of all others it says nothing."""
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
    traffic.quietly(26, per_hour=15)
    traffic.every(1.0, 26 * HOUR, 26 * HOUR + 120, **(LAGOS | {"input_tokens": 9000, "cost_usd": 0.06}))
    return in_order(traffic.events, _bystander(26.5))


def geo_shift_failover() -> Events:
    """A cloud region fails and its calls come from another country of the same network, where colleagues are."""
    traffic = Traffic("key_failover", **BERLIN)
    traffic.quietly(26, per_hour=15)
    traffic.every(60.0, 26 * HOUR, 27 * HOUR, **DUBLIN)
    colleagues = [Traffic(f"key_dublin_{n}", **DUBLIN) for n in range(2)]
    for colleague in colleagues:
        colleague.quietly(27, per_hour=4)
    return in_order(traffic.events, *(colleague.events for colleague in colleagues), _bystander(27.5))


def shared_credential_resold_key() -> Events:
    """A key of a Berlin service is sold to customers in five countries, who call between its own calls."""
    traffic = Traffic("key_resold", **BERLIN, user_agent="openai-python/2.8.1")
    traffic.quietly(8)
    traffic.every(60.0, 8 * HOUR, 8.2 * HOUR)
    for call in range(80):
        customer = call % 5
        there = {
            "country": ("VN", "RO", "ID", "BR", "TR")[customer],
            "asn": 64_500 + customer,
            "lat": None,
            "lon": None,
        }
        traffic.call(8 * HOUR + 3 + call * 8.0, **there, user_agent=f"customer/{customer}")
    return in_order(traffic.events, _bystander(8.5))


def shared_credential_two_regions() -> Events:
    """A service that runs in two regions from its first day, each with its own client."""
    traffic = Traffic("key_regions", **BERLIN, user_agent="worker-eu/1")
    for call in range(300):
        traffic.call(call * 120.0, **(LAGOS | {"user_agent": "worker-af/1"} if call % 2 else {}))
    return in_order(traffic.events, _bystander(10))


def failure_burst_probed_key() -> Events:
    """Somebody tries with a key which models it opens: none of them."""
    traffic = Traffic("key_probed", provider="bedrock", **BERLIN)
    traffic.quietly(3)
    for n in range(18):
        traffic.call(3 * HOUR + n * 1.5, model=f"model-{n // 3}", status=403, output_tokens=None, cost_usd=0.0)
    return in_order(traffic.events, _bystander(3.5))


def failure_burst_outage() -> Events:
    """A provider fails for five minutes, for all; each client tries twice, backs off, and comes back."""
    clients = [Traffic(f"client_{k}", provider="openai", **BERLIN) for k in range(6)]
    for k, client in enumerate(clients):
        client.every(40.0, k * 5.0, HOUR)
        for n in range(12):
            for attempt in range(2):
                at = HOUR + k * 5.0 + n * 25.0 + attempt * 2.0
                client.call(at, status=503, attempt=attempt, fingerprint=f"{k} {n}", output_tokens=None, cost_usd=0.0)
    return in_order(*(client.events for client in clients), _bystander(1.5))


def evasion_cut_streams() -> Events:
    """A client that hangs up just before its streams end."""
    traffic = Traffic("key_hangs_up", provider="openai", streaming=True, latency_ms=6000.0, **BERLIN)
    traffic.quietly(3)
    for n in range(40):
        traffic.call(3 * HOUR + n * 20.0, status=499, output_tokens=None, cost_usd=None, fingerprint=f"cut {n}")
    return in_order(traffic.events, _bystander(3.5))


def evasion_uncounted_route() -> Events:
    """A gateway that never learns what its streams used."""
    traffic = Traffic("key_uncounted", provider="openai", streaming=True, latency_ms=6000.0, **BERLIN)
    traffic.quietly(3, output_tokens=None, cost_usd=None)
    for n in range(40):
        traffic.call(3 * HOUR + n * 20.0, output_tokens=None, cost_usd=None, fingerprint=f"more {n}")
    return in_order(traffic.events, _bystander(3.5))


def model_shift_dearest() -> Events:
    """A key calls as often as ever, on a model that it never used and that costs twenty times as much."""
    traffic = Traffic("key_dear", **BERLIN)
    traffic.quietly(9)
    traffic.every(45.0, 9 * HOUR, 9.5 * HOUR, model="claude-opus-4-5", cost_usd=0.04)
    return in_order(traffic.events, _bystander(9.6))


def model_shift_renamed() -> Events:
    """A model gets another name, at the same price."""
    traffic = Traffic("key_renamed", **BERLIN)
    traffic.quietly(9)
    traffic.every(45.0, 9 * HOUR, 9.5 * HOUR, model="gpt-5-mini-2026-02-27")
    return in_order(traffic.events, _bystander(9.6))


def entitlement_ungranted() -> Events:
    """A key is served with a model that the directory does not grant it."""
    traffic = Traffic("key_beyond", **BERLIN)
    traffic.quietly(2)
    traffic.every(4.0, 2 * HOUR, 2 * HOUR + 120, model="gpt-5")
    return in_order(traffic.events, _bystander(2.1))


def entitlement_dated() -> Events:
    """Models that the directory grants under another issue's name, and by a pattern."""
    traffic = Traffic("key_dated", **BERLIN)
    traffic.quietly(2)
    traffic.every(30.0, 2 * HOUR, 2 * HOUR + 600, model="openai/gpt-5-mini-2025-08-07")
    traffic.every(30.0, 2.2 * HOUR, 2.2 * HOUR + 600, model="claude-haiku-4-5")
    return in_order(traffic.events, _bystander(2.5))


def quota_used_up() -> Events:
    """A key that may use a dollar a day calls for a cent a minute, and does not stop."""
    traffic = Traffic("key_metered", **BERLIN)
    traffic.every(60.0, 0, 2 * HOUR, cost_usd=0.01)
    return in_order(traffic.events, _bystander(2.1))


def quota_next_day() -> Events:
    """A key that may use a dollar a day uses three quarters of it on either side of midnight."""
    traffic = Traffic("key_thrifty", **BERLIN)
    traffic.every(60.0, 22.75 * HOUR, 25.25 * HOUR, cost_usd=0.01)
    return in_order(traffic.events, _bystander(1))


def drift_ramp() -> Events:
    """A key that is called twenty times an hour around the clock grows by a third each hour from its third day on."""
    traffic = Traffic("key_creeping", **BERLIN)
    traffic.quietly(51, per_hour=20)
    at = 51 * HOUR
    while at < 59 * HOUR:
        at += HOUR / (20 * 1.34 ** (at / HOUR - 51))
        traffic.call(at)
    return in_order(traffic.events, _bystander(1))


def drift_daily_rhythm() -> Events:
    """Somebody who works from nine to five, the first two days of the week."""
    traffic = Traffic("key_rhythm", **BERLIN)
    for day in range(2):
        for hour in range(9, 17):
            traffic.every(120.0, (24 * day + hour) * HOUR, (24 * day + hour + 1) * HOUR)
    return in_order(traffic.events, _bystander(1))


def dormant_key() -> Events:
    """A key that was called every three hours for a day, slept for two, and makes a call every two seconds."""
    traffic = Traffic("key_asleep", **BERLIN)
    traffic.every(3 * HOUR, 0, 24 * HOUR)
    traffic.every(2.0, 69 * HOUR, 69 * HOUR + 40)
    return in_order(traffic.events, _bystander(1))


def dormant_weekend() -> Events:
    """Somebody who talks to a model for five minutes of each hour, but not at night and not over the weekend."""
    traffic = Traffic("key_weekend", **BERLIN)
    for day in (0, 1, 4, 5):
        for hour in range(9, 17):
            traffic.every(25.0, (24 * day + hour) * HOUR, (24 * day + hour) * HOUR + 300)
    return in_order(traffic.events, _bystander(1))


CASES: dict[str, Callable[[], Events]] = {
    case.__name__: case
    for case in (
        spike_stolen_key,
        spike_growing_customer,
        loop_runaway_agent,
        loop_popular_prompt,
        geo_shift_stolen_key,
        geo_shift_failover,
        failure_burst_probed_key,
        failure_burst_outage,
        evasion_cut_streams,
        evasion_uncounted_route,
        shared_credential_resold_key,
        shared_credential_two_regions,
        model_shift_dearest,
        model_shift_renamed,
        entitlement_ungranted,
        entitlement_dated,
        dormant_key,
        dormant_weekend,
        quota_used_up,
        quota_next_day,
        drift_ramp,
        drift_daily_rhythm,
    )
}


def write_events(folder: Path) -> None:
    """Writes each case's events into `folder`, the same bytes each time."""
    for name, case in CASES.items():
        # Neither a name nor a moment in the header.
        (folder / f"{name}.events.jsonl.gz").write_bytes(gzip.compress(as_lines(case()), mtime=0))


if __name__ == "__main__":
    write_events(Path(__file__).parent)

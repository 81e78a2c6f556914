"""What a gateway's events lack, and so which detectors are blind."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from made_traffic import BERLIN, CASES, Traffic, as_lines
from typer.testing import CliRunner

from detectors import DETECTORS
from schemas.directory import Directory, Entry
from schemas.finding import Kind
from schemas.usage import UsageData, UsageEvent
from streams.cli import app
from streams.needs import METERED, NEEDS
from streams.policy import Loaded
from streams.replay import Replay
from streams.status import GatewayStatus, Status, missing

File = Callable[..., str]
EVERYTHING = {
    "workload": "agent", "cost_usd": 0.1, "session_id": "s", "fingerprint": "f", "user_agent": "x", "route": "/v1",
    "operation_id": "o", **BERLIN,
}  # fmt: skip


def status(events: list[UsageEvent], directory: Directory | None = None) -> dict[str, GatewayStatus]:
    counts = Status(directory or Directory())
    counts.take(events)
    return {gateway.gateway: gateway for gateway in counts.gateways()}


def sights(gateway: GatewayStatus) -> dict[str, str]:
    return {one.detector: one.sight for one in gateway.detectors}


def test_every_detector_says_what_it_needs() -> None:
    assert {detector.name for detector in DETECTORS} <= set(NEEDS)
    assert set(NEEDS) == set(get_args(Kind))
    fields = {f.name for f in msgspec.structs.fields(UsageData)}
    fields |= {f"directory.{f.name}" for f in msgspec.structs.fields(Entry)}
    named = {one for parts in NEEDS.values() for part in parts for name in part.fields for one in name.split("|")}
    assert named <= fields
    assert fields >= METERED


def test_everything_is_seen_where_nothing_is_missing() -> None:
    traffic = Traffic(**EVERYTHING)
    traffic.every(1.0, 0, 20)
    directory = Directory({"key_1": Entry(tenant="acme", models=["m"], routes=["/v1"])})
    assert set(sights(status(traffic.events, directory)["gateway/eu-1"]).values()) == {"sees"}


@pytest.mark.parametrize(
    ("lacks", "sight"),
    [
        (["country"], {"geo_shift": "blind", "shared_credential": "blind"}),
        (["lat"], {"geo_shift": "half-blind", "shared_credential": "sees"}),
        (["user_agent"], {"shared_credential": "half-blind", "geo_shift": "sees"}),
        (["fingerprint"], {"loop": "half-blind", "failure_burst": "sees"}),
        (["fingerprint", "session_id"], {"loop": "blind", "failure_burst": "half-blind"}),
        (["output_tokens"], {"evasion": "blind", "spike": "sees"}),
        (["input_tokens", "output_tokens"], {"spike": "half-blind", "quota": "half-blind"}),
        (["cost_usd"], {"spike": "half-blind", "model_shift": "half-blind"}),
        (["tenant"], {"tenant_spike": "blind"}),
    ],
)
def test_a_field_that_is_missing_blinds(lacks: list[str], sight: dict[str, str]) -> None:
    traffic = Traffic(**(EVERYTHING | dict.fromkeys(lacks)))
    traffic.every(1.0, 0, 20)
    found = sights(status(traffic.events)["gateway/eu-1"])
    assert {name: found[name] for name in sight} == sight


def test_shares_and_words() -> None:
    traffic = Traffic(**EVERYTHING)
    traffic.every(1.0, 0, 60)
    traffic.every(1.0, 60, 100, country=None)
    gateway = status(traffic.events)["gateway/eu-1"]
    [place] = [one for one in gateway.detectors if one.detector == "geo_shift"]
    assert place.sight == "half-blind"
    assert place.parts[0].usable == 0.6
    assert place.parts[0].fields == {"country": 0.6, "asn": 1.0}
    assert list(missing(place)) == ["new places: country 60%", "impossible travel: country 60%"]


def test_calls_that_were_not_served_need_no_tokens() -> None:
    traffic = Traffic(**EVERYTHING)
    traffic.every(1.0, 0, 10)
    traffic.every(1.0, 10, 100, status=500, input_tokens=None, output_tokens=None, cost_usd=None)
    assert sights(status(traffic.events)["gateway/eu-1"])["spike"] == "sees"


def test_gateways_are_told_apart() -> None:
    traffic = Traffic(**EVERYTHING)
    traffic.call(0, source="b")
    traffic.call(1, source="a", country=None)
    traffic.call(9, source="a", country=None)
    found = status(traffic.events)
    assert list(found) == ["a", "b"]
    assert (found["a"].events, found["a"].identities) == (2, 1)
    assert (found["a"].first, found["a"].last) == ("2026-03-02T00:00:01+00:00", "2026-03-02T00:00:09+00:00")
    assert (sights(found["a"])["geo_shift"], sights(found["b"])["geo_shift"]) == ("blind", "sees")


def test_a_detector_called_blind_is_silent(policy: Loaded) -> None:
    def kinds(events: list[UsageEvent]) -> set[str]:
        road = Replay(policy, Directory())
        road.run(io.BytesIO(as_lines(events)), 4096)
        return {finding.kind for finding in road.findings}

    events = CASES["geo_shift_stolen_key"]()
    blinded = [
        msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, country=None)) for event in events
    ]
    assert sights(status(blinded)["gateway/eu-1"])["geo_shift"] == "blind"
    assert "geo_shift" in kinds(events)
    assert "geo_shift" not in kinds(blinded)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    return lambda *given: CliRunner().invoke(app, ["status", *map(str, given)])


def test_on_the_command_line(run: Any, events_file: File, tmp_path: Path) -> None:
    events = events_file(as_lines(CASES["geo_shift_failover"]()) + b"{\n\n", "events.jsonl.gz")
    [gateway] = json.loads(run(events, "--json").stdout)
    assert gateway["events"] == len(CASES["geo_shift_failover"]())
    shown = run(events).stdout
    assert f"gateway/eu-1: {gateway['events']:,} events of 4 identities" in shown
    assert "entitlement" in shown
    assert "models: directory.models 0%" in shown
    (tmp_path / "who.json").write_text('{"identities": {"key_failover": {"models": ["m"]}}}')
    assert "models: directory.models 0%" not in run(events, "--directory", tmp_path / "who.json").stdout
    assert run(events_file(b"")).stdout == "no events\n"


def test_mistakes_are_one_line(run: Any) -> None:
    for given, said in (
        ([], "name a file of usage events, or --kafka"),
        (["x.jsonl", "--kafka"], "name a file of usage events, or --kafka"),
        (["none.jsonl"], "none.jsonl: No such file or directory"),
    ):
        result = run(*given)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"tripswitch: {said}\n"

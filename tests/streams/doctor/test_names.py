"""Names that gateways ask about, against those of usage events."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.command import Command
from schemas.directory import Directory, Entry
from schemas.usage import UsageData, UsageEvent
from streams.acknowledged import Gateway
from streams.doctor.names import calls, check_names, check_served

START = datetime(2026, 3, 2, tzinfo=UTC)


def event(subject: str, seconds: float = 0, **data: Any) -> UsageEvent:
    told = {"model": "m", "status": 200, "tenant": "acme"} | data
    return UsageEvent(
        f"{subject}{seconds}", "gateway/eu-1", subject, START + timedelta(seconds=seconds), UsageData(**told)
    )


def gateway(*checked: tuple[str, str]) -> Gateway:
    def short(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    return Gateway("eu-1", 0, checked=tuple((short(f"{tenant}\0{name}"), short(name)) for tenant, name in checked))


def command(subject: str, action: str = "suspend", scope: str = "identity", mode: str = "enforce") -> Command:
    return Command(
        command_id="c", time="2026-03-02T00:00:00.000Z", tenant="acme", identity=subject, scope=scope, subject=subject,
        action=action, epoch=1, expires_at=None, mode=mode, reason="", incident_id=None, finding_ids=[], policy="p",
    )  # fmt: skip


def named(events: list[UsageEvent], *checked: tuple[str, str]) -> list[tuple[str, str]]:
    return [(c.state, c.seen) for c in check_names(calls(events, Directory()), [gateway(*checked)])]


def test_the_same_names_are_well() -> None:
    [(state, _)] = named([event("key_1"), event("key_2")], ("acme", "key_1"))
    assert state == "ok"


def test_a_gateway_that_tells_no_names_is_not_judged() -> None:
    assert named([event("key_1")]) == []


@pytest.mark.parametrize(
    ("subject", "checked", "fault"),
    [
        ("key_1", ("-", "key_1"), "another tenant"),
        (hashlib.sha256(b"sk-secret").hexdigest(), ("acme", "sk-secret"), "in clear"),
        (f"sha256:{hashlib.sha256(b'sk-secret').hexdigest()}", ("acme", "sk-secret"), "in clear"),
        ("key_1", ("acme", "cred_1"), "credential"),
    ],
)
def test_a_name_that_is_nearly_the_same_is_told(subject: str, checked: tuple[str, str], fault: str) -> None:
    [(state, seen)] = named([event(subject, credential_id="cred_1")], checked)
    assert state == "failure"
    assert fault in seen
    assert f"acme/{subject}" in seen
    assert "sk-secret" not in seen


def test_a_caller_of_whom_no_event_tells_is_nobodys_fault() -> None:
    [(state, _)] = named([event("key_1")], ("acme", "key_1"), ("acme", "somebody-else"))
    assert state == "ok"


def served(*events: UsageEvent, by: Command) -> list[str]:
    return [c.state for c in check_served(calls(events, Directory()), [by])]


def test_what_is_served_long_after_its_block_is_told() -> None:
    assert served(event("key_1", 12), by=command("key_1")) == ["failure"]


@pytest.mark.parametrize(
    "late",
    [
        event("key_1", 9),
        event("key_1", 12, latency_ms=5000.0),
        event("key_1", 12, status=403, error="tripswitch_denied"),
        event("key_1", 12, tenant="globex"),
        event("key_2", 12),
    ],
    ids=["soon", "begun before", "denied", "another tenant", "another"],
)
def test_what_is_no_failure_to_obey(late: UsageEvent) -> None:
    assert served(late, by=command("key_1")) == ["ok"]


@pytest.mark.parametrize(
    "other", [command("key_1", "throttle"), command("key_1", "restore"), command("key_1", mode="shadow")]
)
def test_only_blocks_stop_calls(other: Command) -> None:
    assert served(event("key_1", 12), by=other) == []


def test_the_directory_names_the_tenant_that_an_event_does_not() -> None:
    known = Directory(identities={"key_1": Entry(tenant="acme")})
    checks = check_served(calls([event("key_1", 12, tenant=None)], known), [command("key_1")])
    assert [check.state for check in checks] == ["failure"]

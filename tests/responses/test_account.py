"""An account names the rung, the guard and the keys that decided; on findings made by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from responses import Config, Decider
from responses.account import Account, account
from responses.approved import Ordered
from schemas.command import Command
from schemas.directory import Approval, Directory, Entry
from schemas.times import parse_millis


@pytest.fixture
def accounted(config: Config) -> Any:
    def make(
        *findings: Any, directory: Directory | None = None, commands: Any = (), arrived: int = 0, ordered: Any = ()
    ) -> Account:
        return account(findings, commands, config, directory or Directory(), arrived, ordered)

    return make


def test_one_family_is_an_alert(accounted: Any, finding: Any) -> None:
    a = accounted(finding(0, "spike", "high"))
    assert (a.risk, a.families, a.counted) == (45.0, {"velocity": 45.0}, ["velocity"])
    assert (a.wanted, a.rung, a.guard, a.approved, a.common) == (None, None, None, None, False)
    assert a.keys[:3] == ["risk.points.high", "risk.half_life_minutes.velocity", "risk.open"]


def test_two_families_are_theft(accounted: Any, finding: Any) -> None:
    a = accounted(finding(0, "geo_shift", "medium"), finding(60, "spike", "high"))
    assert a.counted == ["place", "velocity"]
    assert (a.rung, a.wanted.action, a.wanted.scope, a.wanted.subject) == (
        "theft",
        "revoke",
        "credential",
        "cred_key_1",
    )
    assert {"response.interactive.theft", "response.theft_points", "risk.family_bonus"} <= {*a.keys}


def test_it_says_what_the_decider_decides(accounted: Any, finding: Any, config: Config) -> None:
    stories = [
        [finding(0, "spike", "critical", extreme=True)],
        [finding(0, "loop", "high", deterministic=True, session_id="s-1")],
        [finding(0, "loop", "high", deterministic=True, workload="agent")],
        [finding(0, "geo_shift", "medium"), finding(9, "spike", "high")],
        [finding(0, "failure_burst", "medium"), finding(9, "spike", "high")],
        [finding(0, "failure_burst", "medium"), finding(9, "spike", "high", workload="batch")],
        [finding(0, "spike", "low"), finding(9, "spike", "medium")],
    ]
    for story in stories:
        decider = Decider(config, Directory())
        made = [out for one in story for out in decider.take(one) if isinstance(out, Command)]
        wanted = accounted(*story).wanted
        assert [(c.action, c.scope, c.subject) for c in made] == (
            [(wanted.action, wanted.scope, wanted.subject)] if wanted else []
        )


@pytest.mark.parametrize(
    ("changes", "rung", "workload"),
    [
        ({"extreme": True}, "extreme", "interactive"),
        ({"extreme": True, "workload": "agent"}, "extreme", "agent"),
        ({"deterministic": True, "extreme": True}, "deterministic", "interactive"),
    ],
)
def test_the_rung_is_named_with_its_class(accounted: Any, finding: Any, changes: Any, rung: str, workload: str) -> None:
    a = accounted(finding(0, "spike", "critical", **changes))
    assert a.rung == rung
    assert a.keys[-1] == f"response.{workload}.{rung}"


def test_the_guard_that_held_it_back_is_named_with_its_key(accounted: Any, finding: Any) -> None:
    new = accounted(finding(0, age_seconds=60.0))
    assert new.guard == "the identity is too new to judge"
    assert "response.grace_minutes" in new.keys
    late = accounted(finding(0), arrived=parse_millis(finding(0).time) + 3_600_000)
    assert late.guard == "found behind a backlog"
    assert "response.backlog_seconds" in late.keys
    protected = accounted(finding(0), directory=Directory({"key_1": Entry(protected=True)}))
    assert protected.guard == "the directory protects this identity"
    assert not {"response.grace_minutes", "response.backlog_seconds"} & {*protected.keys}


def test_what_is_approved_is_passed_over(accounted: Any, finding: Any) -> None:
    day = datetime.fromtimestamp(parse_millis(finding(0).time) / 1000, UTC)
    launch = Approval("key_1", day - timedelta(1), day + timedelta(1), 100.0, "ops", "launch")
    a = accounted(finding(0, extreme=True), directory=Directory(approvals=[launch]))
    assert (a.approved, a.risk, a.wanted) == ("approved by ops: launch", 0, None)


def test_what_a_person_approved_before_is_passed_over_by_the_last_order(accounted: Any, finding: Any) -> None:
    start = parse_millis(finding(0).time)
    day = datetime.fromtimestamp(start / 1000, UTC)

    def ordered(at: float, multiplier: float, tenant: str = "acme") -> Ordered:
        span = (day - timedelta(1), day + timedelta(1))
        return Ordered(
            start + round(at * 1000), Approval("key_1", *span, multiplier, "ann", f"x{multiplier:g}", tenant)
        )

    told = finding(60, extreme=True)
    assert accounted(told, ordered=[ordered(0, 2.0), ordered(30, 100.0)]).approved == "approved by ann: x100"
    for others in (
        [ordered(0, 100.0), ordered(30, 2.0)],  # a later one takes its place
        [ordered(61, 100.0)],  # it was found before
        [ordered(0, 100.0, "globex")],
    ):
        a = accounted(told, ordered=others)
        assert (a.approved, a.rung) == (None, "extreme")


def test_what_a_tenant_shows_in_common_counts_less(accounted: Any, finding: Any) -> None:
    who = [finding(n, "geo_shift", "high", identity=f"key_{n}", shared="asn:1/DE") for n in range(3)]
    alone, third = accounted(who[0]), accounted(*who)
    assert (alone.common, alone.risk) == (False, 45.0)
    assert third.common
    assert third.risk < alone.risk
    assert {"response.common_identities", "risk.points.low"} <= {*third.keys}


def test_after_a_blocked_credential_risk_begins_at_nothing(accounted: Any, finding: Any, config: Config) -> None:
    decider = Decider(config, Directory())
    theft = [finding(0, "geo_shift", "medium"), finding(9, "spike", "high")]
    commands = [out for one in theft for out in decider.take(one) if isinstance(out, Command)]
    later = finding(60, "model_shift", "medium")
    assert accounted(*theft, later, commands=commands).families == {"mix": 30.0}
    assert accounted(*theft, later).families.keys() == {"mix", "place", "velocity"}


def test_others_of_the_tenant_are_not_its_risk(accounted: Any, finding: Any) -> None:
    assert accounted(finding(0, "loop", identity="key_2"), finding(1)).families == {"velocity": 45.0}

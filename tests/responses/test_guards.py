"""What forbids a block, whatever the evidence, and how many there may be."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from responses import Config
from responses.guards import Caps
from schemas.directory import Approval, Directory, Entry

Begin = Callable[..., Any]
START_MS = 1_772_409_600_000


def test_a_protected_identity_is_alerted_on_and_never_blocked(story: Begin) -> None:
    s = story(Directory({"key_1": Entry(protected=True)}))
    s.extreme(0)
    s.loop(5)
    s.find(10, "geo_shift")
    assert not s.commands
    assert s.incident.response == "alert"


def test_protection_is_of_one_tenants_identity(story: Begin) -> None:
    """Another tenant's key of the same name is another identity, which the directory does not speak of."""
    s = story(Directory({"key_1": Entry(tenant="acme", protected=True)}))
    s.extreme(0, tenant="globex")
    s.extreme(1, tenant="acme")
    assert [command.tenant for command in s.commands] == ["globex"]


def test_protection_without_a_tenant_holds_in_all(story: Begin) -> None:
    s = story(Directory({"key_1": Entry(protected=True)}))
    s.extreme(0, tenant="globex")
    assert not s.commands


def test_a_name_that_the_caller_chose_is_no_reason_to_block_its_owner(story: Begin) -> None:
    s = story()
    s.extreme(0, identity_trust="request_body")
    s.loop(5, identity_trust="request_body")
    assert not s.commands
    assert s.incidents


def test_what_those_do_who_choose_a_name_is_not_held_against_its_owner(story: Begin) -> None:
    s = story()
    for at in range(0, 300, 30):
        s.find(at, "spike", "critical", identity_trust="request_body")
        s.find(at + 1, "geo_shift", "high", identity_trust="request_body")
    assert s.incident.severity == "critical"
    # Enough to open an incident, and to block where another family had been found of the owner itself.
    s.find(301, "shared_credential", "high")
    assert not s.commands
    s.find(302, "geo_shift", "high")
    s.find(303, "spike", "critical")
    assert s.commands


def test_what_they_do_renews_no_block_of_the_owner(story: Begin) -> None:
    s = story()
    s.extreme(0)
    for at in range(60, 3600, 60):
        s.find(at, "spike", "critical", identity_trust="request_body")
    s.until(3600)
    assert [action for action, _, _ in s.brief] == ["throttle", "restore"]
    assert s.incident.state == "open"


@pytest.mark.parametrize("trust", ["authenticated", "mapped_header", None])
def test_other_names_are(story: Begin, trust: str | None) -> None:
    s = story()
    s.extreme(0, identity_trust=trust)
    assert s.commands


@pytest.mark.parametrize(("late", "blocks"), [(0, True), (299, True), (301, False), (86_400, False)])
def test_what_is_found_behind_a_backlog_alerts_only(story: Begin, late: int, blocks: bool) -> None:
    s = story(backlog_seconds=300.0)
    s.extreme(0, arrived=START_MS + late * 1000)
    assert bool(s.commands) == blocks
    assert s.incidents


def test_a_newcomer_has_a_grace_unless_a_rule_tells(story: Begin) -> None:
    s = story(grace_minutes=60.0)
    s.extreme(0, age_seconds=3599.0)
    assert not s.commands
    s.loop(1, age_seconds=10.0)
    assert [command.action for command in s.commands] == ["suspend"]
    s = story(grace_minutes=60.0)
    s.extreme(0, age_seconds=3600.0)
    assert s.commands


def approve(**changes: Any) -> Directory:
    approval = {
        "identity": "key_1", "since": datetime(2026, 3, 2, 1, tzinfo=UTC), "until": datetime(2026, 3, 2, 2, tzinfo=UTC),
        "max_multiplier": 10.0, "approved_by": "ann", "reason": "load test",
    }  # fmt: skip
    return Directory(approvals=[Approval(**(approval | changes))])


@pytest.mark.parametrize(
    ("at", "observed", "approved"),
    [(3600, 80, True), (7200, 80, True), (3599, 80, False), (7201, 80, False), (4000, 100, True), (4000, 101, False)],
)
def test_approved_activity_is_no_case_within_its_time_and_its_multiplier(
    story: Begin, at: float, observed: float, approved: bool
) -> None:
    s = story(approve())
    s.extreme(at, observed=float(observed), baseline=10.0)
    assert bool(s.outcomes) != approved


def test_an_approval_covers_what_looks_back_into_it(story: Begin) -> None:
    ended = next(at for at in range(0, 40_000, 100) if at > 4000 and story_acts(story, at))
    assert not story_acts(story, ended, span_seconds=600.0)
    assert story_acts(story, ended + 700, span_seconds=600.0)


def story_acts(story: Begin, at: float, **evidence: float) -> bool:
    """Whether anything follows from approved volume at a moment."""
    s = story(approve())
    s.extreme(at, observed=20.0, baseline=10.0, **evidence)
    return bool(s.outcomes)


@pytest.mark.parametrize("kind", ["loop", "geo_shift", "model_shift", "failure_burst"])
def test_an_approval_is_for_volume_alone(story: Begin, kind: str) -> None:
    s = story(approve())
    s.find(4000, kind)
    assert s.incidents


def test_an_approval_is_for_one_identity(story: Begin) -> None:
    s = story(approve())
    s.extreme(4000, identity="key_2")
    assert s.commands


def test_beyond_the_cap_of_a_tenant_the_answer_is_a_throttle(story: Begin) -> None:
    s = story(cap_tenant=2)
    for n in range(4):
        s.find(n, "geo_shift", identity=f"key_{n}")
        s.find(n + 0.5, "spike", identity=f"key_{n}")
    assert [command.action for command in s.commands] == ["revoke", "revoke", "throttle", "throttle"]
    assert all(command.limits.rpm for command in s.commands[2:])


def test_beyond_the_cap_of_all_the_answer_is_a_throttle(story: Begin) -> None:
    s = story(cap_all=3)
    for n in range(5):
        s.find(n, "spike", identity=f"key_{n}", tenant=f"tenant_{n}")
        s.find(n + 0.5, "model_shift", identity=f"key_{n}", tenant=f"tenant_{n}")
    assert [command.action for command in s.commands] == ["suspend"] * 3 + ["throttle"] * 2


def test_the_cap_of_one_tenant_is_not_anothers(story: Begin) -> None:
    s = story(cap_tenant=1)
    for tenant in ("acme", "globex"):
        s.find(0, "spike", tenant=tenant)
        s.find(1, "model_shift", tenant=tenant)
    assert [command.action for command in s.commands] == ["suspend", "suspend"]


def test_a_cap_is_for_a_window(story: Begin, config: Config) -> None:
    s = story(cap_tenant=1)
    for n in range(2):
        at = n * (config.response.cap_window_minutes * 60 + 10)
        s.find(at, "spike", identity=f"key_{n}")
        s.find(at + 1, "model_shift", identity=f"key_{n}")
    assert [command.action for command in s.commands if command.action != "restore"] == ["suspend", "suspend"]


def test_rules_and_people_are_exempt_from_the_cap(story: Begin) -> None:
    s = story(cap_tenant=1)
    s.find(0, "spike", identity="key_0")
    s.find(1, "model_shift", identity="key_0")
    for n in range(1, 4):
        s.loop(n + 1, f"s{n}", identity=f"key_{n}")
    s.order(9, "revoke", "key_9")
    assert [command.action for command in s.commands] == ["suspend"] * 4 + ["revoke"]


def test_rules_and_people_do_not_use_up_the_cap(story: Begin) -> None:
    """A person who suspends five keys must not thereby shield the thief who is at the sixth."""
    s = story(cap_tenant=2)
    for n in range(3):
        s.order(n, "suspend", f"person_{n}")
        s.loop(n + 0.5, f"s{n}", identity=f"rule_{n}")
    s.find(8, "geo_shift", identity="thief")
    s.find(9, "spike", identity="thief")
    assert s.brief[-1] == ("revoke", "credential", "cred_thief")


def test_an_identity_that_is_blocked_already_may_get_more_beyond_the_cap(story: Begin) -> None:
    s = story(cap_tenant=1)
    s.extreme(0)
    s.find(5, "geo_shift")
    assert [command.action for command in s.commands] == ["throttle", "revoke"]


@given(
    blocks=st.lists(st.tuples(st.integers(0, 400), st.sampled_from("ab"), st.integers(0, 9)), max_size=60),
    cap_tenant=st.integers(1, 4),
    cap_all=st.integers(1, 6),
)
def test_what_caps_forget_changes_no_answer(
    config: Config, blocks: list[tuple[int, str, int]], cap_tenant: int, cap_all: int
) -> None:
    response = replace(config.response, cap_tenant=cap_tenant, cap_all=cap_all)
    caps, window, now = Caps(response), response.cap_window_minutes * 60_000, START_MS
    counted: list[tuple[int, str, str]] = []
    for gap, tenant, n in blocks:
        now += gap * 1000
        identity = f"key_{n}"
        others = {(t, i) for when, t, i in counted if when >= now - window and (t, i) != (tenant, identity)}
        of_tenant = sum(t == tenant for t, _ in others)
        assert caps.reached(tenant, identity, now) == (of_tenant >= cap_tenant or len(others) >= cap_all)
        caps.count(tenant, identity, now)
        counted.append((now, tenant, identity))
        assert len(caps.within(now)) <= cap_all + 1

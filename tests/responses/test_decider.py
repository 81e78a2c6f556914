"""A case from its first finding to its end: blocks that expire, renew, hold; incidents that close and open again."""

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from responses import Config
from schemas.command import STRICTNESS, Command
from schemas.incident import Incident
from schemas.times import parse_millis

Begin = Callable[..., Any]
START_MS = 1_772_409_600_000


def seconds(time: str) -> float:
    return (parse_millis(time) - START_MS) / 1000


def test_a_block_that_expires_quietly_is_given_back_by_a_command(story: Begin, config: Config) -> None:
    s = story()
    s.extreme(0)
    period = config.response.throttle_minutes * 60
    assert seconds(s.commands[0].expires_at) == period
    s.until(period + 60)
    assert s.brief == [("throttle", "identity", "key_1"), ("restore", "identity", "key_1")]
    assert period <= seconds(s.commands[1].time) <= period + 20
    assert s.commands[1].expires_at is None
    assert s.commands[1].epoch > s.commands[0].epoch


def test_a_suspension_lasts_as_long_as_the_policy_says(story: Begin, config: Config) -> None:
    s = story(suspend_minutes=25.0)
    s.loop(0)
    assert seconds(s.commands[0].expires_at) == 25 * 60


def test_a_block_is_renewed_while_denied_calls_come(story: Begin, config: Config) -> None:
    s = story()
    s.loop(0)
    period = config.response.suspend_minutes * 60
    for at in range(30, int(4 * period), 30):
        s.until(at)
        s.denied(at)
    actions = [command.action for command in s.commands]
    assert set(actions) == {"suspend"}
    assert 4 <= len(actions) <= 5
    for before, after in pairwise(s.commands):
        # No gap: the next one is there before the last one ends.
        assert seconds(after.time) < seconds(before.expires_at)
        assert after.command_id != before.command_id
    s.until(6 * period)
    assert s.commands[-1].action == "restore"


def test_a_renewed_block_is_the_same_block(story: Begin, config: Config) -> None:
    """Above all a throttle's limits: without them gateways refuse it, and the throttle would end by itself."""
    s = story()
    s.extreme(0, details={"usual_requests_per_minute": 40})
    period = config.response.throttle_minutes * 60
    for at in range(30, int(1.5 * period), 30):
        s.until(at)
        s.denied(at)
    first, renewed = s.commands
    same = ("tenant", "identity", "scope", "subject", "action", "mode", "policy", "limits", "incident_id", "manual")
    assert {name: getattr(renewed, name) for name in same} == {name: getattr(first, name) for name in same}


def test_a_finding_renews_too(story: Begin, config: Config) -> None:
    s = story()
    s.extreme(0)
    s.until(config.response.throttle_minutes * 60 - 100)
    s.find(config.response.throttle_minutes * 60 - 90, "spike", "high")
    s.until(config.response.throttle_minutes * 60 + 60)
    assert [command.action for command in s.commands] == ["throttle", "throttle"]


def test_weak_evidence_renews_nothing(story: Begin, config: Config) -> None:
    """What is somewhat more than ever is not the attack that goes on."""
    s = story()
    s.extreme(0)
    s.find(config.response.throttle_minutes * 60 - 60, "spike", "low")
    s.until(config.response.throttle_minutes * 60 + 60)
    assert [command.action for command in s.commands] == ["throttle", "restore"]


@pytest.mark.parametrize("sign", ["finding", "denied call"])
def test_what_comes_just_before_a_block_ends_renews_it_at_once(story: Begin, config: Config, sign: str) -> None:
    """After the last look at it: the block must not end before the next one is out."""
    s = story()
    s.extreme(0)
    period = config.response.throttle_minutes * 60
    s.until(period - 12)
    if sign == "finding":
        s.find(period - 10, "spike", "high")
    else:
        s.denied(period - 10)
    s.until(period + 60)
    assert [command.action for command in s.commands] == ["throttle", "throttle"]
    assert seconds(s.commands[1].time) < period


def test_denied_calls_of_others_renew_nothing(story: Begin, config: Config) -> None:
    s = story()
    s.loop(0)
    for at in range(30, 1200, 30):
        s.until(at)
        s.denied(at, identity="key_2")
        s.denied(at, tenant="globex")
    assert [command.action for command in s.commands] == ["suspend", "restore"]


def test_the_second_block_within_a_day_is_ended_by_a_person_only(story: Begin) -> None:
    s = story(permanent_after_blocks=2)
    s.loop(0)
    s.until(3600)
    s.loop(3700)
    assert [command.action for command in s.commands] == ["suspend", "restore", "suspend"]
    assert s.commands[-1].expires_at is None
    s.until(20 * 3600)
    assert len(s.commands) == 3
    s.order(20 * 3600 + 1, "restore")
    assert s.commands[-1].action == "restore"


def test_blocks_on_different_days_are_each_a_first(story: Begin) -> None:
    s = story(permanent_after_blocks=2)
    s.loop(0)
    s.until(3600)
    s.loop(25 * 3600)
    assert s.commands[-1].action == "suspend"
    assert s.commands[-1].expires_at is not None


def test_one_flare_up_that_climbs_the_ladder_is_one_block(story: Begin) -> None:
    s = story(permanent_after_blocks=2)
    s.extreme(0)
    s.find(5, "model_shift")
    assert [(command.action, command.expires_at is None) for command in s.commands] == [
        ("throttle", False),
        ("suspend", False),
    ]


def test_a_persons_order_holds_until_a_person_ends_it(story: Begin) -> None:
    s = story()
    [command] = s.order(0, "suspend")
    assert (command.manual, command.expires_at) == (True, None)
    assert command.reason == "because (ann)"
    s.until(3 * 86_400)
    assert len(s.commands) == 1
    s.order(3 * 86_400 + 1, "restore")
    assert [command.action for command in s.commands] == ["suspend", "restore"]
    assert s.commands[-1].manual


@pytest.mark.parametrize("held", ["suspend", "revoke"])
def test_nothing_automatic_lowers_a_persons_order(story: Begin, held: str) -> None:
    s = story()
    s.order(0, held)
    for n in range(1, 40):
        s.extreme(n * 60.0)
        s.loop(n * 60.0 + 1)
        s.denied(n * 60.0 + 2)
    s.until(2 * 86_400)
    on_identity = [command for command in s.commands if command.scope == "identity"]
    assert [command.action for command in on_identity] == [held]


def test_a_persons_throttle_may_be_tightened_and_does_not_end_by_itself(story: Begin) -> None:
    s = story()
    s.order(0, "throttle")
    s.find(1, "spike")
    s.find(2, "model_shift")
    s.until(2 * 86_400)
    on_identity = [command for command in s.commands if command.scope == "identity"]
    assert [(command.action, command.expires_at) for command in on_identity] == [("throttle", None), ("suspend", None)]


def test_a_persons_order_overrides_an_automatic_block(story: Begin) -> None:
    s = story()
    s.loop(0)
    s.order(10, "restore")
    assert s.brief[1:] == [("restore", "identity", "key_1"), ("restore", "session", "s1")]
    s.until(3 * 3600)
    assert len(s.commands) == 3


def test_restoring_what_is_not_blocked_is_said_all_the_same(story: Begin) -> None:
    """A gateway may hold what we no longer know of."""
    s = story()
    s.order(0, "restore")
    assert s.brief == [("restore", "identity", "key_1")]


def test_an_order_carried_out_twice_has_the_same_ids(story: Begin) -> None:
    a, b = story(), story()
    a.order(0, "suspend")
    b.extreme(-10, identity="key_2")
    b.order(0, "suspend")
    assert a.commands[0].command_id == b.commands[-1].command_id


def test_an_incident_is_opened_updated_and_closed(story: Begin, config: Config) -> None:
    s = story()
    [opened] = s.find(0, "spike", "medium")
    assert (opened.state, opened.closed, opened.opened) == ("open", None, "2026-03-02T00:00:00.000Z")
    assert opened.incident_id.startswith("inc-")
    s.find(60, "spike", "high")
    assert s.incident.severity == "high"
    assert s.incident.updated == "2026-03-02T00:01:00.000Z"
    assert len(s.incident.finding_ids) == 2
    s.until(60 + config.risk.quiet_minutes * 60 + 20)
    assert s.incident.state == "closed"
    assert seconds(s.incident.closed) - 60 - config.risk.quiet_minutes * 60 <= 20
    assert s.incident.opened == opened.opened


def test_an_incidents_updates_never_go_back(story: Begin) -> None:
    """Another partition's clock may run ahead of a finding's: an archive that keeps the newest state keeps the last."""
    it = story()
    it.find(0, "loop", identity="key_2")
    it.until(60)
    it.extreme(30)
    it.find(40, "spike", "medium")
    it.until(90_000)
    states = [o for o in it.outcomes if isinstance(o, Incident) and o.identity == "key_1"]
    assert [state.state for state in states][-1] == "closed"
    assert len(states[-1].finding_ids) == 2
    updates = [state.updated for state in states]
    assert updates == sorted(updates)


def test_a_case_opens_again_as_another_incident(story: Begin) -> None:
    s = story()
    s.find(0, "spike")
    s.until(2 * 3600)
    s.find(2 * 3600 + 10, "spike")
    states = [(incident.state, len(incident.finding_ids)) for incident in s.incidents.values()]
    assert states == [("closed", 1), ("open", 1)]


def test_a_small_thing_hours_after_an_incident_is_no_incident(story: Begin, config: Config) -> None:
    """What was dealt with is not told again because of a network at home; a second theft is."""
    s = story()
    s.find(0, "geo_shift", "high")
    s.find(60, "shared_credential", "high")
    assert s.incident.response == "suspend"
    # The thief goes on while the gateways do not obey yet.
    s.find(120, "geo_shift", "high")
    s.until(2 * 3600)
    assert s.incident.state == "closed"
    for hour in (3, 9, 20):
        s.find(hour * 3600, "geo_shift", "low")
    assert len(s.incidents) == 1
    s.find(21 * 3600, "geo_shift", "medium")
    assert [i.state for i in s.incidents.values()] == ["closed", "open"]


def test_an_incident_begins_with_what_was_found_together(story: Begin, config: Config) -> None:
    s = story()
    s.find(0, "geo_shift", "low")
    later = 3600 + config.response.together_minutes * 60
    s.find(3600, "model_shift", "low")
    s.find(later, "spike", "medium")
    assert s.incident.kinds == ["spike", "model_shift"]


def test_small_things_together_begin_an_incident_though_each_was_graver_once(story: Begin, config: Config) -> None:
    s = story()
    apart = config.response.together_minutes * 60 + 60
    kinds = ("geo_shift", "model_shift", "dormant")
    for k, kind in enumerate(kinds):
        s.find(k * apart, kind, "low", score=0.9)
    assert not s.incidents
    for k, kind in enumerate(kinds):
        s.find((3 + k / 100) * apart, kind, "low", score=0.1)
    assert set(s.incident.kinds) == set(kinds)


def test_an_incident_stays_open_while_a_block_is_renewed(story: Begin, config: Config) -> None:
    s = story()
    s.loop(0)
    for at in range(30, int(3 * config.risk.quiet_minutes * 60), 30):
        s.until(at)
        s.denied(at)
    assert s.incident.state == "open"
    assert set(s.incident.command_ids) == {command.command_id for command in s.commands}


def test_what_flares_up_again_is_raised_again(story: Begin, config: Config) -> None:
    s = story()
    s.find(0, "spike", "medium")
    s.find(60, "spike", "critical")
    assert s.incident.raised == []
    later = 60 + config.risk.raise_again_minutes * 60 + 1
    s.find(later, "loop", "critical")
    assert [seconds(time) for time in s.incident.raised] == [later]


def test_the_strongest_kind_comes_first_and_is_the_headline(story: Begin) -> None:
    s = story()
    s.find(0, "spike", "medium")
    s.find(1, "geo_shift", "high")
    assert s.incident.kinds == ["geo_shift", "spike"]
    assert s.incident.headline == "geo_shift of key_1"
    s.loop(2, severity="high")
    assert s.incident.kinds[0] == "loop"


def test_an_incidents_risk_is_its_risk_now(story: Begin, config: Config) -> None:
    s = story()
    s.find(0, "spike", "high")
    assert s.incident.risk == config.risk.points["high"]


def test_a_finding_list_is_bounded(story: Begin) -> None:
    s = story()
    for n in range(300):
        s.find(n * 60.0, "spike", "medium")
    assert len(s.incident.finding_ids) == 100
    assert s.incident.finding_ids[-1].endswith("17940.0")


def test_the_clock_never_goes_back(story: Begin) -> None:
    s = story()
    s.extreme(100)
    s.extreme(50, identity="key_2")
    assert [seconds(command.time) for command in s.commands] == [100, 100]


def test_two_deciders_told_the_same_decide_the_same(story: Begin) -> None:
    def tell(s: Any) -> Any:
        for n in range(50):
            s.find(n * 40.0, ("spike", "geo_shift", "loop")[n % 3], identity=f"key_{n % 4}")
            s.denied(n * 40.0 + 1, f"key_{n % 4}")
        s.until(4 * 3600)
        return s.outcomes

    assert tell(story()) == tell(story())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["spike", "extreme", "loop", "geo_shift", "model_shift", "denied", "wait", "order"]),
        st.sampled_from([0.0, 1.0, 45.0, 400.0, 1000.0, 4000.0, 30_000.0]),
        st.integers(0, 2),
        st.sampled_from(["throttle", "suspend", "revoke", "restore"]),
    ),
    min_size=1,
    max_size=40,
)


def play(s: Any, steps: list[tuple[str, float, int, str]], *, orders: bool) -> float:
    at = 0.0
    for what, gap, who, action in steps:
        at += gap
        name = f"key_{who}"
        if what == "wait":
            s.until(at)
        elif what != "order":
            s.tell(at, what, name, f"s{who}{gap}")
        elif orders:
            s.order(at, action, name)
    return at


def keyed(commands: list[Command]) -> dict[tuple[str, str, str], list[Command]]:
    out = defaultdict(list)
    for command in commands:
        out[command.tenant, command.scope, command.subject].append(command)
    return out


@given(steps=STEPS)
def test_no_block_that_ends_is_left_behind(story: Begin, steps: list[tuple[str, float, int, str]]) -> None:
    """Whatever came between: once the clock has moved on, each block that was to end has been ended by a command."""
    s = story()
    end = play(s, steps, orders=True)
    s.until(end + 4 * 3600)
    for commands in keyed(s.commands).values():
        last = commands[-1]
        assert last.action == "restore" or last.expires_at is None
    assert s.decider.due is None
    assert {incident.state for incident in s.incidents.values()} <= {"closed"}


@given(steps=STEPS)
def test_epochs_grow_and_ids_differ(story: Begin, steps: list[tuple[str, float, int, str]]) -> None:
    s = story()
    s.until(play(s, steps, orders=True) + 3600)
    for commands in keyed(s.commands).values():
        epochs = [command.epoch for command in commands]
        assert all(later > earlier for earlier, later in pairwise(epochs))
        assert all(command.epoch >= parse_millis(command.time) for command in commands)
    ids = [command.command_id for command in s.commands]
    assert len(set(ids)) == len(ids)


@given(steps=STEPS)
def test_one_incident_is_open_per_identity(story: Begin, steps: list[tuple[str, float, int, str]]) -> None:
    s = story()
    s.until(play(s, steps, orders=True) + 600)
    now_open: dict[str, str] = {}
    for outcome in s.outcomes:
        if isinstance(outcome, Incident):
            assert outcome.identity is not None
            held = now_open.setdefault(outcome.identity, outcome.incident_id)
            assert held == outcome.incident_id
            if outcome.state == "closed":
                del now_open[outcome.identity]
    for incident in s.incidents.values():
        assert incident.opened <= incident.updated
        assert len(set(incident.command_ids)) == len(incident.command_ids)


@given(steps=STEPS)
def test_without_people_nothing_is_weakened_but_by_its_end(
    story: Begin, steps: list[tuple[str, float, int, str]]
) -> None:
    s = story()
    s.until(play(s, steps, orders=False) + 3600)
    for commands in keyed(s.commands).values():
        for before, after in pairwise(commands):
            if after.action == "restore":
                assert before.expires_at is not None
                assert after.time >= before.expires_at
            else:
                assert STRICTNESS[after.action] >= STRICTNESS[before.action]


@given(steps=STEPS, cut=st.integers(0, 40))
def test_what_was_decided_does_not_depend_on_what_comes(
    story: Begin, steps: list[tuple[str, float, int, str]], cut: int
) -> None:
    whole, part = story(), story()
    play(whole, steps, orders=True)
    play(part, steps[:cut], orders=True)
    assert whole.outcomes[: len(part.outcomes)] == part.outcomes


def test_what_only_reminds_opens_no_incident(story: Begin, config: Config) -> None:
    """Though what it reminds of is still held; it counts beside what is found next."""
    s = story()
    s.find(0, "geo_shift", "high", credential_id="cred")
    quiet = config.risk.quiet_minutes * 60 + 60
    s.until(quiet)
    s.find(quiet, "geo_shift", "info", credential_id="cred")
    assert [incident.state for incident in s.incidents.values()] == ["closed"]
    s.find(quiet + 60, "spike", "medium", credential_id="cred")
    assert s.brief == [("revoke", "credential", "cred")]

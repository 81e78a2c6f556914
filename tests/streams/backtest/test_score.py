"""The measures on cases that can be worked out by hand. Each attack here lasts from 1,000 s to 2,000 s."""

from typing import Any

import pytest

from hand_made import command, finding, incident, label, scored

ATTACK = label(1000, 2000)


def test_an_attack_that_nobody_answers() -> None:
    s = scored([ATTACK], [1100, 1200]).score
    assert (s.attacks, s.seen, s.named, s.contained, s.cost_lost_share) == (1, 0.0, 0.0, 0.0, 1.0)
    assert (s.median_seconds_to_detect, s.median_seconds_to_contain, s.median_minutes_blocked_after) == (None,) * 3
    assert (s.events, s.identity_days) == (2 + 3 * 48 + 1, 6.0)


def test_an_attack_that_is_stopped_halfway() -> None:
    s = scored([ATTACK], [1100, 1200, 1600, 1700], incidents=[incident(1030)], commands=[command(1500)]).score
    assert (s.seen, s.named, s.contained, s.cost_lost_share) == (1.0, 1.0, 1.0, 0.5)
    assert (s.median_seconds_to_detect, s.median_seconds_to_contain) == (30.0, 500.0)
    assert (s.false_alarms, s.false_blocks) == (0, 0)


@pytest.mark.parametrize(("opened", "seen"), [(999.9, 0.0), (1000, 1.0), (2120, 1.0), (2120.1, 0.0)])
def test_seen_from_its_start_to_two_minutes_after_its_end(opened: float, seen: float) -> None:
    assert scored([ATTACK], incidents=[incident(opened)]).score.seen == seen


def test_an_incident_that_is_raised_again_sees_too() -> None:
    early = incident(100, raised=["2026-03-02T00:20:00.000Z"])
    s = scored([ATTACK], incidents=[early]).score
    assert (s.seen, s.median_seconds_to_detect, s.false_alarms) == (1.0, 200.0, 1)


def test_named_by_the_strongest_kind_alone() -> None:
    assert scored([ATTACK], incidents=[incident(1030, kinds=["loop", "spike"])]).score.named == 0.0
    both = [incident(1030, kinds=["loop"]), incident(1900, kinds=["geo_shift"])]
    assert scored([ATTACK], incidents=both).score.named == 1.0


def test_an_attack_that_could_be_seen_before_it_began_is_detected_at_once() -> None:
    early = label(1000, 2000, since="2026-03-02T00:10:00Z")
    s = scored([early], incidents=[incident(650)]).score
    assert (s.seen, s.median_seconds_to_detect, s.false_alarms) == (1.0, 0.0, 0)


@pytest.mark.parametrize(
    ("asked", "given", "contained", "lost"),
    [
        ("revoke", "throttle", 0.0, 0.75),
        ("suspend", "suspend", 1.0, 0.5),
        ("throttle", "throttle", 1.0, 0.5),
        ("throttle", "revoke", 1.0, 0.5),
    ],
)
def test_a_throttle_contains_what_asks_for_no_more(asked: str, given: str, contained: float, lost: float) -> None:
    s = scored([label(1000, 2000, response=asked)], [1100, 1700], commands=[command(1500, given)]).score
    assert (s.contained, s.cost_lost_share) == (contained, lost)


def test_what_asks_for_an_alert_is_neither_contained_nor_costs() -> None:
    s = scored([label(1000, 2000, response="alert")], [1100], incidents=[incident(1030)]).score
    assert (s.seen, s.contained, s.cost_lost_share) == (1.0, None, None)


def test_a_block_holds_until_it_expires_is_renewed_or_restored() -> None:
    expires = [command(1100, "suspend", 1300)]
    assert scored([ATTACK], [1050, 1200, 1300, 1301], commands=expires).score.cost_lost_share == 0.5
    renewed = [*expires, command(1300, "suspend", 1900)]
    assert scored([ATTACK], [1050, 1200, 1300, 1301], commands=renewed).score.cost_lost_share == 0.25
    restored = [command(1100), command(1250, "restore")]
    assert scored([ATTACK], [1050, 1200, 1300, 1301], commands=restored).score.cost_lost_share == 0.75
    whole = [command(1100, scope="session", subject="s"), command(1250, "restore", subject="")]
    assert scored([ATTACK], [1050, 1200, 1300, 1301], commands=whole).score.cost_lost_share == 0.75


def test_minutes_blocked_after_the_end_but_for_revocations() -> None:
    blocks = [command(1100, "suspend", 2600)]
    assert scored([label(1000, 2000, response="suspend")], commands=blocks).score.median_minutes_blocked_after == 10.0
    assert scored([ATTACK], commands=blocks).score.median_minutes_blocked_after is None


def test_shadow_commands_count_for_nothing() -> None:
    s = scored([ATTACK], [1700], commands=[command(1500, mode="shadow"), command(9000, mode="shadow")]).score
    assert (s.contained, s.false_blocks) == (0.0, 0)


@pytest.mark.parametrize(("response", "alarms"), [("none", 1), ("alert_ok", 0), ("alert", 0)])
def test_an_alarm_on_a_look_alike_is_false_where_not_even_an_alert_is_tolerable(response: str, alarms: int) -> None:
    assert scored([label(1000, 2000, response=response)], incidents=[incident(1500)]).score.false_alarms == alarms


@pytest.mark.parametrize(("opened", "alarms"), [(998.9, 1), (999, 0), (5600, 0), (5601, 1)])
def test_an_alarm_is_false_an_hour_after_a_label_s_end(opened: float, alarms: int) -> None:
    s = scored([ATTACK], incidents=[incident(opened)]).score
    assert s.false_alarms == alarms
    assert s.false_alarms_per_1000_identity_days == pytest.approx(alarms * 1000 / 6, abs=0.01)


def test_each_time_an_incident_is_raised_is_an_alarm() -> None:
    again = incident(9000, raised=["2026-03-02T05:00:00.000Z", "2026-03-02T06:00:00.000Z"])
    assert scored([ATTACK], incidents=[again]).score.false_alarms == 3


@pytest.mark.parametrize(("time", "blocks"), [(998.9, 1), (2600, 0), (2601, 1)])
def test_a_block_is_false_ten_minutes_after_an_attack(time: float, blocks: int) -> None:
    s = scored([ATTACK], commands=[command(time)]).score
    assert s.false_blocks == blocks
    assert s.false_blocks_per_10000_identity_days == pytest.approx(blocks * 10_000 / 6, abs=0.01)


def test_renewals_within_an_hour_are_one_false_block() -> None:
    many = [command(9000 + 900 * n, "throttle", 9900 + 900 * n) for n in range(6)]
    assert scored([ATTACK], commands=many).score.false_blocks == 2


@pytest.mark.parametrize("response", ["none", "alert_ok"])
def test_a_block_on_a_look_alike_is_false_and_named(response: str) -> None:
    s = scored([label(1000, 2000, response=response, attack="launch")], commands=[command(1500)]).score
    assert (s.false_blocks, s.blocked_look_alikes) == (1, {"launch": 1})


def test_what_is_about_a_tenant_answers_attacks_that_accept_it() -> None:
    whole = {"incidents": [incident(1030, None)], "commands": [command(1100, identity=None, scope="tenant")]}
    s = scored([ATTACK], [1200], **whole).score
    assert (s.seen, s.contained, s.false_alarms, s.false_blocks) == (0.0, 0.0, 0, 1)
    s = scored([label(1000, 2000, accept=["tenant_spike", "spike"])], [1200], **whole).score
    assert (s.seen, s.contained, s.false_blocks, s.cost_lost_share) == (1.0, 1.0, 0, 0.0)
    s = scored([label(1000, 2000, identity="key_other")], **whole).score
    assert (s.false_alarms, s.false_blocks) == (1, 1)


def test_the_labels_of_a_group_are_one_attack() -> None:
    fan = [label(1000, 2000, group="g"), label(1200, 2000, identity="key_2", group="g")]
    s = scored(fan, [1100], incidents=[incident(1300, "key_2")], commands=[command(1400, identity="key_2")]).score
    assert (s.attacks, s.seen, s.contained, s.median_seconds_to_detect) == (1, 1.0, 1.0, 300.0)
    assert s.cost_lost_share == 1.0
    assert scored([label(1000, 2000), label(1200, 2000, identity="key_2")]).score.attacks == 2


def test_by_attack() -> None:
    labels: list[Any] = [ATTACK, label(1000, 2000, identity="key_2"), label(5000, 6000, attack="loop")]
    by = scored(labels, incidents=[incident(1010), incident(5020, kinds=["loop"])]).by_attack
    assert (by["theft"].attacks, by["theft"].seen, by["theft"].median_seconds_to_detect) == (2, 0.5, 10.0)
    assert (by["loop"].attacks, by["loop"].seen, by["loop"].named) == (1, 1.0, 0.0)


def test_by_kind_of_finding() -> None:
    labels = [ATTACK, label(20_000, 21_000, identity="key_2", response="alert_ok")]
    found = [finding(1004, "geo_shift"), finding(1008), finding(1500), finding(900, "loop")]
    heard = [incident(1010, kinds=["spike", "geo_shift"]), incident(20_500, "key_2"), incident(30_000, "key_3")]
    by = scored(labels, findings=found, incidents=heard).by_kind
    assert by.keys() == {"spike", "geo_shift"}
    spike, place = by["spike"], by["geo_shift"]
    assert (spike.alarms, spike.right, spike.false, spike.precision) == (3, 1, 1, 0.5)
    assert (spike.attacks_told, spike.median_seconds_to_detect) == (1, 8.0)
    assert (place.alarms, place.right, place.false, place.precision) == (1, 1, 0, 1.0)
    assert place.median_seconds_to_detect == 4.0

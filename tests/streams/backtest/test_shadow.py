"""What would have been cut off, on cases that can be worked out by hand."""

from typing import Any

from hand_made import DAY, calls, command, incident
from schemas.command import Limits
from streams.backtest.shadow import Shadow, shadow

BEGUN = 50_000
EVERY_SECOND = tuple(BEGUN + n for n in range(100))
HOURLY_LATER = 35
"""Calls of key_1 that cost nothing, until the file ends."""
INCIDENT = incident(BEGUN, incident_id="inc-1", headline="48 times its usual rate")


def said(*commands: Any, times: Any = EVERY_SECOND, **data: Any) -> Shadow:
    return shadow(calls(*times, **data), [INCIDENT], commands)


def test_a_suspension_denies_what_comes_while_it_holds() -> None:
    answer = said(command(BEGUN + 9, "suspend", BEGUN + 69))
    [cut] = answer.cuts
    assert (cut.tenant, cut.identity, cut.why, cut.actions) == ("acme", "key_1", "48 times its usual rate", ["suspend"])
    assert (cut.calls_denied, cut.usd_saved, cut.usd_total, cut.minutes) == (60, 60.0, 100.0, 1.0)
    assert (answer.identities, answer.cut_off, answer.cut_off_share, answer.alerted) == (3, 1, 0.333333, 1)
    assert (answer.usd_saved, answer.usd_total, answer.calls_denied) == (60.0, 100.0, 60)
    [tenant] = answer.tenants
    assert (tenant.tenant, tenant.identities, tenant.cut_off, tenant.cuts) == ("acme", 3, 1, 1)
    assert (tenant.calls_denied, tenant.usd_saved, tenant.usd_total) == (60, 60.0, 100.0)


def test_renewals_and_harder_blocks_of_an_incident_are_one_cut() -> None:
    answer = said(
        command(BEGUN + 9, "suspend", BEGUN + 29),
        command(BEGUN + 29, "suspend", BEGUN + 49),
        command(BEGUN + 39, scope="credential", subject="cred_key_1"),
    )
    [cut] = answer.cuts
    assert cut.actions == ["suspend", "revoke"]
    assert (cut.calls_denied, cut.usd_saved, cut.until) == (90 + HOURLY_LATER, 90.0, None)
    assert cut.minutes == round((2 * DAY - BEGUN - 9) / 60, 1)


def test_a_restore_ends_it() -> None:
    answer = said(command(BEGUN + 9), command(BEGUN + 19, "restore"))
    assert (answer.cuts[0].calls_denied, answer.cuts[0].until) == (10, "2026-03-02T13:53:39.000Z")


def test_a_narrower_block_denies_its_own_alone() -> None:
    block = command(BEGUN - 1, scope="session", subject="s-1")
    assert said(block, session_id="s-1").calls_denied == 100
    assert said(block, session_id="s-2").calls_denied == 0
    assert said(command(BEGUN - 1, scope="credential", subject="cred_x"), credential_id="cred_x").calls_denied == 100
    assert said(command(BEGUN - 1, scope="end_user", subject="u"), end_user="u").calls_denied == 100


def test_a_throttle_denies_what_is_beyond_its_rate() -> None:
    """12 calls a minute: two at once, then one each five seconds."""
    answer = said(command(BEGUN - 1, "throttle", BEGUN + 900, limits=Limits(rpm=12)))
    assert answer.calls_denied == 100 - 2 - 19
    assert said(command(BEGUN - 1, "throttle", BEGUN + 900, limits=Limits(rpm=60))).calls_denied == 0
    assert said(command(BEGUN - 1, "downgrade", BEGUN + 900)).calls_denied == 0


def test_what_two_incidents_deny_is_saved_once() -> None:
    answer = said(
        command(BEGUN - 1), command(BEGUN + 49, incident_id="inc-2", scope="credential", subject="cred_key_1")
    )
    assert [cut.calls_denied for cut in answer.cuts] == [100 + HOURLY_LATER, 0]
    assert answer.usd_saved == 100.0


def test_shadow_commands_are_what_it_is_about() -> None:
    assert said(command(BEGUN - 1, mode="shadow")).usd_saved == 100.0


def test_a_whole_tenant() -> None:
    answer = said(command(BEGUN - 1, "suspend", BEGUN + 200, identity=None, scope="tenant", subject="acme"))
    assert (answer.cut_off, answer.cuts[0].identity, answer.cuts[0].calls_denied) == (3, None, 100)


def test_nobody_is_cut_off() -> None:
    answer = said()
    assert (answer.cuts, answer.cut_off, answer.usd_saved, answer.usd_total) == ([], 0, 0.0, 100.0)


def test_most_money_first() -> None:
    answer = said(
        command(BEGUN + 89, "suspend", BEGUN + 200, incident_id="inc-late"),
        command(BEGUN - 1, "suspend", BEGUN + 49, incident_id="inc-soon", scope="session", subject="s"),
        session_id="s",
    )
    assert [(cut.incident_id, cut.usd_saved) for cut in answer.cuts] == [("inc-soon", 50.0), ("inc-late", 10.0)]
    assert answer.cuts[0].why == "because"

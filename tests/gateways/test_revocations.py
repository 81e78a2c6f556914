from dataclasses import replace
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripswitch_gateway import ALLOWED, Command, Limits, Outcome, RevocationTable, record_key
from tripswitch_gateway.commands import ACTIONS, SCOPES

LIMITS = {"throttle": Limits(rpm=60), "downgrade": Limits(model="small")}


def command(
    action: str = "suspend",
    scope: str = "identity",
    subject: str = "k1",
    epoch: int = 1,
    command_id: str = "",
    **more: object,
) -> Command:
    made = Command(
        key=record_key("acme", scope, subject),
        command_id=command_id or f"{action}-{scope}-{subject}-{epoch}",
        incident_id="inc-1",
        action=action,
        scope=scope,
        tenant="acme",
        identity=None if scope == "tenant" else "k1",
        subject=subject,
        epoch=epoch,
        not_before=0,
        expires_at=None,
        on_expiry="restore",
        limits=LIMITS.get(action),
    )
    return replace(made, **more)


def table_of(*commands: Command) -> RevocationTable:
    table = RevocationTable()
    for one in commands:
        table.apply(one, 0)
    return table


def test_nothing_blocks_nobody() -> None:
    assert RevocationTable().check("k1", "c1", "s1", "acme", "u1") is ALLOWED


def test_a_block_is_of_its_tenant_only() -> None:
    table = table_of(command())
    assert table.check("k1", tenant="acme").status == 403
    assert table.check("k1", tenant="globex") is ALLOWED
    assert table.check("k1") is ALLOWED
    assert table.check("k2", tenant="acme") is ALLOWED


def test_no_tenant_is_the_tenant_named_dash() -> None:
    table = table_of(command(tenant="-", key=record_key("-", "identity", "k1")))
    assert not table.check("k1").allowed


@pytest.mark.parametrize(
    ("scope", "subject"),
    [("identity", "k1"), ("credential", "c1"), ("session", "s1"), ("end_user", "u1"), ("tenant", "acme")],
)
def test_each_scope(scope: str, subject: str) -> None:
    table = table_of(command(scope=scope, subject=subject))
    assert not table.check("k1", "c1", "s1", "acme", "u1").allowed
    assert table.check("k1", "c1", "s1", "acme", "u1").command == command(scope=scope, subject=subject)
    assert table.check("k2", "c2", "s2", "acme", "u2").allowed == (scope != "tenant")


def test_a_session_of_the_same_name_elsewhere_goes_on() -> None:
    table = table_of(command(scope="session", subject="default"))
    assert not table.check("k1", session="default", tenant="acme").allowed
    assert table.check("k2", session="default", tenant="acme").allowed


def test_a_denial_is_made_once_and_follows_what_changes() -> None:
    table = table_of(command(expires_at=1000))
    denial = table.check("k1", tenant="acme", now_ms=999)
    assert denial == (False, 403, command(expires_at=1000), None, None, (command(expires_at=1000),), "")
    assert table.check("k1", tenant="acme", now_ms=999) is denial
    assert table.check("k1", tenant="acme", now_ms=1000) is ALLOWED
    # A clock that was ahead is set back.
    assert table.check("k1", tenant="acme", now_ms=999) is denial
    table.apply(command("revoke", epoch=2, http_status=451), 999)
    assert table.check("k1", tenant="acme", now_ms=1000).status == 451
    table.apply(command("throttle", epoch=3), 1000)
    assert table.check("k1", tenant="acme", now_ms=1000).allowed


def test_other_scopes_are_looked_at_once_one_of_them_is_blocked() -> None:
    table = table_of(command(), command("revoke", "credential", "c1"), command("throttle", "tenant", "acme"))
    both = table.check("k1", "c1", tenant="acme")
    assert [one.scope for one in both.matches] == ["credential", "identity", "tenant"]
    for scope, subject in (("credential", "c1"), ("tenant", "acme")):
        table.apply(command("restore", scope, subject, epoch=2), 0)
    assert [one.scope for one in table.check("k1", "c1", tenant="acme").matches] == ["identity"]
    table.apply(command("restore", epoch=2), 0)
    assert table.check("k1", "c1", tenant="acme") is ALLOWED


def test_greater_epoch_wins_in_any_order() -> None:
    older, newer = command("revoke", epoch=1), command("suspend", epoch=2)
    table = RevocationTable()
    assert table.apply(newer, 0) is Outcome.APPLIED
    assert table.apply(older, 0) is Outcome.SUPERSEDED
    assert table.apply(newer, 0) is Outcome.DUPLICATE
    assert table.commands() == {newer.key: newer}
    assert table.conflicts == 0


@pytest.mark.parametrize("first", ACTIONS)
@pytest.mark.parametrize("second", ACTIONS)
def test_two_writers_of_one_epoch(first: str, second: str) -> None:
    table = table_of(command(first, command_id="a"), command(second, command_id="b"))
    assert table.conflicts == 1
    held = table.commands()[command().key]
    assert held.strictness == max(ACTIONS.index(first), ACTIONS.index(second))


def test_of_two_throttles_of_one_epoch_the_slower_holds() -> None:
    slow, fast = command("throttle", limits=Limits(rpm=1)), command("throttle", command_id="z", limits=Limits(rpm=9))
    assert table_of(slow, fast).commands() == table_of(fast, slow).commands() == {slow.key: slow}


def test_restore_clears_its_own_key_only() -> None:
    table = table_of(command(), command("revoke", "credential", "c1"), command("restore", epoch=2))
    assert table.check("k1", "c2", tenant="acme").allowed
    left = table.check("k1", "c1", tenant="acme")
    assert left.command is not None
    assert left.command.scope == "credential"


def test_a_restored_key_is_not_blocked_by_what_came_before() -> None:
    table = table_of(command("restore", epoch=5), command("revoke", epoch=4))
    assert table.check("k1", tenant="acme") is ALLOWED


def test_expiry() -> None:
    table = RevocationTable()
    assert table.apply(command(expires_at=1000), 0) is Outcome.APPLIED
    assert not table.check("k1", tenant="acme", now_ms=999).allowed
    assert table.check("k1", tenant="acme", now_ms=1000).allowed
    assert len(table.live(999)) == 1
    assert table.live(1000) == []


def test_expiry_that_holds() -> None:
    table = table_of(command("revoke", expires_at=1000, on_expiry="hold"))
    assert not table.check("k1", tenant="acme", now_ms=10**15).allowed


def test_a_command_that_comes_expired_still_fences() -> None:
    table = RevocationTable()
    assert table.apply(command(epoch=2, expires_at=10), 1000) is Outcome.EXPIRED
    assert table.apply(command("revoke", epoch=1), 1000) is Outcome.SUPERSEDED
    assert table.check("k1", tenant="acme", now_ms=1000).allowed


def test_the_strictest_over_all_scopes() -> None:
    scopes = [("tenant", "acme"), ("session", "s1"), ("identity", "k1"), ("credential", "c1")]
    made = [command(action, *scope) for action, scope in zip(ACTIONS[1:], scopes, strict=True)]
    decision = table_of(*made).check("k1", "c1", "s1", "acme", "u1", now_ms=0)
    assert [match.action for match in decision.matches] == ["revoke", "suspend", "downgrade", "throttle"]
    assert decision.command == decision.matches[0]


def test_an_expired_stricter_one_does_not_hide_a_live_one() -> None:
    table = table_of(command("revoke", expires_at=10), command("suspend", "tenant", "acme", http_status=451))
    decision = table.check("k1", tenant="acme", now_ms=10)
    assert (decision.allowed, decision.status) == (False, 451)


def test_downgrade_names_the_model() -> None:
    decision = table_of(command("downgrade")).check("k1", tenant="acme", now_ms=0)
    assert (decision.allowed, decision.status, decision.model) == (True, 200, "small")


def test_throttle_lets_the_rate_through() -> None:
    table = table_of(command("throttle"))
    decisions = [table.check("k1", tenant="acme", now_ms=0) for _ in range(11)]
    assert [decision.allowed for decision in decisions] == [True] * 10 + [False]
    assert (decisions[-1].status, decisions[-1].retry_after_s) == (429, 1.0)
    assert table.check("k1", tenant="acme", now_ms=1000).allowed


def test_a_renewed_throttle_is_no_fresh_allowance() -> None:
    table = table_of(command("throttle"))
    for _ in range(10):
        table.check("k1", tenant="acme", now_ms=0)
    table.apply(command("throttle", epoch=2), 0)
    assert not table.check("k1", tenant="acme", now_ms=0).allowed


def test_a_restored_throttle_is_forgotten() -> None:
    table = table_of(command("throttle", limits=Limits(rpm=0)), command("restore", epoch=2))
    assert table.check("k1", tenant="acme", now_ms=0) is ALLOWED


def test_a_downgrade_does_not_lift_the_tenants_throttle() -> None:
    table = table_of(command("downgrade"), command("throttle", "tenant", "acme", limits=Limits(rpm=0)))
    decision = table.check("k1", tenant="acme", now_ms=0)
    assert decision.status == 429
    assert decision.command is not None
    assert decision.command.scope == "tenant"


def test_a_call_over_one_rate_is_not_counted_against_the_other() -> None:
    table = table_of(command("throttle"), command("throttle", "tenant", "acme", limits=Limits(rpm=0)))
    for _ in range(50):
        assert not table.check("k1", tenant="acme", now_ms=0).allowed
    table.apply(command("restore", "tenant", "acme", epoch=2), 0)
    assert table.check("k1", tenant="acme", now_ms=0).allowed


def test_tokens_are_charged_after_the_call() -> None:
    table = table_of(command("throttle", limits=Limits(tpm=6000)))
    decision = table.check("k1", tenant="acme", now_ms=0)
    assert decision.allowed
    table.charge(decision, 2000)
    refused = table.check("k1", tenant="acme", now_ms=0)
    assert refused.status == 429
    assert table.check("k1", tenant="acme", now_ms=int((refused.retry_after_s or 0) * 1000) + 1).allowed


commands = st.builds(
    lambda action, scope, who, epoch, expires_at, hold, rpm, number: command(
        action,
        scope,
        "acme" if scope == "tenant" else who,
        epoch,
        f"cmd-{number}",
        expires_at=expires_at,
        on_expiry="hold" if hold else "restore",
        limits=LIMITS.get(action) if action == "downgrade" else Limits(rpm=rpm),
    ),
    st.sampled_from(ACTIONS),
    st.sampled_from(SCOPES),
    st.sampled_from(["k1", "k2"]),
    st.integers(1, 3),
    st.none() | st.integers(1, 50),
    st.booleans(),
    st.none() | st.integers(0, 2),
    st.integers(0, 10**6),
)


@given(st.lists(commands, max_size=12, unique_by=lambda one: one.command_id), st.data())
def test_any_order_and_any_duplicates_give_the_same_table(sent: list[Command], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(sent), max_size=6)) if sent else []
    shuffled = data.draw(st.permutations(sent + again))
    straight, other = table_of(*sent), table_of(*shuffled)
    assert straight.commands() == other.commands()
    for now in (0, 25, 100):
        assert straight.live(now) == other.live(now)
        one = straight.check("k1", "k2", "k1", "acme", "k2", now)
        two = other.check("k1", "k2", "k1", "acme", "k2", now)
        assert (one.command, one.matches, one.model) == (two.command, two.matches, two.model)


@given(st.lists(commands, max_size=12, unique_by=lambda one: one.command_id), st.integers(0, 60))
def test_check_agrees_with_a_plain_search(sent: list[Command], now: int) -> None:
    table = table_of(*sent)
    caller = {"identity": "k1", "credential": "k2", "session": "k1", "end_user": "k2", "tenant": "acme"}
    expected = [one for one in table.live(now) if caller[one.scope] == one.subject]
    assert list(table.check("k1", "k2", "k1", "acme", "k2", now).matches) == expected


def test_checks_and_commands_in_two_threads() -> None:
    table = RevocationTable()
    done = Event()
    seen: list[Exception] = []

    def check() -> None:
        try:
            while not done.is_set():
                table.check("k1", "c1", "s1", "acme", "u1")
        except Exception as error:  # noqa: BLE001 - whatever it is, the test's own thread must see it
            seen.append(error)

    thread = Thread(target=check)
    thread.start()
    for epoch in range(3000):
        table.apply(command(ACTIONS[epoch % 5], epoch=epoch), 0)
    done.set()
    thread.join()
    assert seen == []

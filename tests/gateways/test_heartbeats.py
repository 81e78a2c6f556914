"""What a gateway reckons to be in force, against the contract's words written out plainly."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripswitch_gateway import Command, Limits, RevocationTable, record_key
from tripswitch_gateway.commands import ACTIONS

Made = tuple[str, str, int, int | None, bool, int]

_made = st.tuples(
    st.sampled_from(["k1", "k2", "k3"]),
    st.sampled_from(ACTIONS),
    st.integers(1, 4),
    st.none() | st.integers(1, 40),
    st.booleans(),
    st.integers(0, 1),
)


def command_of(made: Made, number: int) -> Command:
    subject, action, epoch, expires_at, hold, partition = made
    return Command(
        key=record_key("acme", "identity", subject),
        command_id=f"cmd-{number}",
        incident_id="",
        action=action,
        scope="identity",
        tenant="acme",
        identity=subject,
        subject=subject,
        epoch=epoch,
        not_before=0,
        expires_at=expires_at,
        on_expiry="hold" if hold else "restore",
        limits=Limits(rpm=1, model="small"),
        partition=partition,
    )


def plainly(table: RevocationTable, partition: int, at: int) -> tuple[int, str]:
    in_force = [
        held
        for held in table.commands().values()
        if held.partition == partition
        and held.action != "restore"
        and (held.expires_at is None or held.on_expiry == "hold" or held.expires_at > at)
    ]
    hashes = [hashlib.sha256(f"{held.key}/{held.epoch}".encode()).hexdigest() for held in in_force]
    return len(in_force), f"{sum(int(one, 16) for one in hashes) % 2**256:064x}"


@given(st.lists(st.tuples(_made, st.integers(0, 45)), max_size=20))
def test_number_and_digest_are_the_contracts(steps: list[tuple[Made, int]]) -> None:
    table = RevocationTable()
    for number, (made, at) in enumerate(steps):
        table.apply(command_of(made, number), 0)
        # Forwards and backwards: two writers' clocks differ.
        for partition in (0, 1):
            assert table.tally(partition, at) == plainly(table, partition, at)


@given(st.lists(_made, max_size=12), st.lists(_made, max_size=12), st.integers(0, 45), st.integers(0, 45))
def test_what_is_taken_over_is_what_was_proven(held: list[Made], right: list[Made], before: int, at: int) -> None:
    table, proven = RevocationTable(), RevocationTable()
    for number, made in enumerate(held):
        table.apply(command_of(made, number), 0)
    table.tally(0, before)
    for number, made in enumerate(right):
        proven.apply(command_of((*made[:5], 0), 100 + number), 0)
    new = table.take_over(0, proven, {""}, 0)
    assert table.tally(0, at) == proven.tally(0, at) == plainly(table, 0, at)
    assert table.tally(1, at) == plainly(table, 1, at)
    in_force = [one for one in proven.live(0) if one.partition == 0]
    assert {one.command_id for one in new} <= {one.command_id for one in in_force}
    for one in in_force:
        assert table.check(one.subject, tenant="acme", now_ms=0).command == one


def test_nothing_in_force_is_all_zeros() -> None:
    assert RevocationTable().tally(3, 0) == (0, "0" * 64)


@pytest.mark.parametrize(("kid", "stays"), [("trusted", True), ("removed", False)])
def test_a_fence_stays_unless_its_key_is_out(kid: str, stays: bool) -> None:
    table = RevocationTable()
    fence = replace(command_of(("k1", "restore", 9, None, False, 0), 1), kid=kid)
    table.apply(fence, 0)
    table.take_over(0, RevocationTable(), {"trusted"}, 0)
    assert (fence.key in table.commands()) == stays

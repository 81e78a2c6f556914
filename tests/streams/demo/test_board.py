"""What is measured, from answers and records made by hand."""

import base64
import json

import pytest

from schemas.command import Command, claims
from schemas.finding import Evidence, Finding
from schemas.times import format_millis
from streams.demo.board import Answer, Board, Denial, Order, Suspect
from streams.demo.story import ATTACKS
from streams.demo.watch import order_of

THEFT = next(attack for attack in ATTACKS if attack.name == "theft")
T = 1_800_000_000.0
REFUSED = Denial(403, "revoke", "why", "inc-1", "cmd-1")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def board(told: list[str]) -> Board:
    suspects = [Suspect(attack, "acme", 3, 1000) for attack in ATTACKS]
    return Board(suspects, lambda text, style: told.append(text))


def _finding(name: str, at: float, reason: str = "else") -> Finding:
    evidence = Evidence(partition=0, offsets=(0, 1), policy="p", detector_version=1, state_digest="d")
    return Finding(
        name, format_millis(int(at * 1000)), "acme", THEFT.identity, "spike", "high", 0.5, "spike@1", "1m", 2.0, 1.0,
        reason, evidence,
    )  # fmt: skip


def _order(decided: float, *findings: str) -> Order:
    return Order(
        "cmd-1", THEFT.identity, "revoke", "credential", "c1", "why", manual=False, decided=int(decided * 1000),
        finding_ids=findings,
    )  # fmt: skip


def test_a_suspect_goes_from_quiet_to_restored(board: Board) -> None:
    suspect = board.suspects["theft"]
    assert suspect.state == "quiet"
    board.call(THEFT.identity, None, Answer(T - 9, T - 9, 200, 5, 0.1))
    assert suspect.state == "quiet"
    board.call(THEFT.identity, "theft", Answer(T, T + 0.1, 200, 100, 0.5))
    assert suspect.state == "attacking"
    board.found(_finding("f-1", T + 1))
    assert suspect.state == "found"
    board.call(THEFT.identity, "theft", Answer(T + 3, T + 3.5, 403, denial=REFUSED))
    assert suspect.state == "denied"
    assert board.missed == ["spike", "loop"]
    suspect.restored_at = T + 9
    assert suspect.state == "restored"


def test_a_restored_identity_that_is_denied_again_is_not_restored(board: Board, told: list[str]) -> None:
    suspect = board.suspects["theft"]
    board.call(THEFT.identity, "theft", Answer(T, T, 403, denial=REFUSED))
    suspect.restored_at = T + 1
    board.call(THEFT.identity, None, Answer(T + 2, T + 2, 403, denial=REFUSED))
    assert suspect.restored_at is None
    assert told[-1].startswith("denied again")


def test_seconds_count_from_the_first_bad_call_and_from_the_finding_that_the_block_hangs_on(board: Board) -> None:
    suspect = board.suspects["theft"]
    board.call(THEFT.identity, "theft", Answer(T, T + 0.1, 200))
    for finding in (
        _finding("early", T + 1),
        _finding("deciding", T + 2),
        _finding("other", T + 2.1),
        _finding("late", T + 5),
    ):
        board.found(finding)
    board.ordered(_order(T + 2.2, "early", "deciding", "late"))
    assert suspect.seconds_from_finding is None
    board.call(THEFT.identity, "theft", Answer(T + 3, T + 3, 403, denial=REFUSED))
    board.call(THEFT.identity, "theft", Answer(T + 4, T + 4, 403, denial=REFUSED))
    assert suspect.finding is not None
    assert suspect.finding.finding_id == "deciding"
    assert suspect.seconds_to_finding == pytest.approx(1.0)
    assert suspect.seconds_to_denial == pytest.approx(3.0)
    assert suspect.seconds_from_finding == pytest.approx(1.0)


def test_a_finding_that_gave_the_command_its_reason_is_named_enough(board: Board) -> None:
    board.found(_finding("f-1", T + 1, reason="why"))
    board.ordered(_order(T + 2))
    board.call(THEFT.identity, "theft", Answer(T, T + 3, 403, denial=REFUSED))
    assert board.suspects["theft"].seconds_from_finding == pytest.approx(2.0)


def test_saved_is_the_denied_calls_at_the_mean_of_the_answered_ones(board: Board) -> None:
    suspect = board.suspects["theft"]
    assert suspect.saved == 0.0
    for usd in (0.2, 0.4):
        board.call(THEFT.identity, "theft", Answer(T, T, 200, 10, usd))
    board.call(THEFT.identity, None, Answer(T, T, 200, 10, 99.0))
    for _ in range(5):
        board.call(THEFT.identity, "theft", Answer(T, T, 403, denial=REFUSED))
    assert suspect.saved == pytest.approx(1.5)
    assert (suspect.answered, suspect.denied, board.denied) == (2, 5, 5)


def test_a_denied_bystander_is_counted_as_one(board: Board) -> None:
    board.call("somebody", None, Answer(T, T, 403, denial=REFUSED))
    board.call(THEFT.identity, None, Answer(T, T, 403, denial=REFUSED))
    assert (board.bystanders_denied, board.denied, board.events) == (1, 2, 2)


def test_rates_are_per_minute_over_ten_seconds(board: Board) -> None:
    suspect = board.suspects["theft"]
    board.call(THEFT.identity, "theft", Answer(T, T, 200, 100, 0.5))
    assert suspect.tokens_per_minute(T + 9.9) == 600
    assert suspect.usd_per_minute(T + 9.9) == pytest.approx(3.0)
    assert suspect.tokens_per_minute(T + 10) == 0


def test_the_same_record_again_changes_nothing(board: Board) -> None:
    for _ in range(2):
        board.found(_finding("f-1", T))
        board.ordered(_order(T))
    assert (len(board.suspects["theft"].findings), len(board.suspects["theft"].orders), len(board.orders)) == (1, 1, 1)


def test_acknowledgements_of_our_commands_say_how_long_they_took(board: Board) -> None:
    board.ordered(_order(T))
    board.acknowledged({"command_uid": "cmd-1", "unmapped": {"propagation_ms": 41}})
    board.acknowledged({"command_uid": "cold-start/1", "unmapped": {"propagation_ms": 9000}})
    assert board.propagation == {"cmd-1": 41.0}


def test_a_commands_token_is_read() -> None:
    command = Command(
        "cmd-1", format_millis(int(T * 1000)), "acme", THEFT.identity, "credential", "c1", "revoke", int(T * 1000),
        None, "enforce", "why", "inc-1", ["f-1"], "p",
    )  # fmt: skip
    said = claims(command, issuer="https://x.invalid", issued=int(T * 1000) + 5, contact="them")
    payload = base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=")
    assert order_of(b"head." + payload + b".signature") == _order(T, "f-1")

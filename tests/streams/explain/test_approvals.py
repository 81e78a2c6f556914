"""Which of the archived approvals explain a decision: those that somebody who may had signed."""

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from responses.approved import Ordered
from schemas.directory import Approval
from schemas.request import Planned, Request
from sinks.keys import BadKey, new_keys, new_private_key, read_jwks, retire_key, write_jwks
from sinks.killswitch import REQUEST_TYPE, Signer
from streams.explain.approvals import approvals_in
from streams.settings import Signing

SINCE, UNTIL = datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC)


class People:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signing = Signing(jwks=str(folder / "jwks.json"), operators=str(folder / "people.json"))
        new_keys(folder / "key.pem", folder / "jwks.json")
        write_jwks(folder / "people.json", [new_private_key(folder / f"{n}.pem", person=n) for n in ("ann", "bob")])

    def order(self, key: str, action: str = "approve", kind: str = REQUEST_TYPE) -> bytes:
        planned = Planned(SINCE, UNTIL, 3.0) if action == "approve" else None
        time = "2026-03-02T08:00:00.000Z"
        request = Request("req-1", time, "acme", "key_1", action, "launch", "somebody", planned=planned)  # type: ignore[arg-type]
        signer = Signer.read(self.folder / f"{key}.pem", issuer="", contact="")
        return signer.token(json.loads(msgspec.json.encode(request)), kind)


@pytest.fixture
def people(tmp_path: Path) -> People:
    return People(tmp_path)


def test_whose_key_it_was_says_who_approved(people: People) -> None:
    [one] = approvals_in([people.order("ann")], people.signing)
    assert one == Ordered(1_772_438_400_000, Approval("key_1", SINCE, UNTIL, 3.0, "ann", "launch", "acme"))


def test_what_decide_refused_explains_nothing(people: People) -> None:
    written = [
        people.order("key"),
        people.order("ann", "suspend"),
        people.order("ann", kind="secevent+jwt"),
        people.order("ann")[:-8] + b"AAAAAAAA",
        b"garbage",
    ]
    assert approvals_in(written, people.signing) == []


def test_a_key_that_was_retired_since_had_the_right(people: People) -> None:
    order, file = people.order("ann"), people.folder / "people.json"
    ann = next(entry["kid"] for entry in read_jwks(file) if entry["tripswitch_person"] == "ann")
    retire_key(file, ann)
    [one] = approvals_in([order], people.signing)
    assert one.approval.approved_by == "ann"


def test_keys_are_needed_only_where_there_is_something_to_verify(tmp_path: Path) -> None:
    nowhere = Signing(jwks=str(tmp_path / "none.json"))
    assert approvals_in([], nowhere) == []
    with pytest.raises(BadKey, match=r"none\.json"):
        approvals_in([b"x"], nowhere)

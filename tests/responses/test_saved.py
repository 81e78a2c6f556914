"""A decider that was saved and restored answers as one that nothing happened to, byte for byte."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from responses import Config, Decider, saved
from schemas.command import Command
from schemas.directory import Directory
from schemas.finding import Finding, TenantBucket, Tick, encode
from schemas.piece import Checkpoint, StateError, seal, unseal
from schemas.request import Request
from schemas.times import format_millis

Begin = Callable[..., Any]
Make = Callable[..., Finding]
START_MS = 1_772_409_600_000
DAY = 86_400
WHO = (("acme", "key_0"), ("acme", "key_1"), ("acme", "key_2"), ("globex", "key_0"))
SHARED = (None, "model:m", "asn:9009/RO")
SEVERITIES = ("info", "low", "medium", "high", "critical")
DETAILS: tuple[dict[str, Any], ...] = (
    {},
    {"usual_requests_per_minute": 41.6, "unit": "tokens/min"},
    {"usual_requests_per_minute": 10**25, "n": -(10**20), "x": 1.5e300},
)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["spike", "geo_shift", "mix", "loop", "extreme", "bucket", "tick", "order", "again"]),
        st.sampled_from([0.0, 0.001, 1.0, 45.0, 60.0, -30.0, 400.0, 1000.0, 4000.0, 100_000.0]),
        st.integers(0, 3),
        st.integers(0, 11),
    ),
    min_size=1,
    max_size=40,
)
CUTS = st.lists(
    st.sampled_from(["go on", "save", "save", "save", "save", "kill", "kill, old records deleted"]), max_size=60
)


def inputs(steps: list[tuple[str, float, int, int]], make: Make) -> list[Any]:
    """What arrives: findings, a tenant's buckets, ticks, people's orders; some late, some twice."""
    out: list[Any] = []
    at = 0.0
    for n, (what, gap, who, pick) in enumerate(steps):
        at = max(0.0, at + gap)
        (tenant, identity), time = WHO[who], format_millis(START_MS + round(at * 1000))
        here = {"tenant": tenant, "identity": identity, "finding_id": f"f-{n}", "details": DETAILS[pick % 3]}
        if what == "again" and out:
            out.append(out[pick % len(out)])
        elif what == "order":
            action = ("throttle", "suspend", "revoke", "restore")[pick % 4]
            out.append(Request(f"req-{n}", time, tenant, identity, action, "because", "ann"))
        elif what == "bucket":
            out.append(TenantBucket(time, tenant, time, pick % 2, 1, pick, 0, 90.0, 0.1, {identity: 3}, arrived=who))
        elif what == "loop":
            out.append(make(at, "loop", deterministic=True, session_id=f"s{pick % 3}", **here))
        elif what == "extreme":
            out.append(make(at, "spike", "critical", extreme=True, **here))
        elif what in ("spike", "geo_shift", "mix"):
            kind = "model_shift" if what == "mix" else what
            out.append(
                make(
                    at,
                    kind,
                    SEVERITIES[pick % 5],
                    credential_id=f"cred_{pick % 2}",
                    span_seconds=60.0,
                    shared=SHARED[pick % 3],
                    **here,
                )
            )
        else:
            out.append(Tick(time))
    return out


def fresh(config: Config) -> Decider:
    """With caps that are soon reached."""
    return Decider(replace(config, response=replace(config.response, cap_tenant=1, cap_all=2)), Directory())


def answer(decider: Decider, arriving: Any) -> list[bytes]:
    out = decider.order(arriving) if isinstance(arriving, Request) else decider.take(arriving)
    return [encode(outcome) for outcome in out]


def known(decider: Decider) -> str:
    """All that a decider's answers hang on."""
    cases = [
        {**vars(case), "risk": case.risk.held, "claims": case.claims.held}
        for _, case in sorted(decider._cases._held.items())
    ]
    moments = (decider.now, decider.due, sorted(decider._cases._farewells))
    others = (
        decider.blocks.epochs.held,
        decider._caps.within(decider.now),
        decider._taken._order,
        decider._taken.count,
    )
    return repr((moments, others, sorted(decider.blocks._holders.items()), cases))


class Log:
    """Checkpoints as the state topic holds them, each with the input that it was made before."""

    def __init__(self) -> None:
        self.checkpoints: list[tuple[Checkpoint, int]] = []

    def save(self, decider: Decider, at: int) -> None:
        self.checkpoints.append((decider.checkpoint(), at))

    def delete(self) -> None:
        """What lies before the last complete round is deleted."""
        begins = [n for n, (checkpoint, _) in enumerate(self.checkpoints) if checkpoint.begins]
        if len(begins) > 1:
            del self.checkpoints[: begins[-2]]

    def restored(self, config: Config) -> tuple[Decider, int]:
        decider = fresh(config)
        decider.restore(piece for checkpoint, _ in self.checkpoints for piece in checkpoint.pieces)
        return decider, self.checkpoints[-1][1] if self.checkpoints else 0


@contextmanager
def small_bounds() -> Iterator[None]:
    """Bounds small enough that a short story reaches them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("responses.taken.REMEMBERED", 4)
        patch.setattr("responses.taken._PART", 2)
        patch.setattr("responses.decider._ROUND", 3)
        patch.setattr("responses.saved._MOST", 600)
        yield


@settings(max_examples=300)
@given(steps=STEPS, cuts=CUTS)
@small_bounds()
def test_a_decider_that_is_killed_answers_as_one_that_is_not(
    config: Config, finding: Make, steps: list[Any], cuts: list[str]
) -> None:
    arriving = inputs(steps, finding)
    undisturbed = fresh(config)
    want, knew = [], [known(undisturbed)]
    for each in arriving:
        want.append(answer(undisturbed, each))
        knew.append(known(undisturbed))
    decider, log, at = fresh(config), Log(), 0
    for cut in [*cuts, "save", "kill"]:
        if at < len(arriving):
            assert answer(decider, arriving[at]) == want[at]
            at += 1
        if cut == "save":
            log.save(decider, at)
        elif cut != "go on":
            if cut != "kill":
                log.delete()
            decider, at = log.restored(config)
            assert known(decider) == knew[at]
    for n in range(at, len(arriving)):
        assert answer(decider, arriving[n]) == want[n]
    assert known(decider) == knew[-1]


@given(steps=STEPS)
def test_a_round_restores_everything_without_what_lies_before(config: Config, finding: Make, steps: list[Any]) -> None:
    decider, log = fresh(config), Log()
    for at, each in enumerate(inputs(steps, finding)):
        answer(decider, each)
        log.save(decider, at)
    for _ in range(300):
        log.save(decider, len(steps))
    log.delete()
    assert log.checkpoints[0][0].begins
    again, _ = log.restored(config)
    assert known(again) == known(decider)


def test_what_was_taken_is_not_answered_again_and_epochs_grow(story: Begin, finding: Make) -> None:
    s = story()
    s.loop(0)
    s.order(0, "suspend")
    again = story()
    again.decider.restore(s.decider.checkpoint().pieces)
    assert again.loop(0) == []
    assert again.order(0, "suspend") == []
    # At the same millisecond: the clock alone would not tell the commands apart.
    [restore, *_] = again.decider.order(Request("req-x", s.commands[0].time, "acme", "key_1", "restore", "", "ann"))
    assert isinstance(restore, Command)
    assert restore.epoch > max(command.epoch for command in s.commands)


def test_an_order_of_a_person_is_still_one_after_a_restore(story: Begin) -> None:
    s = story()
    s.order(0, "throttle")
    again = story()
    again.decider.restore(s.decider.checkpoint().pieces)
    again.extreme(60)
    assert again.commands == []


def crowd(story: Begin, identities: int) -> Any:
    s = story()
    for n in range(identities):
        s.find(n / 1000, identity=f"key_{n}")
    return s


def test_a_round_ends_within_300_checkpoints(story: Begin) -> None:
    s = crowd(story, 1000)
    begins = [s.decider.checkpoint().begins for _ in range(700)]
    rounds = [n for n, begun in enumerate(begins) if begun]
    # The first has everything already, for all of it had changed.
    assert rounds[0:2] == [0, 1]
    assert [later - earlier for earlier, later in pairwise(rounds[1:])] == [250, 250]


def test_what_changes_much_is_swept_as_fast(story: Begin) -> None:
    s = crowd(story, 1000)
    s.decider.checkpoint()
    s.decider.checkpoint()
    for n in range(100):
        s.find(10 + n / 1000, identity=f"key_{n}")
    cases = [part for raw in s.decider.checkpoint().pieces for part in saved.unseal_parts(raw)]
    assert sum(isinstance(part, saved.SavedCase) for part in cases) == 200


def test_where_only_the_clock_moved_a_checkpoint_is_one_small_piece(story: Begin) -> None:
    s = story()
    s.until(60)
    s.decider.checkpoint()
    s.until(120)
    [piece] = s.decider.checkpoint().pieces
    assert len(piece) < 200


def test_a_piece_fits_into_a_record(story: Begin) -> None:
    s = crowd(story, 3000)
    pieces = s.decider.checkpoint().pieces
    assert sum(map(len, pieces)) > 2_000_000
    assert max(map(len, pieces)) <= 512_000


def test_a_restored_decider_goes_on_with_the_round(story: Begin) -> None:
    s = crowd(story, 600)
    pieces = [piece for _ in range(100) for piece in s.decider.checkpoint().pieces]
    again = story()
    again.decider.restore(pieces)
    assert again.decider.checkpoint().pieces == s.decider.checkpoint().pieces
    want = next(n for n in range(1, 400) if s.decider.checkpoint().begins)
    assert next(n for n in range(1, 400) if again.decider.checkpoint().begins) == want


def test_nothing_saved_is_a_fresh_decider(story: Begin) -> None:
    s = story()
    s.decider.restore([])
    assert len(s.loop(0)) == 2


@pytest.mark.parametrize(
    ("piece", "says"),
    [
        (seal("decide.weather", 1, b"[]"), "decide.weather.*does not know.*decide.head, .*Run the version"),
        (seal("detect.rows", 1, b"[]"), "detect.rows"),
        (seal("decide.case", 7, b"[]"), "decide.case, has format 7;.*reads format 1. Run the version.*or delete"),
        (seal("decide.case", 1, b"[{}]"), "decide.case, is damaged: .*Run the version"),
        (seal("decide.case", 1, b"\x93"), "damaged"),
        (b"", "no piece of saved state"),
        (b"{}", "no piece of saved state"),
    ],
)
def test_what_this_version_cannot_read_is_refused(story: Begin, piece: bytes, says: str) -> None:
    with pytest.raises(StateError, match=says):
        story().decider.restore([piece])


def test_a_log_with_a_gap_is_refused(story: Begin) -> None:
    s = crowd(story, 10)
    whole = s.decider.checkpoint().pieces
    s.find(60, identity="key_new")
    late = s.decider.checkpoint().pieces
    ids = [piece for piece in whole if unseal(piece).kind == "decide.ids"]
    for pieces in (late, whole[1:], ids, [piece for piece in whole if piece not in ids]):
        with pytest.raises(StateError, match="incomplete"):
            story().decider.restore(pieces)


FORMATS = {
    "decide.head 1": "96f35958d4a57d0f",
    "decide.epoch 1": "e8a6216c486307f7",
    "decide.blocked 1": "e0da3fd496e8dcbe",
    "decide.waiting 1": "b6b4be0cadc3b56b",
    "decide.approval 1": "76830020343679b1",
    "decide.gone 1": "87c4c260f258346c",
    "decide.case 1": "f69706e49e6368e3",
    "decide.ids 1": "01780452a2ae8c95",
}


def shape(part: Any) -> str:
    """A digest of what the bytes of a part mean."""

    def without_prose(schema: Any) -> Any:
        if isinstance(schema, dict):
            return {name: without_prose(value) for name, value in schema.items() if name != "description"}
        return [without_prose(each) for each in schema] if isinstance(schema, list) else schema

    raw = msgspec.json.encode(without_prose(msgspec.json.schema(part)), order="deterministic")
    return hashlib.sha256(raw).hexdigest()[:16]


def test_another_meaning_is_another_format() -> None:
    """What was written before must never be misread. Where old bytes still mean what they meant (a field that may be
    absent, one more kind of finding), the digest here is renewed; else the kind gets its next number in
    responses/saved.py too."""
    assert {f"{kind.name} {kind.format}": shape(part) for part, kind in saved._KINDS.items()} == FORMATS


SEEDED = """
import hashlib, sys
from itertools import pairwise
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import conftest
from responses import Decider
from schemas.directory import Directory
from schemas.finding import encode
from streams.policy import read_policy
s = conftest.Story(read_policy(Path(sys.argv[2])).for_responses, Directory())
digest = hashlib.sha256()
for n in range(200):
    s.loop(n * 7.0, f"s{n % 5}", identity=f"key_{n % 7}")
    s.find(n * 7.0 + 1, ("geo_shift", "model_shift", "spike")[n % 3], identity=f"key_{n % 11}")
    s.denied(n * 7.0 + 2, f"key_{n % 7}")
    if n % 50 == 49:
        s.order(n * 7.0 + 3, "restore", f"key_{n % 7}")
    digest.update(b"".join(s.decider.checkpoint().pieces))
digest.update(b"".join(map(encode, s.outcomes)))
print(digest.hexdigest())
"""


def test_nothing_hangs_on_how_a_process_hashes_strings() -> None:
    here = Path(__file__).parent
    command = [sys.executable, "-c", SEEDED, str(here), str(here.parents[1] / "policy.toml")]
    said = {
        subprocess.run(
            command,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(here.parents[1])},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert len(said.pop()) == 65

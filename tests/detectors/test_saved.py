"""A partition that is saved and put back goes on as if nothing had happened."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_traffic import DIRECTORY, HOUR, Events, Traffic
from msgspec.structs import replace

from detectors import Config, Partition
from detectors.windows import SILENCE
from schemas.batch import to_batch
from schemas.directory import Directory
from schemas.finding import encode
from schemas.piece import Checkpoint, StateError, seal, unseal

DAYS = 86_400.0


def taken(partition: Partition, events: Events, first: int, last: int) -> list[bytes]:
    batch = to_batch(events[first:last], range(first, last), [0] * (last - first))
    return [encode(told.signal) for told in partition.take(batch)]


def ended(partition: Partition) -> list[bytes]:
    return [encode(told.signal) for told in partition.close()]


def undisturbed(policy: Config, events: Events) -> list[bytes]:
    partition = Partition(0, policy, DIRECTORY)
    return taken(partition, events, 0, len(events)) + ended(partition)


def restored(policy: Config, log: Sequence[Checkpoint]) -> Partition:
    partition = Partition(0, policy, DIRECTORY)
    partition.restore(piece for checkpoint in log for piece in checkpoint.pieces)
    return partition


def since_the_last_whole_round(log: Sequence[Checkpoint]) -> Sequence[Checkpoint]:
    """What is left of a log from which everything before the last complete round was deleted."""
    begun = [n for n, checkpoint in enumerate(log) if checkpoint.begins]
    return log[begun[-2] :] if len(begun) > 1 else log


@settings(max_examples=25)
@given(
    cuts=st.lists(st.tuples(st.integers(0, 4400), st.booleans(), st.booleans()), min_size=1, max_size=12),
)
def test_what_is_found_does_not_depend_on_when_a_worker_died(
    policy: Config, world: Events, cuts: list[tuple[int, bool, bool]]
) -> None:
    """At each cut a checkpoint is made, or not, and the worker dies, or not: the next goes on from the last one."""
    told: dict[bytes, None] = {}
    partition, log, reached = Partition(0, policy, DIRECTORY), list[Checkpoint](), 0
    edges = [0, *sorted(min(cut, len(world)) for cut, _, _ in cuts), len(world)]
    at = reached
    for (_, last), (_, saves, dies) in zip(pairwise(edges), [*cuts, (0, False, False)], strict=True):
        told |= dict.fromkeys(taken(partition, world, at, last))
        at = last
        if saves:
            log.append(partition.checkpoint())
            reached = last
        if dies:
            partition = restored(policy, since_the_last_whole_round(log)) if log else Partition(0, policy, DIRECTORY)
            at = reached
            told |= dict.fromkeys(taken(partition, world, at, last))
            at = last
    told |= dict.fromkeys(ended(partition))
    assert list(told) == list(dict.fromkeys(undisturbed(policy, world)))


def many(identities: int) -> Events:
    """Identities that call now and then, none in step with another."""
    events: Events = []
    for k in range(identities):
        traffic = Traffic(f"key_{k}", tenant=f"tenant-{k % 7}")
        traffic.every(60.0 + k, k / 3, 2 * HOUR)
        events += traffic.events
    return sorted(events, key=lambda event: (event.time, event.id))


def test_the_log_may_be_cut_before_the_last_whole_round(policy: Config) -> None:
    """With more identities than a checkpoint's slice holds, a state comes back from the last round alone."""
    events = many(900)
    partition, log = Partition(0, policy, Directory()), []
    for first in range(0, len(events), 500):
        taken(partition, events, first, first + 500)
        log.append(partition.checkpoint())
    assert sum(checkpoint.begins for checkpoint in log) >= 3
    again = restored(policy, since_the_last_whole_round(log))
    assert again.identities == partition.identities
    extra = [replace(e, id=f"again-{e.id}", time=e.time + timedelta(hours=2)) for e in events[:4000]]
    assert taken(again, extra, 0, 4000) + ended(again) == taken(partition, extra, 0, 4000) + ended(partition)


def test_a_round_ends_though_nothing_changes(policy: Config) -> None:
    events = many(900)
    partition = Partition(0, policy, Directory())
    taken(partition, events, 0, len(events))
    begun = [n for n in range(700) if partition.checkpoint().begins]
    assert len(begun) >= 3


def test_a_second_delivery_is_known_again_after_a_restart(policy: Config, world: Events) -> None:
    partition = Partition(0, policy, Directory())
    taken(partition, world, 0, 2000)
    again = restored(policy, [partition.checkpoint()])
    taken(again, world, 1990, 2000)
    assert again.counts.duplicates == 10


def test_who_comes_back_after_weeks_is_a_new_identity(policy: Config) -> None:
    """Whether its row was freed meanwhile or not: freeing shows in nothing but memory."""
    before, after, other = Traffic("key_old"), Traffic("key_old"), Traffic("key_other")
    before.every(30.0, 0, 4 * HOUR)
    after.every(2.0, 50 * DAYS, 50 * DAYS + 90, input_tokens=90_000, fingerprint="p", session_id="s")
    other.every(6 * HOUR, 5 * HOUR, 50 * DAYS)
    renamed = [replace(event, id=f"x{event.id}") for event in after.events]
    freed, kept, fresh = (Partition(0, policy, Directory()) for _ in range(3))
    kept._free_at = 1 << 60
    for partition in (freed, kept):
        taken(partition, [*before.events, *other.events], 0, len(before.events) + len(other.events))
    assert (freed.identities, kept.identities) == (1, 2)
    taken(fresh, other.events, 0, len(other.events))
    found = [taken(p, renamed, 0, len(renamed)) + ended(p) for p in (freed, kept, fresh)]
    assert found[0] == found[1] == found[2]
    assert any(b"llm.finding" in signal for signal in found[0])


def test_silent_identities_make_room_for_others(policy: Config) -> None:
    """Rows are used again, and a state that was saved meanwhile comes back as it is."""
    partition, log = Partition(0, policy, Directory()), []
    for month in range(6):
        traffic = Traffic("mover")
        traffic.every(3600.0, month * 60 * DAYS, month * 60 * DAYS + 5 * 3600.0)
        others = [replace(e, subject=f"key_{month}_{n}", id=f"{month}-{n}") for n, e in enumerate(traffic.events)]
        events = sorted([*traffic.events, *others], key=lambda e: e.time)
        for n in range(len(events)):
            taken(partition, events, n, n + 1)
        log.append(partition.checkpoint())
    assert partition.identities <= 13
    assert SILENCE == 45 * DAYS * 1000
    again = restored(policy, log)
    assert again.identities == partition.identities
    late = Traffic("key_5_2")
    late.every(1.0, 301 * DAYS, 301 * DAYS + 120, input_tokens=90_000)
    assert taken(again, late.events, 0, 120) + ended(again) == taken(partition, late.events, 0, 120) + ended(partition)


def test_names_that_only_refused_calls_gave_are_soon_forgotten(policy: Config) -> None:
    partition = Partition(0, policy, Directory())
    traffic = Traffic("nobody")
    traffic.every(1.0, 0, 3000, status=401)
    invented = [replace(event, subject=f"guess_{n}") for n, event in enumerate(traffic.events)]
    taken(partition, invented, 0, len(invented))
    assert partition.identities == 3000
    steady = Traffic("key_steady")
    steady.every(60.0, 3000, 4 * HOUR)
    taken(partition, steady.events, 0, len(steady.events))
    assert partition.identities == 1


def saved_once(policy: Config, world: Events) -> list[bytes]:
    partition = Partition(0, policy, Directory())
    taken(partition, world, 0, 500)
    return partition.checkpoint().pieces


@pytest.mark.parametrize("kind", ["head", "names", "ids", "rows"])
def test_a_piece_of_another_version_is_refused(policy: Config, world: Events, kind: str) -> None:
    pieces = [unseal(raw) for raw in saved_once(policy, world)]
    changed = [seal(p.kind, p.format + (p.kind == kind), p.body) for p in pieces]
    [ours] = {p.format for p in pieces if p.kind == kind}
    with pytest.raises(StateError, match=rf"piece '{kind}' of version {ours + 1}.*reads version {ours}"):
        Partition(0, policy, Directory()).restore(changed)


@pytest.mark.parametrize("raw", [b"", b"{}", b"\x93", b"\xff" * 40])
def test_what_is_no_piece_is_refused(policy: Config, raw: bytes) -> None:
    with pytest.raises(StateError, match="no piece"):
        Partition(0, policy, Directory()).restore([raw])


def test_an_unknown_kind_of_piece_is_refused(policy: Config, world: Events) -> None:
    with pytest.raises(StateError, match="does not know"):
        Partition(0, policy, Directory()).restore([*saved_once(policy, world), seal("moods", 1, b"")])


def test_a_state_without_its_beginning_is_refused(policy: Config) -> None:
    with pytest.raises(StateError, match="no beginning"):
        Partition(0, policy, Directory()).restore([])


def relaid(pieces: list[bytes], change: Any) -> list[bytes]:
    """The pieces as another version would have laid their rows out, whose words stay where they are."""
    out = []
    for raw in pieces:
        piece = unseal(raw)
        if piece.kind == "head":
            head = msgspec.msgpack.decode(piece.body)
            change(head[1])
            out.append(seal("head", piece.format, msgspec.msgpack.encode(head)))
        else:
            out.append(raw)
    return out


def rename(layout: Any) -> None:
    """Another version's layout: its name for the first field of loop's rows is not ours."""
    layout["loop.rows"][1][0][0] = "no_longer_there"


def test_fields_that_are_new_or_gone_are_migrated(policy: Config, world: Events) -> None:
    partition = restored(policy, [Checkpoint(True, relaid(saved_once(policy, world), rename))])
    as_was = restored(policy, [Checkpoint(True, saved_once(policy, world))])
    assert partition.identities == as_was.identities
    mine, theirs = (p._saved.components["loop.rows"].array for p in (partition, as_was))
    names = mine.dtype.names or ()
    assert not mine[names[0]].any()
    assert all(np.array_equal(mine[name], theirs[name]) for name in names[1:])


def rows_of(partition: Partition) -> dict[str, bytes]:
    """The rows by field, but for where in the pool their buckets lie."""
    return {
        f"{name}.{field}": rows.array[field][: partition.identities].tobytes()
        for name, rows in partition._saved.components.items()
        for field in rows.array.dtype.names or ()
        if (name, field) != ("windows", "open")
    }


@pytest.mark.parametrize("into", [0.1, 0.9])
def test_a_round_in_which_rows_were_laid_out_anew_does_not_count_before_it_is_whole(
    policy: Config, into: float
) -> None:
    """Another version's log ends in mid-round and ours goes on with it, over kills. What is deleted when a round
    begins is never needed; a round later nothing of the other version is left."""
    events = many(900)
    partition, log = Partition(0, policy, Directory()), list[Checkpoint]()
    taken(partition, events, 0, len(events))
    while sum(checkpoint.begins for checkpoint in log) < 4:
        log.append(partition.checkpoint())
    *_, before, last = (n for n, checkpoint in enumerate(log) if checkpoint.begins)
    length = last - before
    log += [partition.checkpoint() for _ in range(int(into * length))]
    log = [Checkpoint(checkpoint.begins, relaid(checkpoint.pieces, rename)) for checkpoint in log]
    ours = restored(policy, since_the_last_whole_round(log))
    later = [replace(event, id=f"again-{event.id}", time=event.time + timedelta(hours=2)) for event in events]
    for n in range(3 * length):
        taken(ours, later, n, n + 1)
        log.append(ours.checkpoint())
        if log[-1].begins or n % 40 == 0:
            following = restored(policy, since_the_last_whole_round(log))
            assert following.identities == 900
            assert rows_of(following) == rows_of(ours)
            ours = following
    heads = [unseal(checkpoint.pieces[0]).body for checkpoint in since_the_last_whole_round(log)]
    assert not any(b"no_longer_there" in head for head in heads)


def test_a_field_that_became_something_else_is_refused(policy: Config, world: Events) -> None:
    def retype(layout: Any) -> None:
        layout["windows"][1][0][1] = "<f8"

    with pytest.raises(StateError, match=r"windows\.\w+ as float64, this version as int64"):
        Partition(0, policy, Directory()).restore(relaid(saved_once(policy, world), retype))


def test_a_row_is_small(policy: Config) -> None:
    """The limit that docs/performance.md and the design promise."""
    components = Partition(0, policy, Directory())._saved.components
    assert sum(rows.array.dtype.itemsize for rows in components.values()) <= 1536

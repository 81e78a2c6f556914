"""A gateway's view of the topic, record by record, with clocks that the tests turn; no broker."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tripswitch_gateway import record_key
from tripswitch_gateway.partitions import Backlog

Claims = Callable[..., dict[str, Any]]
NOW_MS = 1_795_223_525_000


@pytest.fixture
def block(claims: Claims) -> dict[str, Any]:
    return claims(command_id="block", now_ms=NOW_MS - 60_000)


def test_ready_when_a_heartbeat_that_came_later_agrees(topic: Any, signer: Any, block: dict[str, Any]) -> None:
    topic.write(signer.record(block))
    topic.beat(block)
    topic.read()
    # The one that was there may have been kept back for a day, with the blocks of that day.
    assert topic.blocks()
    assert not topic.reader.ready.is_set()
    topic.wait(3)
    topic.beat(block)
    topic.read()
    assert topic.reader.ready.is_set()
    assert not topic.reader.stale
    [summary] = topic.acked("cold-start/")
    assert summary["unmapped"]["jwks_sha256"] == topic.verifier.keys.sha256
    assert (summary["unmapped"]["commands"], summary["unmapped"]["live"]) == (1, 1)
    [keys] = topic.acked("jwks/")
    assert (keys["command_uid"], keys["activity_id"]) == (f"jwks/{topic.verifier.keys.sha256}", 4)


def test_without_heartbeats_ready_after_the_patience_and_stale(topic: Any, signer: Any, block: dict[str, Any]) -> None:
    topic.write(signer.record(block))
    topic.read()
    topic.wait(14)
    topic.read()
    assert not topic.reader.ready.is_set()
    topic.wait(1)
    topic.read()
    assert topic.reader.ready.is_set()
    assert topic.reader.stale
    assert topic.blocks()
    topic.beat(block)
    topic.read()
    assert not topic.reader.stale


def test_stale_when_heartbeats_stay_away(topic: Any) -> None:
    topic.read()
    topic.beat()
    topic.read()
    topic.wait(14)
    assert not topic.reader.stale
    topic.wait(2)
    assert topic.reader.stale
    assert topic.reader.staleness_seconds() == {0: 16.0}


def test_every_partition_must_agree(jwks: Path, signer: Any, make_topic: Any) -> None:
    topic = make_topic(partitions=3)
    topic.read()
    topic.beat(partition=0)
    topic.beat(partition=1)
    topic.read()
    assert not topic.reader.ready.is_set()
    topic.beat(partition=2)
    topic.read()
    assert topic.reader.ready.is_set()
    topic.wait(10)
    topic.beat(partition=0)
    topic.beat(partition=2)
    topic.read()
    topic.wait(10)
    assert topic.reader.stale
    assert topic.reader.staleness_seconds() == {0: 10.0, 1: 20.0, 2: 10.0}


def test_a_withheld_block_is_noticed_and_mended(topic: Any, signer: Any, block: dict[str, Any], claims: Claims) -> None:
    other = claims("revoke", "identity", "k2", identity="k2", command_id="other")
    topic.write(signer.record(block))
    topic.read()
    topic.beat(block)
    topic.read()
    topic.beat(block, other, sequence=NOW_MS + 1)
    topic.read()
    assert topic.reader.stale
    assert topic.blocks()
    assert topic.rewound == [0]
    [ack] = topic.acked("heartbeat/0")
    assert (ack["status_id"], ack["unmapped"]) == (2, {"partition": 0, "expected": 2, "held": 1})
    # Told once and read again once, however long it lasts.
    topic.wait(3)
    topic.beat(block, other)
    topic.read()
    assert (len(topic.acked("heartbeat/0")), topic.rewound, topic.counts.disagreements) == (1, [0], 1)
    topic.write(signer.record(other))
    topic.wait(3)
    topic.beat(block, other)
    topic.read()
    assert not topic.reader.stale
    assert topic.blocks("k2")


def test_what_was_missed_is_found_by_reading_again(topic: Any, signer: Any, block: dict[str, Any]) -> None:
    topic.read()
    # As if the broker had hidden it: written, and never given to us.
    topic.write(signer.record(block))
    topic._positions[0] += 1
    topic.reader.partitions[0].position += 1
    topic.beat(block)
    topic.read()
    assert topic.rewound == [0]
    assert topic.blocks()
    topic.wait(3)
    topic.beat(block)
    topic.read()
    assert not topic.reader.stale


def test_a_block_that_the_writer_does_not_know_stays(topic: Any, signer: Any, block: dict[str, Any]) -> None:
    topic.read()
    topic.write(signer.record(block))
    topic.beat()
    topic.read()
    topic.wait(3)
    topic.beat()
    topic.read()
    assert topic.reader.stale
    assert topic.blocks()


def test_a_tombstone_leaves_a_table_that_agrees(topic: Any, signer: Any, block: dict[str, Any]) -> None:
    key, value = signer.record(block)
    topic.write((key, value))
    topic.read()
    topic.write((key, None))
    topic.beat(block)
    topic.read()
    assert topic.counts.refused == {"tombstone": 1}
    assert topic.blocks()
    assert not topic.reader.stale


@pytest.mark.parametrize("wall_off_s", [-300, 300, 0])
def test_blocks_end_at_the_writers_time(topic: Any, signer: Any, claims: Claims, wall_off_s: int) -> None:
    topic.wall_ms += wall_off_s * 1000
    made = claims(expires_at=NOW_MS + 60_000)
    topic.read()
    topic.beat()
    topic.read()
    topic.write(signer.record(made))
    topic.beat(made, sequence=NOW_MS + 1)
    topic.read()
    assert topic.counts.refused == {}
    for _ in range(19):
        topic.wait(3)
        topic.beat(made)
        topic.read()
        assert topic.blocks()
        assert not topic.reader.stale
    topic.wait(3)
    assert not topic.blocks()
    topic.beat()
    topic.read()
    assert not topic.reader.stale


def test_a_slow_clock_at_the_start(topic: Any, signer: Any, claims: Claims) -> None:
    topic.wall_ms -= 301_000
    made = claims()
    topic.write(signer.record(made))
    topic.beat(made)
    topic.read()
    assert topic.counts.refused == {}
    assert topic.blocks()


def test_the_clock_runs_on_between_heartbeats(topic: Any) -> None:
    topic.wall_ms += 300_000
    assert topic.clock.now_ms() == NOW_MS + 300_000
    topic.read()
    topic.beat()
    topic.read()
    assert topic.clock.now_ms() == NOW_MS
    topic.wait(7)
    topic.wall_ms += 999_999
    assert topic.clock.now_ms() == NOW_MS + 7_000


def test_one_wrong_writer_moves_nobody(make_topic: Any) -> None:
    topic = make_topic(partitions=3)
    topic.read()
    topic.beat(partition=0)
    topic.beat(partition=1, at=NOW_MS + 240_000)
    topic.beat(partition=2)
    topic.read()
    assert topic.clock.now_ms() == NOW_MS


def test_a_heartbeat_that_was_held_back_is_of_its_own_time(make_topic: Any) -> None:
    topic = make_topic(partitions=3)
    topic.read()
    for partition in range(3):
        topic.beat(partition=partition)
    topic.read()
    topic.wait(20)
    for partition in range(2):
        topic.beat(partition=partition)
    topic.beat(partition=2, at=NOW_MS + 3_000)
    topic.read()
    assert topic.reader.staleness_seconds() == {0: 0.0, 1: 0.0, 2: 17.0}
    assert topic.reader.stale


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"sequence": NOW_MS}, "heartbeat-replayed"),
        ({"sequence": 5}, "heartbeat-replayed"),
        ({"at": NOW_MS + 301_000}, "from-the-future"),
        ({"at": NOW_MS - 601_000, "sequence": NOW_MS + 1}, "from-the-past"),
        ({"sequence": NOW_MS + 1, "count": -1}, "malformed"),
        ({"sequence": NOW_MS + 1, "digest": None}, "malformed"),
    ],
)
def test_heartbeats_that_are_refused(topic: Any, more: dict[str, Any], reason: str) -> None:
    topic.read()
    topic.beat()
    topic.read()
    topic.beat(**more)
    topic.read()
    assert topic.counts.refused == {reason: 1}
    assert not topic.reader.stale
    assert topic.reader.staleness_seconds() == {0: 0.0}


def test_the_sequence_counts_from_before_the_start(topic: Any) -> None:
    topic.beat()
    topic.read()
    topic.beat()
    topic.read()
    assert topic.counts.refused == {"heartbeat-replayed": 1}
    assert topic.reader.stale


def test_another_writers_heartbeats_are_refused(
    topic: Any, signer: Any, stranger: Any, break_glass: Any, block: dict[str, Any]
) -> None:
    topic.verifier.keys._path.write_text(json.dumps({"keys": [signer.jwk(), break_glass.jwk()]}))
    topic.read()
    beat = signer.heartbeat(0, NOW_MS)
    topic.write(stranger.heartbeat(0, NOW_MS))
    topic.write(break_glass.heartbeat(0, NOW_MS))
    topic.write(signer.heartbeat(1, NOW_MS))
    topic.write((b"heartbeat/1", beat[1]))
    topic.write((b"heartbeat/0", None))
    topic.write((b"heartbeat/0", signer.record(block)[1]))
    topic.write((signer.record(block)[0], beat[1]))
    topic.read()
    assert topic.counts.refused == {
        "signature": 1,
        "role": 1,
        "partition-mismatch": 1,
        "key-mismatch": 1,
        "tombstone": 1,
        "event-mismatch": 1,
        "malformed": 1,
    }
    assert topic.reader.stale
    assert topic.counts.heartbeats == 0


def test_a_gateway_says_that_it_is_alive_once_a_minute(topic: Any, signer: Any, block: dict[str, Any]) -> None:
    topic.write(signer.record(block), (b"x", b"y"))
    topic.read()
    for _ in range(41):
        topic.beat(block)
        topic.read()
        topic.wait(3)
    alive = topic.acked("alive/gw-1")
    assert len(alive) == 2
    assert (alive[0]["activity_id"], alive[0]["activity_name"]) == (99, "Alive")
    assert alive[0]["unmapped"] == {
        "jwks_sha256": topic.verifier.keys.sha256,
        "live": 1,
        "stale": False,
        "ready": True,
        "refused": {"malformed": 1},
        "applied": 1,
        "checked": [],
    }


class TestBacklog:
    """What was there before the start is verified newest first, and only as far as needed."""

    def test_garbage_over_a_live_block_unblocks_nobody(
        self, topic: Any, signer: Any, stranger: Any, block: dict[str, Any], claims: Claims
    ) -> None:
        key, value = signer.record(block)
        topic.write((key, value))
        topic.write((key, stranger.sign(claims("restore"))), (key, b"garbage"), (key, None), (key, value[:-8]))
        topic.write((key, signer.sign(claims(subject="k2", identity="k2"))))
        topic.read()
        assert topic.blocks()
        assert topic.counts.refused == {"signature": 2, "malformed": 1, "tombstone": 1, "key-mismatch": 1}

    def test_an_older_command_that_was_written_again_unblocks_nobody(
        self, topic: Any, signer: Any, claims: Claims
    ) -> None:
        restore = claims("restore", command_id="a", now_ms=NOW_MS - 90_000)
        topic.write(signer.record(restore))
        topic.write(signer.record(claims(command_id="b", now_ms=NOW_MS - 60_000)))
        topic.write(signer.record(restore))
        topic.read()
        assert topic.blocks()

    def test_of_two_with_one_epoch_both_are_seen(self, topic: Any, signer: Any, claims: Claims) -> None:
        topic.write(signer.record(claims("restore", command_id="b")), signer.record(claims("suspend", command_id="a")))
        topic.read()
        assert topic.blocks()
        assert topic.table.conflicts == 1

    def test_more_records_of_a_key_than_are_kept(self, topic: Any, signer: Any, stranger: Any, claims: Claims) -> None:
        key, value = signer.record(claims())
        topic.write((key, value), *[(key, stranger.sign(claims("restore", now_ms=NOW_MS + 1)))] * 20)
        topic.read()
        assert topic.blocks()
        assert topic.counts.refused == {"signature": 20}

    def test_only_the_newest_of_a_key_is_verified(
        self, topic: Any, signer: Any, claims: Claims, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verified = []
        verify = topic.verifier.verify
        monkeypatch.setattr(topic.verifier, "verify", lambda *args: (verified.append(args), verify(*args))[1])
        for number in range(5):
            topic.write(signer.record(claims(command_id=f"c{number}", now_ms=NOW_MS - 10 + number)))
        topic.read()
        assert len(verified) == 1
        assert topic.table.live(NOW_MS)[0].command_id == "c4"

    def test_who_is_asked_about_is_verified_first(self, topic: Any, signer: Any, claims: Claims) -> None:
        for number in range(5):
            topic.write(signer.record(claims(subject=f"k{number}", identity=f"k{number}")))
        topic.reader.begin([0])
        for offset, record in enumerate(topic.records[0]):
            topic.reader.receive(0, offset, *record)
        topic.reader.reach_end(0, 5)
        assert topic.reader.unsettled
        assert not topic.blocks("k3")
        topic.reader.settle([signer.record(claims(subject="k3", identity="k3"))[0].decode()])
        assert topic.blocks("k3")
        assert len(topic.table) == 1

    def test_a_live_command_finds_the_backlog_of_its_key(self, topic: Any, signer: Any, claims: Claims) -> None:
        topic.reader.begin([0])
        topic.reader.receive(0, 0, *signer.record(claims(command_id="a")))
        topic.reader.reach_end(0, 1)
        topic.reader.receive(0, 1, *signer.record(claims("restore", command_id="b", now_ms=NOW_MS + 1)))
        while topic.reader.work():
            pass
        assert not topic.blocks()


def test_ready_and_unproven_only_genuine_commands_count(topic: Any, signer: Any, stranger: Any, claims: Claims) -> None:
    def on(name: str, action: str = "suspend", **more: Any) -> dict[str, Any]:
        return claims(
            action, command_id=f"{action}-{name}", subject=name, identity=name, now_ms=NOW_MS - 60_000, **more
        )

    key, block = signer.record(on("k1"))
    topic.write(
        (key, block),
        # Over the block: a forged restore, and one that is cut short.
        stranger.record(on("k1", "restore", epoch=NOW_MS)),
        (key, block[:-9]),
        stranger.record(on("k2")),
        *(signer.record(on(f"other-{number}")) for number in range(20)),
    )
    topic.reader.begin([0])
    for offset, record in enumerate(topic.records[0]):
        topic.reader.receive(0, offset, *record)
    topic.reader.reach_end(0, len(topic.records[0]))
    topic.wait(15)
    topic.reader.tick()
    assert (topic.reader.ready.is_set(), topic.reader.stale, len(topic.table)) == (True, True, 0)
    topic.reader.settle([record_key("acme", "identity", name) for name in ("k1", "k2")])
    assert topic.blocks("k1")
    assert not topic.blocks("k2")
    assert topic.counts.refused == {"signature": 2, "malformed": 1}
    assert len(topic.table) == 1
    [summary] = topic.acked("cold-start/")
    assert summary["unmapped"]["unverified"] == 22


def test_a_backlog_keeps_all_records_of_a_key_in_their_order() -> None:
    backlog = Backlog()
    records = [(offset, b"k", b"%d" % offset) for offset in range(3)]
    assert [backlog.add(b"k", record) for record in records] == [1, 2, 3]
    assert backlog.add(b"other", (3, b"other", b"3")) == 1
    assert (len(backlog), backlog.size) == (2, 4)
    assert backlog.take(b"k") == records
    assert backlog.take(b"k") == []
    assert backlog.take(None) == [(3, b"other", b"3")]
    assert (backlog.take(None), backlog.size) == ([], 0)

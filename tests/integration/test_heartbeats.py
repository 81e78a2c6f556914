"""What the owners of the kill switch say is in force is what its topic holds, whoever was killed in between."""

import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kafka_node import KafkaNode
from schemas.command import Command
from schemas.heartbeat import Heartbeat, ends, is_heartbeat
from schemas.times import parse_millis
from sinks.killswitch import Verifier
from streams.in_force import Found, read_heartbeat
from workers import PARTITIONS, Road, quick_road, wait_until


@pytest.fixture
def road(kafka_node: KafkaNode, tmp_path: Path) -> Iterator[Road]:
    with quick_road(kafka_node.bootstrap, tmp_path) as road:
        yield road


def beats(road: Road) -> list[tuple[Heartbeat, dict[str, Command]]]:
    """Every heartbeat in the topic, with the valid commands before it by record key."""
    verifier = Verifier.read(road.folder / "jwks.json")
    found = [Found() for _ in range(PARTITIONS)]
    told = []
    for message in road.read("llm.killswitch"):
        at = found[message.partition()]
        at.take(message.key(), message.value(), verifier)
        if is_heartbeat(message.key()):
            beat, _ = read_heartbeat(message.key().decode(), message.value(), verifier)
            assert beat.partition == message.partition()
            told.append((beat, {key: written.command for key, written in at.commands.items()}))
    return told


def assert_agreed(beat: Heartbeat, commands: dict[str, Command]) -> None:
    live = [
        f"{key}/{command.epoch}".encode()
        for key, command in commands.items()
        if command.action != "restore" and ends(command, parse_millis(command.time)) > beat.at
    ]
    total = sum(int.from_bytes(hashlib.sha256(text).digest()) for text in live) % 2**256
    assert (beat.count, beat.digest) == (len(live), f"{total:064x}")


def test_heartbeats_agree_with_the_topic_over_a_kill(road: Road) -> None:
    road.start("decide", "a")
    wait_until(lambda: len({beat.partition for beat, _ in beats(road)}) == PARTITIONS, "a heartbeat each", road)
    for number in range(3):
        road.cli("suspend", f"tenant_{number}/key", "--reason", "to be counted")
    wait_until(lambda: sum(len(commands) for commands in last(road).values()) == 3, "the orders", road)
    road.stop(road.workers[-1], signal.SIGKILL)
    before = {number: beat for number, (beat, _) in newest(road).items()}
    road.start("decide", "a")
    wait_until(
        lambda: all(beat.sequence > before[number].sequence for number, (beat, _) in newest(road).items()),
        "heartbeats of the next owner", road,
    )  # fmt: skip
    road.cli("restore", "tenant_0/key", "--reason", "counted")
    wait_until(lambda: sum(beat.count for beat, _ in newest(road).values()) == 2, "the count goes down", road)
    told = beats(road)
    assert {beat.count for beat, _ in told} > {0}
    for beat, commands in told:
        assert_agreed(beat, commands)
    for number in range(PARTITIONS):
        numbers = [beat.sequence for beat, _ in told if beat.partition == number]
        assert numbers == sorted(set(numbers))


def newest(road: Road) -> dict[int, tuple[Heartbeat, dict[str, Command]]]:
    """The last heartbeat of each partition."""
    return {beat.partition: (beat, commands) for beat, commands in beats(road)}


def last(road: Road) -> dict[int, dict[str, Command]]:
    return {number: commands for number, (_, commands) in newest(road).items()}

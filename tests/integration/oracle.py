"""What workers that nobody disturbs make of the records in the topics, and what ours have published.

detect may publish again what it published before, byte for byte the same; decide publishes in the transaction that
moves its offsets. So, for the records before a group's committed offsets:

- every signal and dead letter that follows from llm.usage is there, and nothing that does not follow from it;
- the commands and incidents are those that follow from llm.signals as it stands, repeats included, in their order.

That is at-least-once with idempotent effects. Nothing here claims exactly-once.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import Message
from faust.types import TP

from responses import Decider
from schemas.command import TOKEN_TYPE, Command, from_claims
from schemas.dead_letter import DeadLetter
from schemas.directory import Directory
from schemas.finding import Finding, Tick, decode_signal, encode
from schemas.heartbeat import is_heartbeat
from schemas.times import parse_millis
from schemas.topics import AUDIT, DEAD_LETTERS, INCIDENTS, KILLSWITCH, SIGNALS, USAGE
from sinks.killswitch import Verifier
from streams.detection import Detection
from streams.fetched import Chunk
from streams.policy import Loaded, find_policy, read_policy
from workers import PARTITIONS, UNCAPPED, Road

_decode_letter = msgspec.json.Decoder(DeadLetter).decode
_decode_claims = msgspec.json.Decoder(dict[str, Any]).decode


class Read(NamedTuple):
    """A record of a topic, as Faust's consumer hands it out."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    timestamp_type: int = 1


class Order(NamedTuple):
    """What a command says, but for the moment of its publication: `decided` and `lasts` are in s and ms."""

    command: Command
    decided: int
    lasts: int | None


class Outcomes(NamedTuple):
    """What decide makes of a partition; `letters` are the places (partition, offset) of what can't be read."""

    orders: list[Order]
    incidents: list[bytes]
    letters: set[tuple[int, int]]


def read(road: Road, topic: str) -> list[list[Read]]:
    """The committed records of a topic, by partition."""
    out: list[list[Read]] = [[] for _ in range(PARTITIONS)]
    for message in road.read(topic):
        out[message.partition()].append(_read(message))
    return out


def _read(message: Message) -> Read:
    _, timestamp = message.timestamp()
    return Read(message.topic(), message.partition(), message.offset(), timestamp, message.key(), message.value())


class Undisturbed:
    """Detection and decision over the topics of `road` in one pass each."""

    def __init__(self, road: Road) -> None:
        self._road = road
        self._policy: Loaded = read_policy(find_policy(road.environment["TRIPSWITCH_POLICY"]))
        self._verifier = Verifier.read(Path(road.environment["TRIPSWITCH_JWKS"]))

    def signals(self, usage: Sequence[Sequence[Read]]) -> tuple[set[bytes], set[bytes]]:
        """The signals and the dead letters that follow from records of llm.usage, by partition."""
        detection = Detection(self._policy, Directory())
        told: dict[str, set[bytes]] = {SIGNALS: set(), DEAD_LETTERS: set()}
        for number, records in enumerate(usage):
            for chunk in _cut(records):
                for record in detection.take(TP(USAGE, number), Chunk.of(USAGE, number, chunk)):
                    told[record.topic].add(record.value)
        return told[SIGNALS], told[DEAD_LETTERS]

    def outcomes(self, signals: Sequence[Read]) -> Outcomes:
        """What follows from records of one partition of llm.signals, in order."""
        decider = Decider(self._policy.for_responses, Directory())
        orders: list[Order] = []
        incidents: list[bytes] = []
        letters: set[tuple[int, int]] = set()
        for record in signals:
            try:
                signal = decode_signal(record.value or b"")
            except ValueError:
                letters.add((record.partition, record.offset))
                continue
            for outcome in decider.take(signal, max(0, record.timestamp)):
                if isinstance(outcome, Command):
                    orders.append(_order(outcome, parse_millis(outcome.time), parse_millis(outcome.time)))
                else:
                    incidents.append(encode(outcome))
        return Outcomes(orders, incidents, letters)

    def published(self, records: Sequence[Read]) -> list[Order]:
        """The commands in records of a kill-switch topic, verified, in order; a repeat counts once."""
        orders: dict[Order, None] = {}
        for record in records:
            if is_heartbeat(record.key):
                continue
            payload = self._verifier.payload(record.value or b"", TOKEN_TYPE)
            command = from_claims(payload)
            [event] = _decode_claims(payload)["events"].values()
            orders[_order(command, event["event_timestamp"] * 1000, parse_millis(command.time))] = None
        return list(orders)


def _order(command: Command, decided: int, issued: int) -> Order:
    expires = None if command.expires_at is None else parse_millis(command.expires_at) - issued
    # Lists can't be hashed, and its times are those of publication.
    plain = msgspec.structs.replace(command, time="", expires_at=None, finding_ids=tuple(command.finding_ids))  # type: ignore[arg-type]
    return Order(plain, decided // 1000, expires)


def _cut(records: Sequence[Read]) -> Iterator[Sequence[Read]]:
    """Cuts somewhere: it must not matter."""
    at = 0
    while at < len(records):
        size = random.choice((1, 7, 100, 4096))
        yield records[at : at + size]
        at += size


def _before(records: Iterable[Read], offset: int) -> list[Read]:
    return [record for record in records if record.offset < offset]


def check(road: Road, caps: tuple[int, int] = UNCAPPED) -> list[Order]:
    """Asserts that what the topics hold is what undisturbed workers would have published; the workers must have ended.

    `caps` (of a tenant, of all) are asserted too. Returns the commands.
    """
    check_detect(road)
    undisturbed, reached = Undisturbed(road), _reached(road, "decide", SIGNALS)
    audit, killswitch, incidents = read(road, AUDIT), read(road, KILLSWITCH), read(road, INCIDENTS)
    commands: list[Order] = []
    letters: set[tuple[int, int]] = set()
    for number, records in enumerate(read(road, SIGNALS)):
        expected = undisturbed.outcomes(_before(records, reached[number]))
        assert undisturbed.published(audit[number]) == expected.orders, f"commands of partition {number}"
        in_force = _last(undisturbed.published(killswitch[number]))
        assert in_force == _last(expected.orders), f"in force in partition {number}"
        assert list(dict.fromkeys(r.value for r in incidents[number])) == list(dict.fromkeys(expected.incidents))
        _assert_capped(expected.orders, records, *caps)
        commands += expected.orders
        letters |= expected.letters
    assert {(letter.partition, letter.offset) for letter in _letters(road, SIGNALS)} == letters
    return commands


def check_detect(road: Road) -> None:
    """Asserts it of detect alone."""
    undisturbed, reached = Undisturbed(road), _reached(road, "detect", USAGE)
    usage = read(road, USAGE)
    covered = [_before(records, reached[number]) for number, records in enumerate(usage)]
    signals = {r.value for records in read(road, SIGNALS) for r in records if _is_told(r.value)}
    letters = {encode(letter) for letter in _letters(road, USAGE)}
    least, most = undisturbed.signals(covered), undisturbed.signals(usage)
    for which, what, got in ((0, "signals", signals), (1, "dead letters", letters)):
        lacking, foreign = least[which] - got, got - most[which]
        assert not lacking | foreign, (
            f"of {len(least[which])} {what} {_counted(lacking)} were never published; of {len(got)} that were, "
            f"{_counted(foreign)} follow from no record; detect has read to {reached}{_shown(lacking, got)}"
            f"{_shown(foreign, most[which])}"
        )


def _counted(wrong: set[bytes]) -> str:
    """How many there are, in all and by the partition of llm.usage."""
    by_partition = Counter(found[1].decode() for value in wrong if (found := re.search(rb'"partition":(\d+)', value)))
    return f"{len(wrong)} {dict(sorted(by_partition.items()))}"


def _shown(wrong: set[bytes], among: set[bytes]) -> str:
    """One of the `wrong`, and the one `among` others that has the same id or end of a bucket."""
    if not wrong:
        return ""
    one = min(wrong)
    mark = re.search(rb'"finding_id":"[^"]+"|"tenant":"[^"]+","end":"[^"]+","partition":\d+|"offset":\d+', one)
    same = [value for value in among if mark and mark[0] in value]
    return f"\n{one!r}\nwhere there is\n{same[:1]}"


def _letters(road: Road, topic: str) -> list[DeadLetter]:
    """The dead letters of a topic."""
    letters = (_decode_letter(r.value) for records in read(road, DEAD_LETTERS) for r in records)
    return [letter for letter in letters if letter.topic == topic]


def _reached(road: Road, app: str, topic: str) -> dict[int, int]:
    return {at.partition: at.offset for at in road.committed(app) if at.topic == topic}


def _is_told(value: bytes) -> bool:
    """Whether a record of llm.signals is detect's: no tick, and nothing that can't be read."""
    try:
        return not isinstance(decode_signal(value), Tick)
    except ValueError:
        return False


def _last(orders: Iterable[Order]) -> dict[tuple[str, str, str], Order]:
    """The order with the greatest epoch of each subject."""
    ranked = sorted(orders, key=lambda order: order.command.epoch)
    return {(o.command.tenant, o.command.scope, o.command.subject): o for o in ranked}


def _assert_capped(orders: Sequence[Order], signals: Sequence[Read], of_tenant: int, of_all: int) -> None:
    """Asserts that no more identities were suspended or revoked within ten minutes, but for deterministic rules."""
    findings = (decode_signal(r.value) for r in signals if r.value and b"llm.finding.v1" in r.value)
    exempt = {f.finding_id for f in findings if isinstance(f, Finding) and f.evidence.deterministic}
    blocked = {
        (o.command.tenant, o.command.identity)
        for o in orders
        if o.command.action in ("suspend", "revoke") and not exempt.intersection(o.command.finding_ids)
    }
    assert len(blocked) <= of_all
    for tenant in {tenant for tenant, _ in blocked}:
        assert sum(t == tenant for t, _ in blocked) <= of_tenant

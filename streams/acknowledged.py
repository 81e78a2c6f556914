"""The gateways as their acknowledgements show them, and which of them were heard of lately."""

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from msgspec import Struct

from schemas.topics import ACKS
from streams.committed import committed_records
from streams.settings import Kafka

_LATELY_MS = 5 * 60_000
"""A gateway that lives says so every minute."""
_SECONDS = 15.0
_GROUP = "tripswitch-operator-keys"
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class Gateway(Struct):
    """The last that was heard of a gateway. Times are ms; `keys` names those that it verifies commands with, `checked`
    the callers that it asked its table about: (hash of tenant and name, hash of the name)."""

    name: str
    heard: int
    alive: int = 0
    ready: bool = True
    stale: bool = False
    keys: str = ""
    refused: int = 0
    checked: tuple[tuple[str, str], ...] = ()


def heard_of(records: Iterable[bytes], found: dict[str, Gateway] | None = None) -> dict[str, Gateway]:
    """The gateways that acknowledged something, by name, beside those that were `found` before. What is no
    acknowledgement is passed over: whoever may write there may write anything."""
    found = {} if found is None else found
    for raw in records:
        try:
            record, name, at = _read(raw)
            told = record.get("unmapped") or {}
            _note(found.setdefault(name, Gateway(name, at)), at, told)
        except _UNREADABLE:
            continue
    return found


def obeyed(raw: bytes, command_id: str) -> dict[str, int]:
    """The gateway that acknowledges the command in a record, and when (ms); nothing where it does not."""
    try:
        record, name, at = _read(raw)
        return {name: at} if record["command_uid"] == command_id and record["status_id"] == 1 else {}
    except _UNREADABLE:
        return {}


def _read(raw: bytes) -> tuple[Mapping[str, Any], str, int]:
    """An acknowledgement, whose it is, and when it was written. Raises one of `_UNREADABLE` for anything else."""
    record = json.loads(raw)
    return record, str(record["metadata"]["product"]["vendor_name"]), int(record["time"])


def _note(gateway: Gateway, at: int, told: Mapping[str, Any]) -> None:
    gateway.heard = max(gateway.heard, at)
    if told.get("jwks_sha256") is None or at < gateway.alive:
        return
    gateway.alive, gateway.keys = at, str(told["jwks_sha256"])
    gateway.ready, gateway.stale = bool(told.get("ready", True)), bool(told.get("stale", False))
    gateway.refused = sum(told["refused"].values()) if isinstance(told.get("refused"), dict) else 0
    gateway.checked = tuple((str(a), str(b)) for a, b in told.get("checked") or ())


class Acknowledged:
    """Follows the acknowledgements of the last minutes."""

    def __init__(self, kafka: Kafka) -> None:
        """Asks where the last minutes begin.

        Raises:
            KafkaException: the broker does not answer.
        """
        self._kafka = kafka
        self._gateways: dict[str, Gateway] = {}
        self._next: dict[int, int] = {}
        since = int(time.time() * 1000) - _LATELY_MS
        with closing(Consumer({**kafka.confluent(), "group.id": _GROUP, "log_level": "0"})) as consumer:
            numbers = consumer.list_topics(ACKS, timeout=_SECONDS).topics[ACKS].partitions
            asked = [TopicPartition(ACKS, number, since) for number in numbers]
            for at in consumer.offsets_for_times(asked, timeout=_SECONDS):
                # Behind the last record where none is so young.
                _, high = consumer.get_watermark_offsets(at, timeout=_SECONDS)
                self._next[at.partition] = at.offset if at.offset >= 0 else high

    def gateways(self) -> list[Gateway]:
        """Who was heard of in the last minutes, by name.

        Raises:
            KafkaException, TimeoutError: the acknowledgements can't be read.
        """
        for number, since in self._next.items():
            for message in committed_records(self._kafka, ACKS, number, _GROUP, since=since, quiet=True):
                self._next[number] = message.offset() + 1
                heard_of([message.value() or b""], self._gateways)
        return [gateway for _, gateway in sorted(self._gateways.items())]

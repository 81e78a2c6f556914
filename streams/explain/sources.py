"""Where findings and their events come from: a replay's folder and its events file, or ClickHouse and Kafka."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from responses.approved import Ordered
from schemas.command import Command
from schemas.decoding import Malformed
from schemas.finding import Finding, Tick, decode_signal
from schemas.incident import Incident
from schemas.times import parse_millis, to_millis
from schemas.topics import USAGE
from schemas.usage import UsageEvent, decode_usage
from streams.archived import Archived
from streams.explain.again import Item
from streams.explain.approvals import approvals_in
from streams.intake import AHEAD, FileIntake
from streams.partitioner import partition_of
from streams.replay import CHUNK, in_chunks, open_events
from streams.settings import Kafka, Signing

_Row = TypeVar("_Row")


class SourceError(ValueError):
    """Records that can't be read or are not there; says which, and what to do."""


class Source(Protocol):
    """Findings, incidents and commands of the past, and the events behind them."""

    def incident(self, incident_id: str) -> Incident | None:
        """An incident by its id."""
        ...

    def finding(self, finding_id: str) -> Finding | None:
        """A finding by its id."""
        ...

    def findings(self, tenant: str) -> list[Finding]:
        """All findings on identities of a tenant, in order of time."""
        ...

    def commands(self, tenant: str, identity: str) -> list[Command]:
        """All commands on an identity, in order of time."""
        ...

    def approvals(self, tenant: str) -> list[Ordered]:
        """What people approved of a tenant's identities by an order, in order of time."""
        ...

    def items(self, partition: int) -> Iterator[Item]:
        """What a partition was given, from its beginning."""
        ...


class ReplayFolder:
    """What `tripswitch replay` wrote, and the events that it read."""

    def __init__(self, folder: Path, events: str) -> None:
        self._findings = _rows(folder, "findings.jsonl", Finding)
        self._incidents = read_incidents(folder)
        self._commands = _rows(folder, "commands.jsonl", Command)
        self.events = events
        self.partitions = _partitions(folder)

    def incident(self, incident_id: str) -> Incident | None:
        """An incident by its id."""
        return next((i for i in self._incidents if i.incident_id == incident_id), None)

    def finding(self, finding_id: str) -> Finding | None:
        """A finding by its id."""
        return next((f for f in self._findings if f.finding_id == finding_id), None)

    def findings(self, tenant: str) -> list[Finding]:
        """All findings on identities of a tenant, in order of time."""
        return [f for f in self._findings if f.tenant == tenant]

    def commands(self, tenant: str, identity: str) -> list[Command]:
        """All commands on an identity, in order of time."""
        return [c for c in self._commands if (c.tenant, c.identity) == (tenant, identity)]

    def approvals(self, tenant: str) -> list[Ordered]:  # noqa: ARG002
        """None: a replay takes no orders."""
        return []

    def items(self, partition: int) -> Iterator[Item]:
        """The events of a partition, numbered as the replay did, and the end of the file.

        Raises:
            EventsError: the file can't be read.
        """
        offset = 0
        for event in self._accepted():
            if self.partitions == 1 or partition_of(event.subject.encode(), self.partitions) == partition:
                yield Item(offset, 0, event)
                offset += 1
        yield Item(-1, 0, None)

    def _accepted(self) -> Iterator[UsageEvent]:
        intake = FileIntake()
        with open_events(self.events) as lines:
            for part in in_chunks(lines, CHUNK):
                yield from intake.admit(part).events
        yield from intake.finish().events


class Archive:
    """ClickHouse for what was found, Kafka for what it was found in."""

    def __init__(self, archived: Archived, kafka: Kafka, signing: Signing) -> None:
        self._archived = archived
        self._kafka = kafka
        self._signing = signing

    def incident(self, incident_id: str) -> Incident | None:
        """An incident by its id."""
        return next(iter(self._archived.incidents(incident_id)), None)

    def finding(self, finding_id: str) -> Finding | None:
        """A finding by its id."""
        return next(iter(self._archived.findings(finding_id=finding_id)), None)

    def findings(self, tenant: str) -> list[Finding]:
        """All findings on identities of a tenant, in order of time."""
        return self._archived.findings(tenant=tenant)

    def commands(self, tenant: str, identity: str) -> list[Command]:
        """All commands on an identity, in order of time."""
        return self._archived.commands(tenant, identity)

    def approvals(self, tenant: str) -> list[Ordered]:
        """What people approved of a tenant's identities by an order, in order of time.

        Raises:
            BadKey: there are such orders, and no keys to verify them with.
        """
        return approvals_in(self._archived.tokens(tenant, "approve"), self._signing)

    def items(self, partition: int) -> Iterator[Item]:
        """What `detect` made of the records of `llm.usage`, from the first one on.

        Raises:
            SourceError: the broker does not answer, or its first records are gone.
        """
        from confluent_kafka import KafkaException

        from streams.committed import committed_records

        group = f"tripswitch-operator-explain-{uuid.uuid4().hex[:8]}"
        first = True
        try:
            for record in committed_records(self._kafka, USAGE, partition, group):
                if first and record.offset() > 0:
                    raise SourceError(
                        f"{USAGE}/{partition} begins at offset {record.offset()}: what came before is gone, and with "
                        "it the state that the finding was made from"
                    )
                first = False
                stamp = max(0, record.timestamp()[1])
                yield from _live(record.offset(), stamp, record.value() or b"")
        except (KafkaException, TimeoutError) as error:
            raise SourceError(f"{USAGE}/{partition} of {self._kafka.bootstrap} can't be read: {error}") from error


def _live(offset: int, stamp: int, value: bytes) -> Iterator[Item]:
    """What a record of `llm.usage` is to `detect`; nothing where it is a dead letter."""
    try:
        event = decode_usage(value)
    except Malformed:
        try:
            tick = decode_signal(value)
        except Malformed:
            return
        if isinstance(tick, Tick):
            yield Item(offset, stamp, None, parse_millis(tick.time))
        return
    if not stamp or to_millis(event.time) - stamp <= AHEAD:
        yield Item(offset, stamp, event)


def read_incidents(folder: Path) -> list[Incident]:
    """The incidents of a replay.

    Raises:
        SourceError: there are none, or not such.
    """
    return _rows(folder, "incidents.jsonl", Incident)


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(f"{folder}: no {name} in it; name the folder that `tripswitch replay --out` wrote") from error


def _rows(folder: Path, name: str, kind: type[_Row]) -> list[_Row]:
    decoder = msgspec.json.Decoder(kind)
    out: list[_Row] = []
    for number, line in enumerate(_read(folder, name).splitlines(), 1):
        try:
            out.append(decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SourceError(f"{folder / name}:{number}: {error}") from error
    return out


def _partitions(folder: Path) -> int:
    raw = _read(folder, "summary.json")
    try:
        return int(msgspec.json.decode(raw, type=dict[str, float])["partitions"])
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
        raise SourceError(f"{folder}/summary.json does not say `partitions`; replay the events again") from error

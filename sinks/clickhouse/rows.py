"""From a topic's records to the rows of its tables, packed in ClickHouse's MsgPack format.

MsgPack rows are the values one after the other, without anything around them: one flat list of Python objects, packed
in one call, is the cheapest way into ClickHouse that we measured (docs/clickhouse.md), and keeps doubles and bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from schemas import topics
from schemas.dead_letter import DeadLetter
from schemas.decoding import Malformed
from schemas.finding import Finding, TenantBucket, Tick, decode_signal, encode
from schemas.incident import decode_incident
from schemas.request import Request
from schemas.times import parse_millis, to_millis
from schemas.usage import UsageData, decode_usage
from sinks.clickhouse.acknowledgement import decode_acknowledgement
from sinks.clickhouse.signed import command_claims, payload

AHEAD_MS = 5 * 60 * 1000
"""An event's time may be this far ahead of its record's; beyond it is a dead letter (the usage event's wire format)."""

LATEST_MS = 10_413_791_999_999
"""2299-12-31T23:59:59.999Z: what a DateTime64 can hold."""


class Record(NamedTuple):
    """A Kafka record; `timestamp_ms` is the broker's (-1 where there is none)."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one table, as the body of `INSERT INTO table (columns) FORMAT MsgPack`."""

    table: str
    columns: tuple[str, ...]
    body: bytes
    rows: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What a topic's records came to. `unreadable` counts records that are in no block but `dead_letters`, if any."""

    blocks: tuple[Block, ...]
    unreadable: int


Row = tuple[object, ...]
TenantOf = Callable[[str], str]

_USAGE_FIELDS = tuple(field.name for field in msgspec.structs.fields(UsageData))
_TENANT = _USAGE_FIELDS.index("tenant")
_USAGE_PLACE = ("kafka_partition", "kafka_offset", "event_id", "source", "identity", "time")
COLUMNS: dict[str, tuple[str, ...]] = {
    "usage_events": (*_USAGE_PLACE, *_USAGE_FIELDS),
    "findings": (
        "finding_id", "time", "tenant", "identity", "kind", "severity", "score", "detector", "window", "observed",
        "baseline", "reason", "usd_per_minute", "baseline_usd_per_minute", "deterministic", "extreme", "evidence",
    ),
    "tenant_buckets": (
        "tenant", "bucket_end", "usage_partition", "time", "identities", "requests", "failures", "tokens", "cost_usd",
        "denied",
    ),
    "incidents": (
        "incident_id", "tenant", "identity", "opened", "updated", "closed", "state", "kinds", "risk", "severity",
        "usd_per_minute", "baseline_usd_per_minute", "headline", "response", "finding_ids", "command_ids", "raised",
    ),
    "commands": (
        "command_id", "time", "decided", "tenant", "identity", "scope", "subject", "action", "epoch", "expires_at",
        "on_expiry", "mode", "manual", "reason", "limit_rpm", "limit_tpm", "limit_model", "in_flight", "http_status",
        "incident_id", "finding_ids", "evidence_sha256", "policy", "issuer", "key_id", "token",
    ),
    "requests": ("request_id", "time", "tenant", "identity", "action", "reason", "requested_by", "token"),
    "acknowledgements": (
        "command_uid", "gateway", "product", "time", "activity_id", "status_id", "status_detail", "epoch",
        "propagation_ms", "streams_aborted",
    ),
    "dead_letters": ("topic", "kafka_partition", "kafka_offset", "time", "reason", "raw"),
}  # fmt: skip

_pack = msgspec.msgpack.Encoder().encode
_request = msgspec.json.Decoder(Request).decode
_dead_letter = msgspec.json.Decoder(DeadLetter).decode


def usage_batch(records: Sequence[Record], tenant_of: TenantOf) -> Batch:
    """The rows of `llm.usage`. `tenant_of` names the tenant of an identity whose event names none.

    What is unreadable here is a dead letter of `detect`'s, and comes to its table on that way: it is only counted.
    """
    flat: list[object] = []
    rows = 0
    for partition, offset, timestamp, _, value in records:
        try:
            event = decode_usage(value or b"")
        except Malformed:
            continue
        time = to_millis(event.time)
        if not 0 <= time <= (timestamp + AHEAD_MS if timestamp > 0 else LATEST_MS):
            continue
        flat += (partition, offset, event.id, event.source, event.subject, time)
        flat += msgspec.structs.astuple(event.data)
        if not event.data.tenant:
            flat[_TENANT - len(_USAGE_FIELDS)] = tenant_of(event.subject)
        rows += 1
    blocks = (Block("usage_events", COLUMNS["usage_events"], _flat(flat), rows),) if rows else ()
    return Batch(blocks, len(records) - rows)


def batch(topic: str, records: Sequence[Record]) -> Batch:
    """The rows of any other topic, of those in `READERS`. Tombstones and ticks have none.

    What is unreadable becomes a dead letter, as nobody else would keep it.
    """
    read = READERS[topic]
    packed: dict[str, list[bytes]] = {}
    unreadable = 0
    for record in records:
        if record.value is None:
            continue
        try:
            entry = read(record.value)
            if entry is None:
                continue
            table, row = entry
            body = _flat(row)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
            unreadable += 1
            table = "dead_letters"
            time = min(max(record.timestamp_ms, 0), LATEST_MS)
            body = _flat((topic, record.partition, record.offset, time, str(error), record.value))
        packed.setdefault(table, []).append(body)
    blocks = tuple(Block(table, COLUMNS[table], b"".join(bodies), len(bodies)) for table, bodies in packed.items())
    return Batch(blocks, unreadable)


def _signal(value: bytes) -> tuple[str, Row] | None:
    signal = decode_signal(value)
    if isinstance(signal, Tick):
        return None
    return _finding(signal) if isinstance(signal, Finding) else _tenant_bucket(signal)


def _finding(finding: Finding) -> tuple[str, Row]:
    evidence = finding.evidence
    return "findings", (
        finding.finding_id, _millis(finding.time), finding.tenant, finding.identity, finding.kind, finding.severity,
        finding.score, finding.detector, finding.window, finding.observed, finding.baseline, finding.reason,
        evidence.usd_per_minute, evidence.baseline_usd_per_minute, evidence.deterministic, evidence.extreme,
        encode(evidence).decode(),
    )  # fmt: skip


def _tenant_bucket(bucket: TenantBucket) -> tuple[str, Row]:
    return "tenant_buckets", (
        bucket.tenant, _millis(bucket.end), bucket.partition, _millis(bucket.time), bucket.identities, bucket.requests,
        bucket.failures, bucket.tokens, bucket.cost_usd, bucket.denied,
    )  # fmt: skip


def _incident(value: bytes) -> tuple[str, Row]:
    incident = decode_incident(value)
    return "incidents", (
        incident.incident_id, incident.tenant, incident.identity, _millis(incident.opened), _millis(incident.updated),
        None if incident.closed is None else _millis(incident.closed), incident.state, incident.kinds, incident.risk,
        incident.severity, incident.usd_per_minute, incident.baseline_usd_per_minute, incident.headline,
        incident.response, incident.finding_ids, incident.command_ids, [_millis(time) for time in incident.raised],
    )  # fmt: skip


def _command(token: bytes) -> tuple[str, Row]:
    key_id, claims, event = command_claims(token)
    ext, limits = event.ext, event.ext.limits
    return "commands", (
        claims.jti, _storable(ext.not_before), _storable(event.event_timestamp * 1000), ext.tenant, ext.identity,
        ext.scope, ext.subject, ext.action, ext.epoch, None if ext.expires_at is None else _storable(ext.expires_at),
        ext.on_expiry, ext.mode, ext.manual, event.reason_admin.get("en", ""), limits and limits.rpm,
        limits and limits.tpm, limits and limits.model, ext.in_flight, ext.http_status, claims.txn, ext.finding_ids,
        ext.evidence_sha256, ext.policy, claims.iss, key_id, token.decode(),
    )  # fmt: skip


def _request_row(value: bytes) -> tuple[str, Row]:
    request = _request(payload(value))
    return "requests", (
        request.request_id, _millis(request.time), request.tenant, request.identity, request.action, request.reason,
        request.by, value.decode(),
    )  # fmt: skip


def _acknowledgement(value: bytes) -> tuple[str, Row]:
    ack = decode_acknowledgement(value)
    product, unmapped = ack.metadata.product, ack.unmapped
    return "acknowledgements", (
        ack.command_uid, product.vendor_name or product.name, product.name, _storable(ack.time), ack.activity_id,
        ack.status_id, ack.status_detail, unmapped.epoch, unmapped.propagation_ms, unmapped.streams_aborted,
    )  # fmt: skip


def _dead_letter_row(value: bytes) -> tuple[str, Row]:
    letter = _dead_letter(value)
    return "dead_letters", (
        letter.topic, letter.partition, letter.offset, _millis(letter.time), letter.reason, letter.raw,
    )  # fmt: skip


READERS: dict[str, Callable[[bytes], tuple[str, Row] | None]] = {
    topics.SIGNALS: _signal,
    topics.INCIDENTS: _incident,
    topics.AUDIT: _command,
    topics.REQUESTS: _request_row,
    topics.ACKS: _acknowledgement,
    topics.DEAD_LETTERS: _dead_letter_row,
}


def _millis(text: str) -> int:
    return _storable(parse_millis(text))


def _storable(millis: int) -> int:
    """`millis`; raises ValueError for a time that would come out of ClickHouse as another."""
    if not 0 <= millis <= LATEST_MS:
        raise ValueError(f"the time {millis} ms is not between 1970 and 2299")
    return millis


def _flat(values: Sequence[object]) -> bytes:
    """`values` packed one after the other: a MsgPack array without its header of 1, 3 or 5 bytes."""
    header = 1 if len(values) < 1 << 4 else 3 if len(values) < 1 << 16 else 5
    return _pack(values)[header:]

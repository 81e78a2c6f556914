"""All of the doctor's checks, one after the other."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from schemas.decoding import Malformed
from schemas.topics import ACKS, KILLSWITCH, TOPICS, USAGE
from schemas.usage import UsageEvent, decode_usage
from sinks.killswitch import Signer, Verifier
from streams.acknowledged import heard_of
from streams.doctor.broker import check_rights, check_topics
from streams.doctor.canary import Canary, check_canary
from streams.doctor.check import Check
from streams.doctor.gateways import check_gateways, is_silent
from streams.doctor.heartbeats import check_heartbeats
from streams.doctor.names import calls, check_names, check_served
from streams.in_force import read_partition
from streams.init import reach
from streams.recent import recent_records
from streams.settings import Settings

_EVENTS, _ACKS = 5_000, 20_000
"""Records of each partition."""


def examine(settings: Settings, canary: Canary | None) -> Iterator[Check]:
    """Looks at everything; what needs the topics is left out where some are missing.

    Raises:
        Unreachable: no broker answers.
        BadKey: a key file can't be used.
        KafkaException: the broker refuses to be read.
        TimeoutError: it stopped answering.
    """
    kafka = settings.kafka
    partitions = reach(kafka)
    yield from check_topics(kafka, partitions)
    yield from check_rights(kafka)
    if any(topic.name not in partitions for topic in TOPICS):
        return
    verifier = Verifier.read(Path(settings.signing.jwks))
    found = {n: read_partition(kafka, n, verifier, quiet=True) for n in range(partitions[KILLSWITCH])}
    now = time.time_ns() // 1_000_000
    yield from check_heartbeats(found, now)
    gateways = heard_of(recent_records(kafka, ACKS, partitions[ACKS], _ACKS)).values()
    yield from check_gateways(gateways, now, verifier.keys.sha256)
    recent = calls(_decoded(recent_records(kafka, USAGE, partitions[USAGE], _EVENTS)), settings.known())
    commands = [written.command for partition in found.values() for written in partition.commands.values()]
    yield from check_served(recent, commands)
    yield from check_names(recent, gateways)
    if canary is not None:
        signing = settings.signing
        signer = Signer.read(Path(signing.operator_key or signing.key), issuer=signing.issuer, contact="")
        living = [gateway.name for gateway in gateways if not is_silent(gateway, now)]
        yield from asyncio.run(check_canary(canary, living, kafka, signer, verifier))


def _decoded(lines: Iterable[bytes]) -> Iterator[UsageEvent]:
    for line in lines:
        try:
            yield decode_usage(line)
        except Malformed:
            continue

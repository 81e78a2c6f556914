"""`tripswitch status`: what gateways report, and what detectors can make of it."""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
import typer

from schemas.decoding import Malformed
from schemas.directory import Directory
from schemas.usage import UsageEvent, decode_usage
from sinks.errors import Unreachable
from streams.commands.terminal import DirectoryOption, JsonOption, Mistake, console, known, one_line, progress
from streams.settings import SettingsError, read_settings
from streams.status import GatewayStatus, Status

_MOST = 5_000
"""Records of each partition of the topic."""


def status(
    events: Annotated[str | None, typer.Argument(help="A file of usage events; - for standard input.")] = None,
    kafka: Annotated[bool, typer.Option("--kafka", help="The last events on the settings' broker instead.")] = False,
    directory: DirectoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Says, per gateway, which fields are missing, and so which detectors are blind to what."""
    from streams.status_table import table

    with one_line():
        if (events is None) == (not kafka):
            raise Mistake("name a file of usage events, or --kafka")
        who = known(directory)
        gateways = _counted(events, who) if events is not None else _of_kafka(who)
    if as_json:
        print(json.dumps(msgspec.to_builtins(gateways)))
    else:
        console().print(table(gateways))


def _counted(path: str, directory: Directory) -> list[GatewayStatus]:
    from streams.replay import CHUNK, in_chunks, open_events

    counts = Status(directory)
    with open_events(path) as lines, progress(f"reading {path}") as advance:
        for chunk in in_chunks(lines, CHUNK):
            counts.take(_decoded(chunk))
            if advance:
                advance(len(chunk))
    return counts.gateways()


def _of_kafka(directory: Directory) -> list[GatewayStatus]:
    from confluent_kafka import KafkaException

    from schemas.topics import USAGE
    from streams.init import reach
    from streams.recent import recent_records

    settings, counts = read_settings().kafka, Status(directory)
    topics = reach(settings)
    if USAGE not in topics:
        raise SettingsError(f"the broker at {settings.bootstrap} lacks {USAGE}; run `tripswitch init` first")
    try:
        counts.take(_decoded(recent_records(settings, USAGE, topics[USAGE], _MOST)))
    except (KafkaException, TimeoutError) as error:
        raise Unreachable(f"{USAGE} at {settings.bootstrap} can't be read: {error}") from error
    return counts.gateways()


def _decoded(lines: Iterable[bytes]) -> Iterator[UsageEvent]:
    for line in lines:
        try:
            yield decode_usage(line)
        except Malformed:
            continue

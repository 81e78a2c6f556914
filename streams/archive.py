"""The `archive` app: every topic in, ClickHouse out.

    tripswitch run archive      (also: faust -A streams.archive:app worker)

A batch is one partition's records in offset order; it is acknowledged when ClickHouse has it. While ClickHouse is
away nothing is lost: Kafka holds it.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faust

from schemas.directory import Directory
from sinks.clickhouse import TOPICS, ClickHouseSink, Record
from streams.app import make_app
from streams.gathering import gather
from streams.settings import Kafka, SettingsError, read_settings

_EVERY_SECONDS = 1.0


def make_sink(url: str, directory: Directory) -> ClickHouseSink:
    """The sink of the settings.

    Raises:
        SettingsError: `url` is no address.
    """
    try:
        return ClickHouseSink(url, tenant_of=directory.tenant_of)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def make(sink: ClickHouseSink, kafka: Kafka) -> faust.App:
    """The app around `sink`, all of whose calls come from one thread: an embedded ClickHouse wants that."""
    app, source = make_app("archive", kafka, TOPICS)
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clickhouse")

    ready = False

    def store(topic: str, rows: list[Record]) -> None:
        nonlocal ready
        if not ready:
            sink.setup()
            ready = True
        sink.write(topic, rows)

    async def write(topic: str, partition: int, records: list[Any]) -> None:
        rows = [Record(partition, r.offset, max(0, r.timestamp), r.key, r.value) for r in records]
        await asyncio.get_running_loop().run_in_executor(thread, store, topic, rows)

    gathering = gather(app, source, "archive", write, every=_EVERY_SECONDS)

    @app.on_before_shutdown.connect
    async def close(_: object, **kwargs: object) -> None:
        await gathering.flush()
        await asyncio.get_running_loop().run_in_executor(thread, sink.close)

    return app


def __getattr__(name: str) -> faust.App:
    """`app`, made when it is asked for, so that importing this module needs no settings."""
    if name != "app":
        raise AttributeError(name)
    settings = read_settings()
    app = make(make_sink(settings.clickhouse.url, settings.known()), settings.kafka)
    globals()["app"] = app
    return app

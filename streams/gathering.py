"""Chunks gathered per partition until there are enough, or a second has gone by: what a sink wants to be given."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import faust

from sinks.errors import Retry

ENOUGH = 10_000
"""Records of one partition that are written at once."""

Write = Callable[[str, int, list[Any]], Awaitable[None]]


class Gathering:
    """Holds events of a batch topic; writes them in offset order and acknowledges them when they are written.

    `write(topic, partition, records)` may raise Retry, and is asked again once `on_wait` has waited and says so.
    Nothing is acknowledged until it returns. Any other error is the end of the worker.
    """

    def __init__(self, write: Write, *, on_wait: Callable[[Retry], Awaitable[bool]]) -> None:
        self._write = write
        self._on_wait = on_wait
        self._events: dict[Any, list[faust.EventT]] = {}
        self._count: dict[Any, int] = {}
        self._writing = asyncio.Lock()

    async def add(self, event: faust.EventT) -> None:
        """Takes an event in; writes its partition's when there are enough."""
        tp = event.message.tp
        self._events.setdefault(tp, []).append(event)
        self._count[tp] = self._count.get(tp, 0) + len(event.value)
        if self._count[tp] >= ENOUGH:
            await self.flush([tp])

    async def flush(self, partitions: list[Any] | None = None) -> None:
        """Writes what is held, of `partitions` or of all."""
        async with self._writing:
            for tp in list(self._events) if partitions is None else partitions:
                events = self._events.pop(tp, [])
                self._count.pop(tp, None)
                if events:
                    await self._persist(tp, events)

    def forget(self, revoked: set[Any]) -> None:
        """Drops what is held of partitions that went elsewhere: their new owner reads it again."""
        for tp in revoked:
            self._events.pop(tp, None)
            self._count.pop(tp, None)

    async def _persist(self, tp: Any, events: list[faust.EventT]) -> None:
        records = [record for event in events for record in event.value]
        while True:
            try:
                await self._write(tp.topic, tp.partition, records)
            except Retry as error:
                if not await self._on_wait(error):
                    # Not acknowledged: whoever comes next reads it again.
                    return
            else:
                break
        for event in events:
            event.ack()


def gather(app: faust.App, source: faust.TopicT, name: str, write: Write, *, every: float) -> Gathering:
    """Gives `app` an agent that gathers `source` and writes at least every `every` seconds."""

    async def waiting(error: Retry) -> bool:
        """Waits as the sink asks; False when the worker is to stop instead."""
        app.log.warning("%s waits %.1f s: %s", name, error.after, error)
        await app.sleep(error.after)
        return not app.should_stop

    gathering = Gathering(write, on_wait=waiting)

    async def or_crash(writing: Awaitable[None]) -> None:
        """Faust would go on with the next chunk after what the sink could not take."""
        try:
            await writing
        except Exception as error:
            await app.crash(error)
            raise

    @app.agent(source, name=name)
    async def take(stream: faust.StreamT) -> None:
        async for event in stream.noack().events():
            await or_crash(gathering.add(event))

    @app.task
    async def flush() -> None:
        while not app.should_stop:
            await app.sleep(every)
            if not app.rebalancing:
                await or_crash(gathering.flush())

    @app.on_partitions_revoked.connect
    async def revoked(_: object, revoked: set[Any], **kwargs: object) -> None:
        gathering.forget(revoked)

    return gathering

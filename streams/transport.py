"""Faust's Kafka transport, with one Faust event per fetched chunk instead of one per record.

Faust spends about 200 microseconds on each event; a chunk of records pays that once. Agents, acks, commits and
rebalances stay Faust's. What is leaned on inside Faust, and why, is in docs/decisions/0001-batch-transport.md.

A batch topic's event carries a `Chunk` of records of one partition in offset order; its message has the last one's
offset, and acknowledging it acknowledges the chunk.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import faust
from faust.serializers import codecs
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.fetched import Chunk, Fetched
from streams.fetching import fetch_in_chunks

CHUNK = 2048
"""Records per event, at the most."""
FETCH_WAIT_MS = 100
IN_FLIGHT = 32_768
"""Records handed out and not acknowledged, over all partitions; fetching waits beyond it."""


class _Untouched(codecs.Codec):  # type: ignore[misc]
    """Hands a chunk over as it is."""

    def loads(self, s: Any) -> Any:
        return s

    def dumps(self, obj: Any) -> Any:
        return obj


codecs.register("chunk", _Untouched())


class _Thread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer thread. Faust lets a broker hold an idle fetch for 1.5 s, and reads what is not committed; it
    has no setting for either."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001
        consumer._isolation_level = "read_committed"  # noqa: SLF001
        return consumer


class BatchConsumer(driver.Consumer):  # type: ignore[misc]
    """A consumer that delivers some topics by the chunk. The others are delivered as Faust does."""

    batch_topics: frozenset[str] = frozenset()
    commits = True
    """Whether Faust commits what is acknowledged; else somebody else does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._chunks: dict[TP, deque[tuple[int, int]]] = {}
        """Per partition, (last offset, records) of the chunks handed out, oldest first, until they are committable."""
        self._sizes: dict[tuple[TP, int], int] = {}
        """Records of the chunks that are not acknowledged."""
        self._in_flight = 0
        self._room = asyncio.Event()

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            for last, _ in self._chunks.pop(tp, ()):
                self._in_flight -= self._sizes.pop((tp, last), 0)
        self._room.set()

    def ack(self, message: ConsumerMessage) -> bool:
        done = bool(super().ack(message))
        # Popped, so that a chunk which outlives its partition's revocation is not counted twice.
        self._in_flight -= self._sizes.pop((message.tp, message.offset), 0)
        if self._in_flight < IN_FLIGHT:
            self._room.set()
        return done

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return bool(await super()._commit(offsets)) if self.commits else True

    def _new_offset(self, tp: TP) -> int | None:
        """The offset to commit: behind the last of the chunks that are acknowledged without a gap."""
        if tp.topic not in self.batch_topics:
            return super()._new_offset(tp)  # type: ignore[no-any-return]
        acked, waiting, offset = self._acked_index[tp], self._chunks.get(tp, deque()), None
        while waiting and waiting[0][0] in acked:
            offset = waiting.popleft()[0]
            acked.discard(offset)
        self._acked[tp] = sorted(acked)
        return None if offset is None else offset + 1

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetches and hands out until the consumer or the fetcher stops."""
        try:
            while not (self._stopped.is_set() or fetcher.should_stop):
                await asyncio.sleep(0)
                records, active = await self._wait_next_records(1.0)
                generation = self.app.consumer_generation_id
                if self.should_stop or not records:
                    continue
                if not self.flow_active:
                    # What was fetched while the flow stood still is fetched again.
                    await self.perform_seek()
                    continue
                for tp, fetched in records.items():
                    if self._interrupted(generation):
                        break
                    if active is None or tp in active or tp in self._buffered_partitions:
                        self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                        deliver = self._deliver_chunks if tp.topic in self.batch_topics else self._deliver_each
                        await deliver(tp, fetched, generation)
        except self.consumer_stopped_errors:
            if not self.transport.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.transport.app.should_stop:
                raise

    # `_read_offset` is, as Faust's seek leaves it, the offset that is wanted next.

    async def _deliver_chunks(self, tp: TP, records: Chunk, generation: int) -> None:
        read = self._read_offset[tp]
        fresh = 0 if read is None else int(records.offsets.searchsorted(read))
        for first in range(fresh, len(records), CHUNK):
            while self._in_flight >= IN_FLIGHT and not self._interrupted(generation):
                self._room.clear()
                await self.wait_first(self._room.wait(), self.suspend_flow.wait(), timeout=1.0)
            if self._interrupted(generation):
                return
            chunk = records[first : first + CHUNK]
            last = chunk[-1]
            self._chunks.setdefault(tp, deque()).append((last.offset, len(chunk)))
            self._sizes[tp, last.offset] = len(chunk)
            self._in_flight += len(chunk)
            await self.callback(
                ConsumerMessage(
                    tp.topic, tp.partition, last.offset, last.timestamp / 1000.0, last.timestamp_type, (), None, chunk,
                    None, None, None, tp, generation_id=generation,
                )
            )  # fmt: skip
            self._read_offset[tp] = last.offset + 1

    async def _deliver_each(self, tp: TP, records: Sequence[Fetched], generation: int) -> None:
        for record in records:
            if self._interrupted(generation):
                return
            read = self._read_offset[tp]
            if read is not None and record.offset < read:
                continue
            if read and record.offset > read and self.app.topics.acks_enabled_for(tp.topic):
                await self._add_gap(tp, read, record.offset - 1)
            await self.callback(self._to_message(tp, record))
            self._read_offset[tp] = record.offset + 1

    def _interrupted(self, generation: int) -> bool:
        """Whether partitions moved, or the flow stopped, since `generation`'s records were fetched."""
        return bool(self._stopped.is_set() or not self.flow_active or self.app.consumer_generation_id != generation)


def deliver_in_chunks(app: faust.App, topics: Sequence[str], *, commits: bool = True) -> None:
    """Makes `app` deliver `topics` by the chunk. To be called before the app starts."""
    fetch_in_chunks()
    consumer = type("Consumer", (BatchConsumer,), {"batch_topics": frozenset(topics), "commits": commits})
    transport = type("Transport", (driver.Transport,), {"Consumer": consumer})
    app.transport = transport(list(app.conf.broker), app)

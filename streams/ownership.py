"""A worker's partitions: taken over with their saved state, shown their records, saved again."""

import asyncio
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import faust

from streams.owner import Owner, Voice
from streams.publish import Publisher
from streams.record import Record
from streams.state import NoLog, StateLog

_SAVED_EVERY_S = 2.0
_SAID_EVERY_S = 6.0
"""Whoever has a voice speaks twice as often, and what it says saves the partition: one transaction instead of two."""
_AT_ONCE = 2
"""Partitions that answer at the same time. One transaction waits for the broker six times, so others go on meanwhile;
with more of them each would take longer, and what was decided would wait instead of what was not decided yet."""
_SHARED = 1024
"""Records of a partition from which on no further chunk is taken into the same transaction."""
_RESTORED_AT_ONCE = 2
_TICK_S = 1.0
_SPEAK_S = 0.25
Log = StateLog | NoLog


class Ownership:
    """Ties an owner to an app and to the logs of its partitions.

    `atomic`: what follows from a chunk, the state and the offsets are one transaction. Else what follows is published
    at once, and the state is saved every second or two beside the next chunks, once the broker has acknowledged what
    it accounts for.
    """

    def __init__(
        self, app: faust.App, name: str, owner: Owner, publisher: Publisher, log_of: Callable[[int], Log],
        *, atomic: bool, voice: Voice | None = None,
    ) -> None:  # fmt: skip
        self._app = app
        self._voice = voice
        self._name = name
        self._publisher = publisher
        self._owner = owner
        self._log_of = log_of
        self._atomic = atomic
        self._logs: dict[int, asyncio.Task[Log]] = {}
        self._saved: dict[int, dict[str, int]] = {}
        self._due: dict[int, float] = {}
        self._saving: dict[int, asyncio.Task[None]] = {}
        self._said: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._failed = False
        self._stopping = False
        self._waiting: dict[int, deque[faust.EventT]] = defaultdict(deque)
        """By partition, the chunks that no transaction has taken yet."""
        self._working: dict[int, asyncio.Task[None]] = {}
        self._restoring = asyncio.Semaphore(_RESTORED_AT_ONCE)
        self._effects = asyncio.Lock()
        """Held, where that is no transaction, from a chunk's records to the acknowledgement of what follows."""
        self._answering = asyncio.Semaphore(_AT_ONCE)

    async def assigned(self, numbers: set[int]) -> None:
        """The worker owns `numbers` now, and no others."""
        for number in self._logs.keys() - numbers:
            self._let_go(self._logs.pop(number))
            self._saved.pop(number, None)
        self._owner.keep(numbers)
        for number in sorted(numbers):
            kept = self._logs.get(number)
            self._logs[number] = asyncio.ensure_future(self._or_crash(self._take_over(number, kept)))
        self._said = asyncio.ensure_future(self._say(time.monotonic(), list(self._logs.values())))

    async def revoked(self) -> None:
        """Another worker may own the partitions soon: saves what it would have to do again."""
        await self._save_all(due=False)

    async def stop(self) -> None:
        """Saves what can be saved, and lets go of the partitions. Chunks that wait are the next owner's."""
        self._stopping = True
        await self._save_all(due=False)
        for opening in self._logs.values():
            self._let_go(opening)
        await asyncio.gather(*self._leaving)
        self._logs.clear()
        await self._publisher.stop()

    async def take(self, event: faust.EventT) -> None:
        """Shows the owner a chunk and publishes what follows; acknowledges it then, and only then.

        Atomic: returns at once, and the chunks that come while a partition's transaction is on its way share the next.
        """
        number = event.message.tp.partition
        opening = self._logs.get(number)
        if opening is None or not self._is_ours(event, opening):
            # Its next owner, perhaps this worker, reads it again.
            return
        if self._atomic:
            self._waiting[number].append(event)
            if number not in self._working:
                self._working[number] = asyncio.ensure_future(self._or_crash(self._work_off(number)))
            return
        log = await asyncio.shield(opening)
        async with self._effects:
            if not self._is_ours(event, opening):
                return
            with self._whole():
                await self._publisher.publish(self._owner.take(event.message.tp, event.value))
            if self._is_due(number):
                self._save(log, number)
        event.ack()

    async def _work_off(self, number: int) -> None:
        """Takes the chunks of a partition that wait, as many as there are: one transaction costs what many would."""
        waiting = self._waiting[number]
        try:
            while waiting:
                opening = self._logs.get(number)
                if opening is None:
                    waiting.clear()
                    return
                log = await asyncio.shield(opening)
                async with self._answering:
                    await self._settle(number)
                    # Nothing else runs from here until the partition is being saved.
                    chunks = self._next_chunks(waiting, opening)
                    with self._whole():
                        effects = [r for event in chunks for r in self._owner.take(event.message.tp, event.value)]
                    if effects or (chunks and self._is_due(number)):
                        self._save(log, number, effects)
                        await self._settle(number)
                for event in chunks:
                    event.ack()
        finally:
            del self._working[number]

    def _next_chunks(self, waiting: deque[faust.EventT], opening: "asyncio.Task[Log]") -> list[faust.EventT]:
        """The chunks of a partition that one transaction answers, oldest first."""
        chunks: list[faust.EventT] = []
        records = 0
        while waiting and records < _SHARED:
            event = waiting.popleft()
            if self._is_ours(event, opening):
                chunks.append(event)
                records += len(event.value)
        return chunks

    def _is_ours(self, event: faust.EventT, opening: "asyncio.Task[Log]") -> bool:
        """Whether a chunk is of a partition that has not moved since it was fetched, and may be answered."""
        return (
            event.message.generation_id == self._app.consumer_generation_id
            and self._logs.get(event.message.tp.partition) is opening
            and not self._pauses
        )

    @property
    def _pauses(self) -> bool:
        """Whether nothing new is to be begun: partitions are moving, or this worker ends."""
        return bool(self._app.rebalancing) or self._failed or self._stopping

    async def tick(self) -> None:
        """Publishes ticks, and saves partitions whose records ceased to come."""
        if self._pauses:
            return
        async with self._effects:
            await self._publisher.publish(self._owner.ticks())
        await self._save_all(due=True)

    async def speak(self) -> None:
        """Publishes what the owner has to say of itself."""
        for number, opening in list(self._logs.items()):
            if self._voice is None or self._pauses:
                return
            async with self._effects:
                if _opened(opening) and self._voice.has_word(number):
                    await self._settle(number)
                    self._save(opening.result(), number)
            # One signature at a time, and other work between them.
            await asyncio.sleep(0)

    # -- saving ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """What is done here is done to its end, or this worker saves nothing any more: the owner has gone past records
        of which not all that follows is published, and a checkpoint would say that they are done."""
        try:
            yield
        except BaseException:
            self._failed = True
            raise

    async def _save_all(self, *, due: bool) -> None:
        for number, opening in list(self._logs.items()):
            if not _opened(opening) or self._failed:
                continue
            async with self._effects:
                if self._owner.offsets(number) != self._saved.get(number) and (not due or self._is_due(number)):
                    await self._settle(number)
                    self._save(opening.result(), number)
            if not due:
                await self._settle(number)

    @property
    def _every_s(self) -> float:
        return _SAVED_EVERY_S if self._voice is None else _SAID_EVERY_S

    def _is_due(self, number: int) -> bool:
        return time.monotonic() >= self._due.get(number, 0.0) and number not in self._saving

    def _save(self, log: Log, number: int, effects: Sequence[Record] = ()) -> None:
        """Saves the partition as it is now, while the next chunks are taken."""
        self._saving[number] = asyncio.ensure_future(self._or_crash(self._write(log, number, effects)))

    async def _settle(self, number: int) -> None:
        """Waits until the partition is saved, if it is being saved."""
        # Others wait too, and may have begun to save it again.
        while number in self._saving:
            await asyncio.shield(self._saving[number])

    def _write(self, log: Log, number: int, effects: Sequence[Record] = ()) -> "asyncio.Future[None]":
        """Captures the partition's state at once, and writes it."""
        checkpoint, offsets = self._owner.checkpoint(number), self._owner.offsets(number)
        effects = [*effects, *(self._voice.word(number) if self._voice is not None else ())]

        async def write() -> None:
            try:
                # What was not written is in no other checkpoint.
                with self._whole():
                    await log.write(checkpoint, offsets, effects)
            finally:
                self._saving.pop(number, None)
            self._saved[number] = offsets
            self._due[number] = time.monotonic() + self._every_s

        return asyncio.ensure_future(write())

    # -- taking over ----------------------------------------------------------------------------------------------

    async def _take_over(self, number: int, kept: "asyncio.Task[Log] | None") -> Log:
        """Opens and reads the partition's log, unless this worker still has it and nobody wrote to it since."""
        saved = self._saved.get(number)
        if kept is not None and saved and _opened(kept):
            if await asyncio.to_thread(kept.result().is_at, saved):
                return kept.result()
            # It was taken for dead, and another worker owned the partition meanwhile.
            del self._saved[number]
        if kept is not None:
            self._let_go(kept)
        log = self._log_of(number)
        async with self._restoring:
            if not self._is_current(number):
                return log
            await log.open()
            partition, offsets = await asyncio.to_thread(log.read, lambda some: self._owner.restored(number, some))
            if self._voice is not None:
                partition = await asyncio.to_thread(self._voice.opened, number, partition)
        if self._is_current(number):
            self._owner.go_on(number, partition, offsets)
            self._saved[number] = offsets
            self._due[number] = time.monotonic() + self._every_s
            if self._voice is not None:
                await self._write(log, number)
        return log

    def _is_current(self, number: int) -> bool:
        """Whether the task that asks is the one that takes the partition over: it may have moved on meanwhile."""
        return self._logs.get(number) is asyncio.current_task()

    def _let_go(self, opening: "asyncio.Task[Log]") -> None:
        """Closes a log once it is open; nobody waits for that."""

        async def close() -> None:
            await asyncio.wait([opening])
            if _opened(opening):
                await opening.result().close()

        leaving = asyncio.ensure_future(close())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _say(self, started: float, opening: "list[asyncio.Task[Log]]") -> None:
        if opening:
            await asyncio.wait(opening)
        if all(map(_opened, opening)):
            sys.stderr.write(
                f"{self._name}: restored {len(opening)} partitions in {time.monotonic() - started:.1f} s, "
                f"{self._owner.size} identities\n"
            )

    async def _or_crash(self, work: Any) -> Any:
        """A worker that can't save or restore its state ends; its supervisor starts it again."""
        try:
            return await work
        except Exception as error:
            await self._app.crash(error)
            raise


def _opened(opening: "asyncio.Task[Log]") -> bool:
    """Whether a log is ready to be written."""
    return opening.done() and not opening.cancelled() and not opening.exception()


def own(app: faust.App, source: faust.TopicT, name: str, ownership: Ownership) -> None:
    """Gives `app` an agent that shows each chunk of `source` to `ownership`, and a timer.

    What raises there is the end of the worker: the chunk is not acknowledged and its next owner reads it again. Faust
    would start the agent anew and go on with the next chunk.
    """

    @app.agent(source, name=name)
    async def take(stream: faust.StreamT) -> None:
        async for event in stream.noack().events():
            try:
                await ownership.take(event)
            except Exception as error:
                await app.crash(error)
                raise

    @app.timer(_TICK_S)
    async def tick() -> None:
        await ownership.tick()

    @app.timer(_SPEAK_S)
    async def speak() -> None:
        await ownership.speak()

    @app.on_partitions_revoked.connect
    async def revoked(_: object, revoked: set[Any], **kwargs: object) -> None:
        await ownership.revoked()

    @app.on_partitions_assigned.connect
    async def assigned(_: object, assigned: set[Any], **kwargs: object) -> None:
        await ownership.assigned({tp.partition for tp in assigned})

    @app.on_before_shutdown.connect
    async def stopping(_: object, **kwargs: object) -> None:
        await ownership.stop()

"""How a worker's partitions write their transactions: several at a time, each partition's in order, none after a move.

The app, the owner and the logs are stand-ins, and the tests say when a log's transaction ends."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from faust.types import TP

from schemas.piece import Checkpoint
from streams.ownership import _AT_ONCE, _SHARED, Ownership
from streams.record import Record


class App:
    consumer_generation_id = 1
    rebalancing = False

    def __init__(self) -> None:
        self.crashed: list[BaseException] = []

    async def crash(self, error: BaseException) -> None:
        self.crashed.append(error)


class Publisher:
    """Publishes what is not atomic; fails at ``b"refused"``."""

    async def publish(self, records: Iterable[Record]) -> None:
        if any(record.value == b"refused" for record in records):
            raise ConnectionError("the broker refused")

    async def stop(self) -> None:
        pass


class Owner:
    """Answers each record with one of the same value; ``b"quiet"`` with none; ``b"bug"`` is one of its own."""

    size = 0

    def __init__(self) -> None:
        self.reached: dict[int, int] = {}

    def take(self, at: TP, chunk: Any) -> list[Record]:
        self.reached[at.partition] = self.reached.get(at.partition, 0) + len(chunk)
        if b"bug" in chunk:
            raise ZeroDivisionError
        return [Record("out", None, value, at.partition) for value in chunk if value != b"quiet"]

    def ticks(self) -> list[Record]:
        return []

    def keep(self, numbers: set[int]) -> None:
        pass

    def restored(self, _: int, pieces: Iterable[bytes], /) -> Any:
        return list(pieces)

    def go_on(self, number: int, partition: Any, offsets: dict[str, int]) -> None:
        pass

    def checkpoint(self, _: int) -> Checkpoint:
        return Checkpoint(begins=False, pieces=[])

    def offsets(self, number: int) -> dict[str, int]:
        return {"in": self.reached.get(number, 0)}


class Log:
    """Whose transactions end when ``ends`` is set."""

    def __init__(self, number: int, begun: list[tuple[int, list[bytes], int]], ends: asyncio.Event) -> None:
        self._number, self._begun, self._ends = number, begun, ends
        self.fails = False
        self.closed = False

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True

    def read(self, restore: Callable[[Any], Any]) -> tuple[Any, dict[str, int]]:
        return restore([]), {}

    def is_at(self, _: Any) -> bool:
        return True

    async def write(self, _: Checkpoint, offsets: dict[str, int], effects: list[Record]) -> None:
        assert not self.closed
        self._begun.append((self._number, [record.value or b"" for record in effects], offsets["in"]))
        await self._ends.wait()
        if self.fails:
            raise ConnectionError("the broker is away")


class Chunk:
    def __init__(self, number: int, *values: bytes, generation: int = 1) -> None:
        self.message = type("Message", (), {"tp": TP("in", number), "generation_id": generation})()
        self.value = list(values)
        self.acked = False

    def ack(self) -> None:
        self.acked = True


class World:
    """An ownership of four partitions."""

    def __init__(self, *, atomic: bool = True) -> None:
        self.app = App()
        self.ends = asyncio.Event()
        self.begun: list[tuple[int, list[bytes], int]] = []
        self.logs: dict[int, Log] = {}
        made: Any = Ownership(self.app, "tests", Owner(), Publisher(), self._log, atomic=atomic)  # type: ignore[arg-type]
        self.ownership = made

    def _log(self, number: int) -> Any:
        return self.logs.setdefault(number, Log(number, self.begun, self.ends))

    async def give(self, *chunks: Chunk) -> None:
        for chunk in chunks:
            await self.ownership.take(chunk)
            await self.settle()

    async def settle(self) -> None:
        """Lets everything run that can."""
        for _ in range(50):
            await asyncio.sleep(0)

    def answered(self) -> list[tuple[int, list[bytes]]]:
        """Partition and values of the transactions that had something to say."""
        return [(number, values) for number, values, _ in self.begun if values]

    async def open(self) -> "World":
        """Returns when the partitions are there."""
        await self.ownership.assigned({0, 1, 2, 3})
        while not all(task.done() for task in self.ownership._logs.values()):
            await asyncio.sleep(0.01)
        return self


@pytest.fixture
async def world() -> World:
    return await World().open()


async def test_partitions_write_beside_each_other_a_few_at_a_time(world: World) -> None:
    chunks = [Chunk(number, b"%d" % number) for number in range(4)]
    await world.give(*chunks)
    assert [number for number, _ in world.answered()] == list(range(_AT_ONCE))
    assert 1 < _AT_ONCE < 4
    assert not any(chunk.acked for chunk in chunks)
    world.ends.set()
    await world.settle()
    assert world.answered() == [(number, [b"%d" % number]) for number in range(4)]
    assert all(chunk.acked for chunk in chunks)


async def test_chunks_that_come_meanwhile_share_the_next_transaction_in_their_order(world: World) -> None:
    await world.give(Chunk(0, b"a"))
    later = [Chunk(0, b"b"), Chunk(0, b"quiet"), Chunk(0, b"c", b"d")]
    await world.give(*later)
    assert not any(chunk.acked for chunk in later)
    world.ends.set()
    await world.settle()
    assert [(values, reached) for _, values, reached in world.begun if values] == [
        ([b"a"], 1),
        ([b"b", b"c", b"d"], 5),
    ]
    assert all(chunk.acked for chunk in later)


async def test_one_transaction_takes_only_so_many_records(world: World) -> None:
    many = [Chunk(0, *[b"x"] * (_SHARED - 1)) for _ in range(3)]
    await world.give(Chunk(0, b"a"), *many)
    world.ends.set()
    await world.settle()
    assert [len(values) for _, values in world.answered()] == [1, 2 * (_SHARED - 1), _SHARED - 1]


@pytest.mark.parametrize("how", ["rebalancing", "generation", "partition"])
async def test_what_waits_when_its_partition_moves_is_left_to_the_next_owner(world: World, how: str) -> None:
    first, late = Chunk(0, b"a"), Chunk(0, b"b")
    await world.give(first, late)
    if how == "rebalancing":
        world.app.rebalancing = True
    elif how == "generation":
        world.app.consumer_generation_id = 2
    else:
        await world.ownership.assigned({1, 2, 3})
    world.ends.set()
    await world.settle()
    # What was on its way is done.
    assert world.answered() == [(0, [b"a"])]
    assert (first.acked, late.acked) == (True, False)


async def test_a_transaction_that_fails_ends_the_worker_and_nothing_is_written_after_it(world: World) -> None:
    world.logs[0].fails = True
    first, late, other = Chunk(0, b"a"), Chunk(0, b"b"), Chunk(1, b"c")
    await world.give(first, late)
    world.ends.set()
    await world.settle()
    await world.give(other)
    assert [type(error) for error in world.app.crashed][:1] == [ConnectionError]
    assert world.answered() == [(0, [b"a"])]
    assert [first.acked, late.acked, other.acked] == [False] * 3


async def test_who_stops_ends_what_is_on_its_way_and_begins_nothing_more(world: World) -> None:
    first, late = Chunk(0, b"a"), Chunk(0, b"b")
    await world.give(first, late)
    stopping = asyncio.ensure_future(world.ownership.stop())
    await world.settle()
    assert not world.logs[0].closed
    world.ends.set()
    await stopping
    await world.settle()
    assert all(log.closed for log in world.logs.values())
    assert (first.acked, late.acked) == (True, False)
    assert world.answered() == [(0, [b"a"])]
    assert not world.app.crashed


@pytest.mark.parametrize("atomic", [True, False], ids=["a transaction", "published at once"])
@pytest.mark.parametrize("what", [b"bug", b"refused"])
async def test_what_was_taken_and_not_published_is_never_saved(atomic: bool, what: bytes) -> None:
    world = await World(atomic=atomic).open()
    world.ends.set()
    world.logs[0].fails = what == b"refused"
    chunk = Chunk(0, b"a", what)
    with contextlib.suppress(ConnectionError, ZeroDivisionError):
        await world.ownership.take(chunk)
    await world.settle()
    saved = len(world.begun)
    world.logs[0].fails = False
    # As a worker does that has crashed.
    await world.ownership.stop()
    assert world.begun[saved:] == []
    assert not chunk.acked

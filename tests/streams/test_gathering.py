"""What a sink is given: a partition's records in order, again until it takes them, acknowledged only then."""

from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from sinks.errors import Retry, Unreachable
from streams import gathering
from streams.gathering import Gathering

AT, OTHER = TP("llm.usage", 0), TP("llm.usage", 1)


class Event:
    def __init__(self, at: TP, *records: str) -> None:
        self.message = SimpleNamespace(tp=at)
        self.value = list(records)
        self.acked = False

    def ack(self) -> None:
        self.acked = True


class Sink:
    """Raises what it is told to, one answer a call, and keeps what it took."""

    def __init__(self, *answers: Exception | None, goes_on: bool = True) -> None:
        self.answers = list(answers)
        self.goes_on = goes_on
        self.taken: list[tuple[int, list[Any]]] = []
        self.waited: list[float] = []

    async def write(self, topic: str, partition: int, records: list[Any]) -> None:
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.taken.append((partition, records))

    async def wait(self, error: Retry) -> bool:
        self.waited.append(error.after)
        return self.goes_on


async def test_a_partitions_chunks_are_one_write_in_their_order() -> None:
    sink, events = Sink(), [Event(AT, "a", "b"), Event(OTHER, "x"), Event(AT, "c")]
    held = Gathering(sink.write, on_wait=sink.wait)
    for event in events:
        await held.add(event)
    assert not any(event.acked for event in events)
    await held.flush()
    assert sink.taken == [(0, ["a", "b", "c"]), (1, ["x"])]
    assert all(event.acked for event in events)


async def test_enough_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "ENOUGH", 3)
    sink = Sink()
    held = Gathering(sink.write, on_wait=sink.wait)
    await held.add(Event(AT, "a", "b"))
    await held.add(Event(OTHER, "x"))
    assert sink.taken == []
    await held.add(Event(AT, "c"))
    assert sink.taken == [(0, ["a", "b", "c"])]


async def test_the_same_is_given_again_until_it_is_taken() -> None:
    sink, event = Sink(Retry(0.5), Retry(2.0)), Event(AT, "a")
    held = Gathering(sink.write, on_wait=sink.wait)
    await held.add(event)
    await held.flush()
    assert sink.waited == [0.5, 2.0]
    assert sink.taken == [(0, ["a"])]
    assert event.acked


async def test_a_worker_that_stops_meanwhile_acknowledges_nothing() -> None:
    sink, event = Sink(Retry(0.5), goes_on=False), Event(AT, "a")
    held = Gathering(sink.write, on_wait=sink.wait)
    await held.add(event)
    await held.flush()
    assert sink.taken == []
    assert not event.acked


async def test_any_other_error_is_raised_and_acknowledges_nothing() -> None:
    sink, event = Sink(Unreachable("refused")), Event(AT, "a")
    held = Gathering(sink.write, on_wait=sink.wait)
    await held.add(event)
    with pytest.raises(Unreachable):
        await held.flush()
    assert not event.acked


async def test_what_went_elsewhere_is_left_to_its_new_owner() -> None:
    sink, gone, kept = Sink(), Event(AT, "a"), Event(OTHER, "x")
    held = Gathering(sink.write, on_wait=sink.wait)
    for event in (gone, kept):
        await held.add(event)
    held.forget({AT})
    await held.flush()
    assert sink.taken == [(1, ["x"])]
    assert (gone.acked, kept.acked) == (False, True)

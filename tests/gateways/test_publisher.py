import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tripswitch_gateway import UsagePublisher

TOPIC = "llm.usage"


def event(number: int = 0, subject: str = "key_7f3a", **data: Any) -> dict[str, Any]:
    usage = {"model": "m", "status": 200} | data
    return {"specversion": "1.0", "type": "llm.usage.v1", "id": str(number), "subject": subject, "data": usage}


def test_events_arrive_by_subject(broker: Any) -> None:
    broker.create(TOPIC)
    publisher = UsagePublisher(broker.kafka)
    for number in range(50):
        publisher.publish(event(number, f"k{number % 5}"))
    assert publisher.close() == 0
    records = broker.read(TOPIC, lambda records: len(records) == 50)
    assert sorted(int(json.loads(record.value())["id"]) for record in records) == list(range(50))
    partitions: dict[bytes, set[int]] = {}
    for record in records:
        assert json.loads(record.value())["subject"].encode() == record.key()
        partitions.setdefault(record.key(), set()).add(record.partition())
    assert all(len(numbers) == 1 for numbers in partitions.values())
    assert publisher.dropped == {}


def test_murmur2_chooses_the_partition(broker: Any) -> None:
    broker.create(TOPIC)
    publisher = UsagePublisher(broker.kafka)
    publisher.publish(event(subject="foobar"))
    publisher.close()
    [record] = broker.read(TOPIC, lambda records: len(records) == 1)
    # The Java client's own test vector: murmur2("foobar") = -790332482.
    assert record.partition() == (-790332482 & 0x7FFFFFFF) % 4


def test_a_lone_surrogate_does_not_hide_a_call(broker: Any) -> None:
    broker.create(TOPIC)
    publisher = UsagePublisher(broker.kafka)
    publisher.publish(event(session_id="\ud800é"))
    publisher.close()
    [record] = broker.read(TOPIC, lambda records: len(records) == 1)
    assert json.loads(record.value())["data"]["session_id"] == "?é"


def test_a_full_buffer_drops_and_counts() -> None:
    publisher = UsagePublisher({"bootstrap.servers": "127.0.0.1:1", "log_level": "0"}, buffer_events=10)
    for number in range(25):
        publisher.publish(event(number))
    assert publisher.dropped == {"buffer-full": 15}
    assert publisher.close(0.2) == 10
    assert publisher.dropped == {"buffer-full": 15, "undelivered": 10}
    publisher.publish(event())
    assert publisher.dropped["closed"] == 1
    assert publisher.close() == 0


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"data": {}}, "no-subject"),
        ({"subject": ""}, "no-subject"),
        ({"subject": 7}, "no-subject"),
        (event(cost_usd=float("nan")), "not-json"),
        (event(ip=object()), "not-json"),
        (event(session_id="x" * 2_000_000), "too-large"),
        (event(input_tokens=10**5000), "not-json"),
        ([], "no-subject"),
        (None, "no-subject"),
    ],
)
def test_what_cannot_be_sent_is_counted(wrong: Any, reason: str) -> None:
    publisher = UsagePublisher({"bootstrap.servers": "127.0.0.1:1", "log_level": "0"})
    publisher.publish(wrong)
    assert publisher.dropped == {reason: 1}
    assert publisher.close(0.1) == 0
    assert publisher.queued == 0


AWAY = {"bootstrap.servers": "127.0.0.1:1", "log_level": "0"}
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def shared() -> Iterator[UsagePublisher]:
    publisher = UsagePublisher(AWAY, buffer_events=200)
    yield publisher
    publisher.close(0.1)


@settings(deadline=None)
@given(st.lists(ODD | st.dictionaries(st.sampled_from(["subject", "data", "id"]), ODD), max_size=20))
def test_nothing_that_is_published_raises_or_goes_uncounted(shared: UsagePublisher, events: list[Any]) -> None:
    before = shared.queued + sum(shared.dropped.values())
    for odd in events:
        shared.publish(odd)
    assert shared.queued + sum(shared.dropped.values()) == before + len(events)


def test_sent_and_queued_add_up_over_threads(broker: Any) -> None:
    broker.create(TOPIC)
    publisher = UsagePublisher(broker.kafka)

    def publish() -> None:
        for number in range(500):
            publisher.publish(event(number))
            publisher.publish({})

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert publisher.close(30) == 0
    assert (publisher.sent, publisher.queued, publisher.dropped) == (2000, 0, {"no-subject": 2000})


def test_losses_are_told_once_and_without_their_content(caplog: pytest.LogCaptureFixture, wait_until: Any) -> None:
    caplog.set_level(logging.WARNING, logger="tripswitch_gateway.publisher")
    publisher = UsagePublisher(AWAY, buffer_events=1)
    publisher.publish(event(subject="the-first"))

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if "were lost" in record.getMessage()]

    for number in range(3):
        publisher.publish(event(number, subject="secret-name"))
    wait_until(told, "the first loss")
    for number in range(50):
        publisher.publish(event(number, subject="secret-name"))
    publisher.close(0.3)
    assert len(told()) == 1
    assert "buffer-full" in told()[0]
    assert "secret-name" not in caplog.text


def test_a_topic_that_is_missing_is_named_as_the_reason(kafka: str, kafka_kind: str, wait_until: Any) -> None:
    if kafka_kind != "apache":
        pytest.skip("only the tests' own Apache Kafka is known to make no topics by itself")
    quick = {"bootstrap.servers": kafka, "topic.metadata.propagation.max.ms": "200", "message.timeout.ms": "20000"}
    publisher = UsagePublisher(quick, topic="no-such-topic")
    publisher.publish(event())
    wait_until(lambda: publisher.dropped == {"no-topic": 1}, "the loss", timeout=60.0)
    publisher.close()


class Fatal:
    """librdkafka's error after which a producer refuses everything."""

    def fatal(self) -> bool:
        return True

    def code(self) -> int:
        return -150

    def str(self) -> str:
        return "fatal"


def test_after_a_fatal_error_it_starts_again(broker: Any, wait_until: Any) -> None:
    broker.create(TOPIC)
    publisher = UsagePublisher(broker.kafka)
    publisher.publish(event(1))
    wait_until(lambda: publisher.sent == 1, "the first event")
    before = publisher._producer
    publisher._on_error(Fatal())  # type: ignore[arg-type]
    wait_until(lambda: publisher._producer is not before, "another producer")
    publisher.publish(event(2))
    assert publisher.close(30) == 0
    assert len(broker.read(TOPIC, lambda records: len(records) == 2)) == 2

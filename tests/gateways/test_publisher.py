import json
from typing import Any

import pytest

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
        (event(session_id="x" * 2_000_000), "refused-by-client"),
    ],
)
def test_what_cannot_be_sent_is_counted(wrong: dict[str, Any], reason: str) -> None:
    publisher = UsagePublisher({"bootstrap.servers": "127.0.0.1:1", "log_level": "0"})
    publisher.publish(wrong)
    assert publisher.dropped == {reason: 1}
    assert publisher.close(0.1) == 0

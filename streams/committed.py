"""Reading what is committed in a partition, from its beginning to its end."""

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.settings import Kafka

_STALLED_S = 60.0
_ASKED_S = 30.0


def committed_records(
    kafka: Kafka, topic: str, number: int, group: str, *, since: int = 0, quiet: bool = False
) -> Iterator[Message]:
    """Every record of the partition `number` from the offset `since` on whose transaction, if any, was committed, to
    where the partition ended when the reading began. `group` is only a name: nothing is committed. `quiet` keeps the
    client from writing into a command's output.

    A commit is answered before its marks are in the partitions, and until they are, readers of what is committed are
    told that the partition ends before the transaction. So the end is asked for as if everything were committed, and a
    transaction that is open there is waited for.

    Raises:
        KafkaException: the broker refused, or what is being read was deleted meanwhile.
        TimeoutError: nothing came for a minute.
    """
    low, high = _bounds(kafka, topic, number, quiet=quiet)
    if max(low, since) >= high:
        return
    consumer = Consumer(
        {
            **kafka.confluent(),
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "fetch.max.bytes": 64 << 20,
            "max.partition.fetch.bytes": 16 << 20,
            "queued.max.messages.kbytes": 256 << 10,
            "fetch.wait.max.ms": 20,
            **_log_level(quiet),
        }
    )
    try:
        consumer.assign([TopicPartition(topic, number, max(low, since))])
        heard = time.monotonic()
        while True:
            for message in consumer.consume(64, timeout=0.5):
                heard, error = time.monotonic(), message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                    if (message.offset() or 0) >= high:
                        return
                else:
                    raise KafkaException(error)
            if time.monotonic() - heard > _STALLED_S:
                raise TimeoutError(f"{topic}/{number} could not be read for {_STALLED_S:g} s")
    finally:
        consumer.close()


def _bounds(kafka: Kafka, topic: str, number: int, *, quiet: bool) -> tuple[int, int]:
    """The first offset of the partition and the one after its last, committed or not."""
    client = AdminClient({**kafka.confluent(), **_log_level(quiet)})
    place = TopicPartition(topic, number)

    def offset(of: OffsetSpec) -> int:
        return int(client.list_offsets({place: of}, request_timeout=_ASKED_S)[place].result().offset)

    return offset(OffsetSpec.earliest()), offset(OffsetSpec.latest())


def _log_level(quiet: bool) -> dict[str, str]:
    return {"log_level": "0"} if quiet else {}

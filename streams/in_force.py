"""What the kill switch orders now: the last command of each subject, read back from its topic."""

import logging
import time
from collections.abc import Callable, Iterable

from confluent_kafka import Consumer, TopicPartition

from schemas.command import TOKEN_TYPE, Command, from_claims
from schemas.topics import KILLSWITCH
from sinks.killswitch import Verifier
from streams.settings import Kafka

_SECONDS = 120.0
_log = logging.getLogger(__name__)

InForce = Callable[[int], Iterable[Command]]
"""Of a partition's number: the last command of each subject in it."""


def in_force(kafka: Kafka, verifier: Verifier) -> InForce:
    """Reads a partition to its end each time it is asked.

    What nobody who may has signed is passed over, and said.
    """

    def read(number: int) -> Iterable[Command]:
        options = {"group.id": "tripswitch-in-force", "enable.auto.commit": False, "fetch.wait.max.ms": 50}
        consumer = Consumer({**kafka.confluent(), **options})
        last: dict[tuple[str, str, str], Command] = {}
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(KILLSWITCH, number), timeout=30)
            consumer.assign([TopicPartition(KILLSWITCH, number, low)])
            end = time.monotonic() + _SECONDS
            while low < high:
                if time.monotonic() > end:
                    raise TimeoutError(f"{KILLSWITCH}/{number} was not read to its end within {_SECONDS:g} s")
                for message in consumer.consume(1000, timeout=0.2):
                    if message.error() is not None:
                        continue
                    low = message.offset() + 1
                    try:
                        command = from_claims(verifier.payload(message.value() or b"", TOKEN_TYPE))
                    except ValueError as error:
                        _log.warning("%s/%d offset %d passed over: %s", KILLSWITCH, number, message.offset(), error)
                        continue
                    key = (command.tenant, command.scope, command.subject)
                    if key not in last or command.epoch > last[key].epoch:
                        last[key] = command
        finally:
            consumer.close()
        return last.values()

    return read

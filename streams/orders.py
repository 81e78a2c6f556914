"""People's orders: signed records on llm.requests, which `decide` carries out, and what came of them."""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Literal

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from msgspec import Struct

from schemas.command import TOKEN_TYPE, Command, Scope, command_id, from_claims
from schemas.dead_letter import DeadLetter
from schemas.request import Planned, Request
from schemas.times import format_millis
from schemas.topics import AUDIT, DEAD_LETTERS, REQUESTS
from sinks.errors import Unreachable
from sinks.killswitch import REQUEST_TYPE, Signer, Verifier
from streams.committed import committed_records
from streams.partitioner import partition_of
from streams.settings import Kafka

Order = Literal["throttle", "suspend", "revoke", "restore", "approve"]
DECIDE_GROUP = "tripswitch-decide"
_SECONDS = 15.0
_ANSWER_S = 10.0
_MARKS_S = 2.0
"""A transaction's records may come to light so much later than the offsets in it."""
_PASSING = {KafkaError.NOT_COORDINATOR, KafkaError._TIMED_OUT}  # noqa: SLF001 - the client's only name for it
_decode_letter = msgspec.json.Decoder(DeadLetter).decode


class Answer(Struct, frozen=True):
    """What came of an order: `done` with its commands, `waiting` for a second person (or nothing was to be published),
    `refused`, or `unanswered`, since decide has not read it yet. `why` says more where there is more to say."""

    outcome: Literal["done", "waiting", "refused", "unanswered"]
    commands: list[Command] = []
    why: str = ""


def make_request(
    action: Order, tenant: str, identity: str, reason: str, by: str, *, scope: Scope = "identity",
    subject: str | None = None, approves: str | None = None, planned: Planned | None = None,
) -> Request:  # fmt: skip
    """An order as of now."""
    return Request(
        f"req-{uuid.uuid4().hex[:16]}", format_millis(int(time.time() * 1000)), tenant, identity, action, reason, by,
        scope, subject, approves, planned,
    )  # fmt: skip


class Sent:
    """An order on its way."""

    def __init__(self, request: Request, signer: Signer, kafka: Kafka) -> None:
        """Publishes an order and waits until the broker has it.

        Raises:
            Unreachable: the broker did not take it.
        """
        self._request = request
        self._kafka = kafka
        token = signer.token(json.loads(msgspec.json.encode(request)), REQUEST_TYPE)
        with reaching(self._kafka):
            partition = self._partition()
            # What is answered comes behind that.
            self._ends = {topic: self._end(topic, partition) for topic in (AUDIT, DEAD_LETTERS)}
            self.place = self._publish(token, partition)

    def answer(self, verifier: Verifier, seconds: float = _ANSWER_S) -> Answer:
        """Waits until decide has read the order, and says what came of it.

        Raises:
            Unreachable: the broker does not answer.
        """
        with reaching(self._kafka):
            if not self._read_by_decide(time.monotonic() + seconds):
                return Answer("unanswered")
            end = time.monotonic() + _MARKS_S
            while True:
                commands = list(self._commands(verifier))
                if commands:
                    return Answer("done", commands)
                for letter in self._letters():
                    return Answer("refused", why=letter.reason)
                if time.monotonic() > end:
                    return Answer("waiting")
                time.sleep(0.1)

    def _partition(self) -> int:
        with closing(self._consumer()) as consumer:
            topic = consumer.list_topics(REQUESTS, timeout=_SECONDS).topics[REQUESTS]
        if not topic.partitions:
            raise Unreachable(f"Kafka at {self._kafka.bootstrap} lacks {REQUESTS}; run `tripswitch init` first")
        return partition_of(self._request.tenant.encode(), len(topic.partitions))

    def _end(self, topic: str, partition: int) -> int:
        with closing(self._consumer()) as consumer:
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_SECONDS)
        return int(high)

    def _publish(self, token: bytes, partition: int) -> TopicPartition:
        told: list[Message | str] = []
        producer = Producer({**self._kafka.confluent(), "acks": "all", "log_level": "0"}, logger=None)
        producer.produce(
            REQUESTS, token, self._request.tenant.encode(), partition,
            on_delivery=lambda error, message: told.append(str(error) if error else message),
        )  # fmt: skip
        producer.flush(_SECONDS)
        if not told or isinstance(told[0], str):
            raise Unreachable(
                f"Kafka at {self._kafka.bootstrap} did not take the order: {told[0] if told else 'no answer'}"
            )
        return TopicPartition(REQUESTS, partition, told[0].offset())

    def _read_by_decide(self, end: float) -> bool:
        with closing(self._consumer(DECIDE_GROUP)) as consumer:
            while time.monotonic() < end:
                try:
                    [at] = consumer.committed([TopicPartition(REQUESTS, self.place.partition)], timeout=_SECONDS)
                    if at.offset > self.place.offset:
                        return True
                except KafkaException as error:
                    # A group's coordinator moves; and it says nothing of offsets in a transaction that is not ended.
                    if not (error.args[0].retriable() or error.args[0].code() in _PASSING):
                        raise
                time.sleep(0.2)
        return False

    def _commands(self, verifier: Verifier) -> Iterator[Command]:
        cause = self._request.approves or self._request.request_id
        for message in self._answered(AUDIT):
            try:
                command = from_claims(verifier.payload(message.value() or b"", TOKEN_TYPE))
            except ValueError:
                continue
            named = (command.tenant, command.scope, command.subject, command.action)
            if command.command_id == command_id(*named, cause):
                yield command

    def _letters(self) -> Iterator[DeadLetter]:
        for message in self._answered(DEAD_LETTERS):
            letter = _decode_letter(message.value() or b"")
            if (letter.topic, letter.partition, letter.offset) == (REQUESTS, self.place.partition, self.place.offset):
                yield letter

    def _answered(self, topic: str) -> Iterator[Message]:
        return committed_records(
            self._kafka, topic, self.place.partition, "tripswitch-operator-orders", since=self._ends[topic], quiet=True
        )

    def _consumer(self, group: str = "tripswitch-operator-orders") -> Consumer:
        return Consumer(
            {**self._kafka.confluent(), "group.id": group, "enable.auto.commit": False, "log_level": "0"}, logger=None
        )


@contextmanager
def reaching(kafka: Kafka) -> Iterator[None]:
    """Has the errors of Kafka's client name the broker, as Unreachable."""
    try:
        yield
    except KafkaException as error:
        raise Unreachable(f"Kafka at {kafka.bootstrap}: {error.args[0].str()}") from error
    except TimeoutError as error:
        raise Unreachable(f"Kafka at {kafka.bootstrap}: {error}") from error

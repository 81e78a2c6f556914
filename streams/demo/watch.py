"""What the apps and the gateway publish, read from the topics as it comes."""

import base64
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import msgspec
from confluent_kafka import Consumer, TopicPartition

from schemas.finding import Finding, decode_signal
from schemas.incident import decode_incident
from schemas.topics import ACKS, AUDIT, INCIDENTS, SIGNALS
from streams.demo.board import Board, Order
from streams.demo.broker import PARTITIONS

_WATCHED = (SIGNALS, INCIDENTS, AUDIT, ACKS)
_POLL_SECONDS = 0.1


class Watch:
    """Follows the topics in a thread; hands each record to `deliver(topic, value)`, which must be quick."""

    def __init__(self, address: str, deliver: Callable[[str, bytes], None]) -> None:
        self._deliver = deliver
        self._consumer = Consumer(
            {
                "bootstrap.servers": address,
                "group.id": "tripswitch-demo-watch",
                "enable.auto.commit": False,
                # The mock cluster answers a fetch when this has passed, not when there is something.
                "fetch.wait.max.ms": 10,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(topic, number, 0) for topic in _WATCHED for number in range(PARTITIONS)])
        self._closing = Event()
        self._thread = Thread(target=self._follow, name="demo-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops following."""
        self._closing.set()
        self._thread.join()
        self._consumer.close()

    def _follow(self) -> None:
        while not self._closing.is_set():
            message = self._consumer.poll(_POLL_SECONDS)
            if message is not None and message.error() is None and message.value() is not None:
                self._deliver(message.topic(), message.value())


def take_down(board: Board, topic: str, value: bytes) -> None:
    """Notes one record of a watched topic on the board."""
    if topic == SIGNALS:
        signal = decode_signal(value)
        if isinstance(signal, Finding):
            board.found(signal)
    elif topic == INCIDENTS:
        board.incident(decode_incident(value))
    elif topic == AUDIT:
        board.ordered(order_of(value))
    elif topic == ACKS:
        board.acknowledged(msgspec.json.decode(value, type=dict[str, Any]))


def order_of(token: bytes) -> Order:
    """What a command's token says. Its signature is the gateway's to verify; here it is only shown."""
    payload = token.split(b".")[1]
    claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)), type=dict[str, Any])
    (event,) = claims["events"].values()
    ext = event["ext"]
    return Order(
        command_id=claims["jti"],
        identity=ext["identity"],
        action=ext["action"],
        scope=ext["scope"],
        subject=ext["subject"],
        reason=event["reason_admin"]["en"],
        manual=ext["manual"],
        decided=ext["epoch"],
        finding_ids=tuple(ext["finding_ids"]),
    )

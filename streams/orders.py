"""People's orders: signed records on llm.requests, which `decide` carries out."""

import json
import time
import uuid
from typing import Literal

import msgspec
from confluent_kafka import KafkaException, Producer

from schemas.request import Request
from schemas.times import format_millis
from schemas.topics import REQUESTS
from sinks.errors import Unreachable
from sinks.killswitch import REQUEST_TYPE, Signer
from streams.settings import Kafka

Order = Literal["throttle", "suspend", "revoke", "restore"]
_SECONDS = 15.0


def make_request(action: Order, tenant: str, identity: str, reason: str, by: str) -> Request:
    """An order as of now."""
    return Request(
        f"req-{uuid.uuid4().hex[:16]}", format_millis(int(time.time() * 1000)), tenant, identity, action, reason, by
    )


def send(request: Request, signer: Signer, kafka: Kafka) -> None:
    """Publishes an order and waits until the broker has it.

    Raises:
        Unreachable: the broker did not take it.
    """
    token = signer.token(json.loads(msgspec.json.encode(request)), REQUEST_TYPE)
    failed: list[str] = []
    try:
        producer = Producer(
            {**kafka.confluent(), "partitioner": "murmur2_random", "acks": "all", "log_level": "0"}, logger=None
        )
        producer.produce(
            REQUESTS,
            token,
            request.tenant.encode(),
            on_delivery=lambda error, _: failed.append(str(error)) if error else None,
        )
        left = producer.flush(_SECONDS)
    except KafkaException as error:
        raise Unreachable(f"Kafka at {kafka.bootstrap}: {error.args[0].str()}") from error
    if left or failed:
        raise Unreachable(f"Kafka at {kafka.bootstrap} did not take the order: {failed[0] if failed else 'no answer'}")

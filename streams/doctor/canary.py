"""Blocks an identity that is there for that, sees each gateway obey, and gives it its access back."""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing

import aiohttp
from confluent_kafka import Consumer, TopicPartition
from msgspec import Struct

from schemas.topics import ACKS
from sinks.killswitch import Signer, Verifier
from streams.acknowledged import obeyed
from streams.doctor.check import Check
from streams.orders import Answer, Order, Sent, make_request
from streams.settings import Kafka

_SECONDS = 20.0
_DENIED = {401, 403, 429}
_CALL = {"model": "canary", "messages": [{"role": "user", "content": "ping"}], "max_tokens": 1}


class Canary(Struct, frozen=True):
    """The identity to block, at whose word, and the addresses to call as it: `header` is the name and value by which a
    gateway knows it, which is a secret."""

    tenant: str
    identity: str
    by: str
    probes: tuple[str, ...] = ()
    header: tuple[str, str] | None = None


class _Obeyed(Struct):
    """What decide answered to an order, and by gateway the milliseconds from the order to its acknowledgement."""

    answer: Answer
    after: dict[str, int]


async def check_canary(
    canary: Canary, gateways: Collection[str], kafka: Kafka, signer: Signer, verifier: Verifier
) -> list[Check]:
    """Suspends the canary and restores it, whatever comes in between. `gateways` are those that should acknowledge.

    Raises:
        Unreachable: the broker does not take the order.
        KafkaException: it refused to be read.
    """
    name, out = f"{canary.tenant}/{canary.identity}", list[Check]()
    before = await _probed(canary)
    out += [_unasked(url, answer) for url, answer in before.items() if not isinstance(answer, int) or answer in _DENIED]
    try:
        done = _order("suspend", canary, gateways, kafka, signer, verifier)
        out += _judged("block", name, done, gateways)
        if done.answer.commands:
            out += [_probe(url, answer) for url, answer in (await _probed(canary)).items()]
    finally:
        done = _order("restore", canary, gateways, kafka, signer, verifier)
    return [*out, *_judged("restore", name, done, gateways)]


def _order(
    action: Order, canary: Canary, gateways: Collection[str], kafka: Kafka, signer: Signer, verifier: Verifier
) -> _Obeyed:
    """Gives an order, and waits until every gateway has acknowledged it, or for too long."""
    options = {"group.id": "tripswitch-operator-doctor", "enable.auto.commit": False, "fetch.wait.max.ms": 20}
    with closing(Consumer({**kafka.confluent(), **options})) as consumer:
        partitions = consumer.list_topics(ACKS, timeout=_SECONDS).topics[ACKS].partitions
        ends = [consumer.get_watermark_offsets(TopicPartition(ACKS, n), timeout=_SECONDS)[1] for n in partitions]
        consumer.assign([TopicPartition(ACKS, n, end) for n, end in zip(partitions, ends, strict=True)])
        request = make_request(action, canary.tenant, canary.identity, "the doctor's canary", canary.by)
        began, deadline = time.time_ns() // 1_000_000, time.monotonic() + _SECONDS
        answer = Sent(request, signer, kafka).answer(verifier)
        if not answer.commands:
            return _Obeyed(answer, {})
        heard: dict[str, int] = {}
        while time.monotonic() < deadline and not set(gateways) <= heard.keys():
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                heard |= obeyed(message.value() or b"", answer.commands[0].command_id)
    return _Obeyed(answer, {gateway: at - began for gateway, at in heard.items()})


def _judged(what: str, name: str, done: _Obeyed, gateways: Collection[str]) -> Iterator[Check]:
    if not done.answer.commands:
        yield Check(
            "canary", "failure",
            f"no command to {what} {name}: {done.answer.outcome}{done.answer.why and ', ' + done.answer.why}",
            "see whether decide runs, and whether the policy's mode is enforce",
        )  # fmt: skip
        return
    for gateway in sorted(gateways):
        took = done.after.get(gateway)
        if took is None:
            yield Check(
                f"canary at {gateway}", "failure", f"did not acknowledge the {what} of {name} within {_SECONDS:g} s",
                "see its log, and whether it may write llm.killswitch.acks",
            )  # fmt: skip
        else:
            yield Check(f"canary at {gateway}", "ok", f"{what} obeyed {took} ms after the order")


async def _probed(canary: Canary) -> Mapping[str, int | str]:
    """By address the status of a call as the canary, or why there is none."""
    out: dict[str, int | str] = {}
    if not canary.probes:
        return out
    headers = dict([canary.header]) if canary.header else {}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        for url in canary.probes:
            try:
                async with session.post(url, json=_CALL, headers=headers) as answer:
                    out[url] = answer.status
            except (aiohttp.ClientError, TimeoutError) as error:
                out[url] = type(error).__name__
    return out


def _unasked(url: str, answer: int | str) -> Check:
    said = f"answers {answer}" if isinstance(answer, int) else f"can't be called: {answer}"
    return Check(
        f"probe {url}", "failure", f"{said} before anything is blocked",
        "correct the address, or TRIPSWITCH_CANARY_HEADER, by which the gateway knows the canary",
    )  # fmt: skip


def _probe(url: str, answer: int | str) -> Check:
    if answer in _DENIED:
        return Check(f"probe {url}", "ok", f"denied with {answer}")
    return Check(
        f"probe {url}", "failure", f"answers {answer} though the canary is blocked",
        "let the gateway ask the kill switch about the tenant and the subject of its usage events, and deny",
    )  # fmt: skip

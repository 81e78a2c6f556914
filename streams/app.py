"""What the Faust apps share: how they are made, and how they publish."""

import asyncio
import ssl
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import faust
from faust.types import TP
from msgspec import Struct

from streams.settings import Kafka
from streams.transport import deliver_in_chunks

_HEARTBEAT_SECONDS = 3.0
_SESSION_SECONDS = 15.0
_SCRATCH = tempfile.TemporaryDirectory(prefix="tripswitch-")


class Record(Struct, frozen=True):
    """What is to be published. `partition` None lets the key decide, as Kafka's default partitioner does."""

    topic: str
    key: bytes | None
    value: bytes
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def make_app(name: str, kafka: Kafka, topics: Sequence[str]) -> tuple[faust.App, faust.TopicT]:
    """A Faust app in the consumer group `tripswitch-NAME`, and the stream of its `topics`, by the chunk.

    No web server, tables or internal topics; Faust's own exactly-once mode is not used.
    """
    app = faust.App(
        f"tripswitch-{name}",
        broker=[f"kafka://{address.strip()}" for address in kafka.bootstrap.split(",")],
        broker_credentials=_credentials(kafka),
        broker_commit_interval=1.0,
        broker_session_timeout=_SESSION_SECONDS,
        broker_heartbeat_interval=_HEARTBEAT_SECONDS,
        consumer_auto_offset_reset="earliest",
        producer_max_request_size=4 << 20,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        stream_wait_empty=False,
        worker_redirect_stdouts=False,
        table_standby_replicas=0,
        value_serializer="chunk",
        # Faust wants a folder for tables, of which there are none.
        datadir=_SCRATCH.name,
    )
    deliver_in_chunks(app, topics)

    @app.on_partitions_assigned.connect
    async def say(_: object, assigned: set[Any], **kwargs: object) -> None:
        sys.stderr.write(f"{name}: ready, {len(assigned)} partitions\n")

    return app, app.topic(*topics, value_serializer="chunk", key_serializer="raw")


class Owner(Protocol):
    """What a worker keeps of the partitions that it owns."""

    def take(self, at: TP, chunk: Sequence[Any]) -> list[Record]:
        """What follows from a chunk of records of the partition `at`, in order."""
        ...

    def ticks(self) -> list[Record]:
        """A tick for each idle partition in which something waits for the clock."""
        ...

    def keep(self, numbers: set[int]) -> None:
        """Forgets every partition but `numbers`."""
        ...


def own(app: faust.App, source: faust.TopicT, name: str, owner: Owner) -> None:
    """Gives `app` an agent that shows `owner` each chunk of `source`, publishes what follows from it, and then, and
    only then, acknowledges it; and a timer that writes ticks.

    What raises there is the end of the worker: the chunk is not acknowledged and its next owner reads it again. Faust
    would start the agent anew and go on with the next chunk.
    """

    @app.agent(source, name=name)
    async def take(stream: faust.StreamT) -> None:
        async for event in stream.noack().events():
            try:
                await publish(app, owner.take(event.message.tp, event.value))
            except Exception as error:
                await app.crash(error)
                raise
            event.ack()

    @app.timer(1.0)
    async def tick() -> None:
        if not app.rebalancing:
            await publish(app, owner.ticks())

    @app.on_partitions_assigned.connect
    async def assigned(_: object, assigned: set[Any], **kwargs: object) -> None:
        owner.keep({tp.partition for tp in assigned})


async def publish(app: faust.App, records: Iterable[Record]) -> None:
    """Publishes in order and returns when the broker has acknowledged all of it."""
    producer = await app.maybe_start_producer()
    sent: list[Any] = []
    for record in records:
        headers = list(record.headers) or None
        sent.append(await producer.send(record.topic, record.key, record.value, record.partition, None, headers))
    if sent:
        await asyncio.gather(*sent)


def run(app: faust.App) -> None:
    """Runs a worker for `app` until it is stopped; leaves the process with the worker's exit code."""
    worker = faust.Worker(app, loglevel="WARNING", redirect_stdouts=False, quiet=True)
    worker.spinner = None
    sys.exit(worker.execute_from_commandline())


def _credentials(kafka: Kafka) -> faust.types.auth.CredentialsT | None:
    if kafka.security_protocol == "PLAINTEXT":
        return None
    context = None
    if kafka.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=kafka.ssl_ca)
        if kafka.ssl_cert:
            context.load_cert_chain(kafka.ssl_cert, kafka.ssl_key)
    if kafka.security_protocol == "SSL":
        return faust.SSLCredentials(context=context)
    return faust.SASLCredentials(
        username=kafka.sasl_username, password=kafka.sasl_password, mechanism=kafka.sasl_mechanism, ssl_context=context
    )

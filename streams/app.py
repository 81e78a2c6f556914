"""What the Faust apps share: how they are made and run."""

import atexit
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import faust
import mode.loop

from streams.allocator import keep_what_is_freed
from streams.clients import tls
from streams.collector import spare_what_stays
from streams.repeats import hold_back_repeats
from streams.settings import Kafka
from streams.transport import deliver_in_chunks

_HEARTBEAT_SECONDS = 3.0
_SESSION_SECONDS = 15.0
_METADATA_MS = 10_000
"""A broker that has just started may not know its topics yet, and who joins the group then gets no partition. Whoever
leads the group notices, and has it assigned anew, when next it asks what topics there are."""
_STOP_SECONDS = 15.0
"""What a worker has for its last checkpoint and for taking leave of Kafka."""
_SCRATCH = tempfile.TemporaryDirectory(prefix="tripswitch-")
atexit.register(_SCRATCH.cleanup)


def group(name: str) -> str:
    """The consumer group of the app `name`."""
    return f"tripswitch-{name}"


def make_app(name: str, kafka: Kafka, topics: Sequence[str], *, commits: bool = True) -> tuple[faust.App, faust.TopicT]:
    """A Faust app in the consumer group `tripswitch-NAME`, and the stream of its `topics`, by the chunk.

    No web server, tables or internal topics; Faust's own exactly-once mode is not used. Without `commits` Faust
    commits no offsets: the app's own transactions do.
    """
    app = faust.App(
        group(name),
        broker=[f"kafka://{address.strip()}" for address in kafka.bootstrap.split(",")],
        broker_credentials=_credentials(kafka),
        broker_commit_interval=1.0,
        broker_session_timeout=_SESSION_SECONDS,
        broker_heartbeat_interval=_HEARTBEAT_SECONDS,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=_METADATA_MS,
        consumer_group_instance_id=kafka.group_instance and f"{name}-{kafka.group_instance}",
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
        Worker=Worker,
    )
    deliver_in_chunks(app, topics, commits=commits)

    @app.on_partitions_assigned.connect
    async def say(_: object, assigned: set[Any], **kwargs: object) -> None:
        sys.stderr.write(f"{name}: ready, {len(assigned)} partitions\n")

    return app, app.topic(*topics, value_serializer="chunk", key_serializer="raw")


class Worker(faust.Worker):  # type: ignore[misc]
    """Ends within a bound once it is told to stop, or has to. Kafka's clients wait for a broker that is gone without
    end: to write, to commit, to leave the group. A worker may be killed at any moment, so it may end itself too."""

    async def on_stop(self) -> None:
        """Called before anything else is stopped."""
        deadline = threading.Timer(_STOP_SECONDS, self._end)
        # Watches until the process has ended, even while threads that still wait for the broker are waited for.
        deadline.daemon = True
        deadline.start()
        await super().on_stop()

    def _end(self) -> None:
        name = self.app.conf.id.removeprefix(group(""))
        sys.stderr.write(
            f"{name}: could not stop within {_STOP_SECONDS:g} s (does Kafka answer?) and ends as it is; what was not "
            "saved is read again by whoever owns its partitions next\n"
        )
        sys.stderr.flush()
        _SCRATCH.cleanup()
        os._exit(1)


def run(app: faust.App) -> None:
    """Runs a worker for `app` until it is stopped; leaves the process with the worker's exit code."""
    spare_what_stays()
    keep_what_is_freed()
    hold_back_repeats()
    with suppress(ImportError):
        # libuv's event loop, where it is to be had: not on Windows. The app has none yet.
        mode.loop.use("uvloop")
    worker = app.Worker(loglevel="WARNING", redirect_stdouts=False, quiet=True)
    worker.spinner = None
    sys.exit(worker.execute_from_commandline())


def _credentials(kafka: Kafka) -> faust.types.auth.CredentialsT | None:
    if kafka.security_protocol == "PLAINTEXT":
        return None
    context = tls(kafka)
    if kafka.security_protocol == "SSL":
        return faust.SSLCredentials(context=context)
    return faust.SASLCredentials(
        username=kafka.sasl_username, password=kafka.sasl_password, mechanism=kafka.sasl_mechanism, ssl_context=context
    )

"""The kill-switch topic, followed in a thread of its own and kept as a `RevocationTable`."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import Self

from tripswitch_gateway.acksender import AckSender
from tripswitch_gateway.claims import Command, record_key
from tripswitch_gateway.clock import HeartbeatClock
from tripswitch_gateway.commands import CommandVerifier
from tripswitch_gateway.counts import Counts
from tripswitch_gateway.decisions import ALLOWED, STALE, Decision
from tripswitch_gateway.enforcer import Enforcer
from tripswitch_gateway.follower import Follower
from tripswitch_gateway.keeper import Keeper
from tripswitch_gateway.reader import Reader
from tripswitch_gateway.reports import Reporter
from tripswitch_gateway.revocations import RevocationTable
from tripswitch_gateway.settings import OnStale

TOPIC = "llm.killswitch"
ACKS_TOPIC = "llm.killswitch.acks"
PATIENCE_S = 15.0
_SAVE_S = 2.0


class RevocationList:
    """All commands in force, at hand for every call; follows the kill-switch topic until `close`.

    No consumer group shares the topic out: every gateway reads every partition from its beginning, and commits nothing.
    ``ready`` is set once each partition has been read to its end and a heartbeat of its writer agrees; without one,
    after ``patience_s`` seconds. Serve no call before.

    The list is ``stale`` when a partition's heartbeats stay away for ``patience_s``, or say something else than the
    table. ``on_stale`` is what `check` answers then: by the ``last_known`` blocks, which also expire as always; or it
    lets every call through (``open``); or denies every call with 503 (``closed``).

    ``kafka`` are librdkafka properties. ``gateway`` names this process in acknowledgements. ``on_change`` is called in
    the subscriber's thread after each command that changed the table, to cut the streams that it stops; it must not
    block. ``acks_topic`` None sends no acknowledgements. ``snapshot`` is a file of this process alone, which keeps the
    tokens in force: a gateway that is restarted while the broker is away has them after ``patience_s``.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        verifier: CommandVerifier,
        *,
        gateway: str,
        topic: str = TOPIC,
        acks_topic: str | None = ACKS_TOPIC,
        on_change: Callable[[Command], None] | None = None,
        on_stale: OnStale = "last_known",
        patience_s: float = PATIENCE_S,
        snapshot: Path | None = None,
    ) -> None:
        self.counts = Counts()
        self._asked = self.counts.asked
        self.clock = HeartbeatClock()
        self.table = RevocationTable(self.clock.now_ms)
        self._kafka = dict(kafka)
        self._acks_topic = acks_topic
        self._acks: AckSender | None = None
        self._on_stale = on_stale
        reporter = Reporter(gateway, topic, self.counts, self._send)
        enforcer = Enforcer(self.table, verifier, self.clock, reporter, self.counts, on_change)
        self._follower = Follower(self._kafka, topic)
        self._reader = Reader(
            self.table,
            verifier,
            self.clock,
            enforcer,
            reporter,
            self.counts,
            patience_s=patience_s,
            read_again=self._follower.read_again,
        )
        self.ready = self._reader.ready
        self._keeper = None if snapshot is None else Keeper(snapshot, topic, verifier, self._reader, enforcer)
        self._started_at = time.monotonic()
        self._thread = Thread(target=self._run, name="tripswitch-revocations", daemon=True)

    def start(self) -> Self:
        """Start to follow the topic; returns at once."""
        self._started_at = time.monotonic()
        self._thread.start()
        return self

    def close(self, timeout: float = 5.0) -> None:
        """Stop following, within ``timeout`` seconds. The table stays as it was."""
        self._follower.closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(
        self,
        identity: str,
        credential: str | None = None,
        session: str | None = None,
        tenant: str | None = None,
        end_user: str | None = None,
    ) -> Decision:
        """`RevocationTable.check` at the heartbeats' time, and what ``on_stale`` says when the list is stale."""
        if self._asked.wanted:
            self._asked.note(tenant or "-", identity)
        if self._reader.unsettled:
            self._settle(identity, credential, session, tenant or "-", end_user)
        if self._on_stale != "last_known" and self.stale:
            if self._on_stale == "open":
                return ALLOWED
            # A command says more than that nothing is known.
            decision = self.table.check(identity, credential, session, tenant, end_user)
            return STALE if decision.allowed else decision
        return self.table.check(identity, credential, session, tenant, end_user)

    @property
    def alive(self) -> bool:
        """False when the thread has not been started, was closed, or has crashed."""
        return self._thread.is_alive()

    @property
    def stale(self) -> bool:
        """Whether the table may be wrong: a partition's heartbeats stay away or disagree, or none has come yet."""
        return self._reader.stale

    @property
    def staleness(self) -> Mapping[int, float]:
        """Seconds since the moment for which each partition was last proven right, since the start when never."""
        return self._reader.staleness_seconds()

    @property
    def staleness_seconds(self) -> float:
        """The greatest of ``staleness``; seconds since the start while the topic has not been found."""
        return max(self.staleness.values(), default=time.monotonic() - self._started_at)

    @property
    def keys_differ(self) -> bool:
        """Whether this gateway's JWKS file is not the writer's: the next key may be unknown here."""
        return self._reader.keys_differ

    @property
    def refusals(self) -> dict[str, int]:
        """How many records were refused, by reason."""
        return dict(self.counts.refused)

    @property
    def callback_errors(self) -> int:
        """How often ``on_change`` failed."""
        return self.counts.callback_errors

    @property
    def acks_dropped(self) -> int:
        """How many acknowledgements were lost."""
        return self.counts.acks_dropped

    def _run(self) -> None:
        if self._acks_topic is not None:
            self._acks = AckSender(self._kafka, self._acks_topic, self.counts)
        try:
            if self._keeper is not None:
                self._keeper.load()
            self._follower.follow(self._reader, self._housekeep)
        finally:
            if self._keeper is not None:
                self._keeper.close(_SAVE_S)
            if self._acks is not None:
                self._acks.close()

    def _housekeep(self) -> None:
        if self._acks is not None:
            self._acks.poll()
        if self._keeper is not None:
            self._keeper.save_if_due()

    def _send(self, record: dict[str, object]) -> None:
        if self._acks is not None:
            self._acks.send(record)

    def _settle(
        self, identity: str, credential: str | None, session: str | None, tenant: str, end_user: str | None
    ) -> None:
        subjects = {"identity": identity, "credential": credential, "session": session, "end_user": end_user}
        subjects["tenant"] = tenant
        self._reader.settle(
            record_key(tenant, scope, subject) for scope, subject in subjects.items() if subject is not None
        )

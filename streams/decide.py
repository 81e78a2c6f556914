"""The `decide` app: llm.signals and llm.requests in; llm.incidents and signed commands on llm.killswitch out.

    tripswitch run decide       (also: faust -A streams.decide:app worker)

Per chunk: 1. decide; 2. in one transaction write commands, incidents, the state and the offsets up to which it goes;
3. acknowledge the chunk. Whoever reads what is committed sees all of a chunk's outcomes or none, and none twice.
"""

import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faust
from faust.types import TP
from msgspec.structs import replace

from responses import Decider, Outcome
from schemas.command import Command
from schemas.directory import Directory
from schemas.finding import Tick, decode_signal, encode
from schemas.piece import Checkpoint
from schemas.request import decode_request
from schemas.times import format_millis, parse_millis
from schemas.topics import DEAD_LETTERS, INCIDENTS, REQUESTS, SIGNALS, STATE_DECIDE
from sinks.dead_letters import dead_letter
from sinks.killswitch import REQUEST_TYPE, Signer, Verifier
from streams.app import group, make_app
from streams.in_force import InForce, in_force
from streams.ownership import Ownership, own
from streams.policy import Loaded, find_policy, read_policy
from streams.publish import Publisher
from streams.record import Record
from streams.settings import Kafka, read_settings
from streams.state import log_of

_AHEAD = 600_000
"""Milliseconds. A finding may be as far ahead as its event was, five minutes."""
_IDLE_SECONDS = 3.0
"""A partition without a signal for so long gets a tick, once something is due."""


class Decision:
    """The tenants' partitions that this worker owns, each with its decider and the offsets it has reached."""

    def __init__(
        self, policy: Loaded, directory: Directory, signer: Signer, verifier: Verifier, in_force: InForce
    ) -> None:
        self._policy = policy
        self._directory = directory
        self._signer = signer
        self._verifier = verifier
        self._in_force = in_force
        self._deciders: dict[int, Decider] = {}
        self._reached: dict[tuple[str, int], int] = {}
        self._heard: dict[int, float] = {}

    def take(self, at: TP, chunk: Sequence[Any]) -> list[Record]:
        """What follows from a chunk of the partition `at`, in order. Records taken before are passed over."""
        topic, number = at.topic, at.partition
        decider = self._deciders.get(number)
        if decider is None:
            decider = self._deciders[number] = self._fresh(number)
        reached = self._reached.get((topic, number), -1)
        out: list[Record] = []
        for record in chunk:
            if record.offset <= reached:
                continue
            try:
                outcomes = self._outcomes(decider, topic, record)
            except ValueError as error:
                out.append(Record(DEAD_LETTERS, record.key, dead_letter(record, str(error))))
                continue
            out += self._records(outcomes, number)
        self._reached[topic, number] = max(reached, chunk[-1].offset)
        self._heard[number] = time.monotonic()
        return out

    def ticks(self) -> list[Record]:
        """A tick for each idle partition in which a block or an incident waits for its end."""
        now, out = time.monotonic(), []
        for number, decider in self._deciders.items():
            idle = now - self._heard[number]
            moment = decider.now + int(idle * 1000)
            if decider.due is not None and idle >= _IDLE_SECONDS and moment >= decider.due:
                out.append(Record(SIGNALS, None, encode(Tick(format_millis(moment))), number))
        return out

    def keep(self, numbers: set[int]) -> None:
        """Forgets every partition but `numbers`."""
        for number in self._deciders.keys() - numbers:
            del self._deciders[number], self._heard[number]
        self._reached = {at: offset for at, offset in self._reached.items() if at[1] in numbers}

    def restored(self, _: int, pieces: Iterable[bytes]) -> Decider:
        """The partition's decider as it was saved.

        Raises:
            StateError: the pieces can't be read.
        """
        decider = Decider(self._policy.for_responses, self._directory)
        decider.restore(pieces)
        return decider

    def go_on(self, number: int, decider: Decider | None, offsets: dict[str, int]) -> None:
        """Owns a partition from the next records on that its state does not account for."""
        self._deciders[number] = decider or self._fresh(number)
        self._reached |= {(topic, number): offset - 1 for topic, offset in offsets.items()}
        self._heard[number] = time.monotonic()

    def checkpoint(self, number: int) -> Checkpoint:
        """What is to be saved of the partition."""
        return self._deciders[number].checkpoint()

    def offsets(self, number: int) -> dict[str, int]:
        """The next records of the partition to read, by topic."""
        return {topic: offset + 1 for (topic, at), offset in self._reached.items() if at == number}

    @property
    def size(self) -> int:
        """How many identities have a case."""
        return sum(decider.cases for decider in self._deciders.values())

    def _fresh(self, number: int) -> Decider:
        decider = Decider(self._policy.for_responses, self._directory)
        # Where no state was saved, blocks and epochs of whoever owned the partition before are still in the topic: what
        # a person blocked is not lowered after it.
        for command in self._in_force(number):
            decider.resume(command)
        return decider

    def _outcomes(self, decider: Decider, topic: str, record: Any) -> list[Outcome]:
        """Raises ValueError (msgspec's errors are that too) for a record that is no signal, or a request that nobody
        who may has signed."""
        value = record.value or b""
        if topic == REQUESTS:
            request = decode_request(self._verifier.payload(value, REQUEST_TYPE))
            if record.timestamp > 0 and parse_millis(request.time) > record.timestamp:
                # The clock of whoever asked runs ahead: it must not carry the blocks of others to their end.
                request = replace(request, time=format_millis(record.timestamp))
            return decider.order(request)
        signal, arrived = decode_signal(value), max(0, record.timestamp)
        ahead = parse_millis(signal.time) - arrived
        if arrived and ahead > _AHEAD:
            # It would carry every block to its end.
            raise ValueError(f"time is {ahead / 1000:.0f} s ahead of the broker's clock")
        return decider.take(signal, arrived)

    def _records(self, outcomes: list[Outcome], number: int) -> list[Record]:
        out, issued = [], int(time.time() * 1000)
        for outcome in outcomes:
            if isinstance(outcome, Command):
                # The kill switch has the signals' partitions: a tenant's commands are written by its one owner.
                out += [
                    Record(r.topic, r.key.encode(), r.value, number, r.headers)
                    for r in self._signer.records(outcome, issued)
                ]
            else:
                out.append(Record(INCIDENTS, outcome.tenant.encode(), encode(outcome)))
        # The gateways before the analysts.
        return sorted(out, key=lambda record: record.topic == INCIDENTS)


def make(decision: Decision, kafka: Kafka) -> faust.App:
    """The app around `decision`."""
    app, signals = make_app("decide", kafka, [SIGNALS, REQUESTS], commits=not kafka.transactions)
    publisher = Publisher(kafka)
    log = partial(log_of, kafka, group("decide"), STATE_DECIDE, publisher=publisher)
    own(app, signals, "decide", Ownership(app, "decide", decision, publisher, log, atomic=True))
    return app


def __getattr__(name: str) -> faust.App:
    """`app`, made when it is asked for, so that importing this module needs no settings."""
    if name != "app":
        raise AttributeError(name)
    settings = read_settings()
    policy = read_policy(find_policy(settings.policy))
    signing = settings.signing
    signer = Signer.read(Path(signing.key), issuer=signing.issuer, contact=policy.policy.response.contact)
    verifier = Verifier.read(Path(signing.jwks))
    known = in_force(settings.kafka, verifier)
    app = make(Decision(policy, settings.known(), signer, verifier, known), settings.kafka)
    globals()["app"] = app
    return app

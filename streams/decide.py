"""The `decide` app: llm.signals and llm.requests in; llm.incidents and signed commands on llm.killswitch out.

    tripswitch run decide       (also: faust -A streams.decide:app worker)

Per chunk: 1. decide; 2. in one transaction write commands, incidents, the state and the offsets up to which it goes;
3. acknowledge the chunk. Whoever reads what is committed sees all of a chunk's outcomes or none, and none twice. Every
three seconds a signed heartbeat, in a transaction likewise, says what is in force in the partition.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import faust
from confluent_kafka import KafkaException
from faust.types import TP
from msgspec.structs import replace

from responses import Decider, Outcome
from schemas.command import Command
from schemas.directory import Directory
from schemas.finding import Tick, decode_signal, encode
from schemas.incident import Incident
from schemas.piece import Checkpoint
from schemas.request import decode_request
from schemas.times import format_millis, parse_millis
from schemas.topics import DEAD_LETTERS, INCIDENTS, KILLSWITCH, REQUESTS, SIGNALS, STATE_DECIDE
from sinks.dead_letters import dead_letter
from sinks.killswitch import REQUEST_TYPE
from streams.app import group, make_app
from streams.clock import wall_ms
from streams.in_force import Found, InForce, in_force
from streams.keyring import Keyring
from streams.killswitch import Switch
from streams.ownership import Ownership, own
from streams.policy import Loaded, find_policy, read_policy
from streams.publish import Publisher
from streams.record import Record
from streams.resigning import signing_threads
from streams.settings import Kafka, read_settings
from streams.state import log_of
from streams.takeover import take_over

_log = logging.getLogger(__name__)
_AHEAD = 600_000
"""Milliseconds. A finding may be as far ahead as its event was, five minutes."""
_KEYS_S = 1.0
_IDLE_SECONDS = 3.0
"""A partition without a signal for so long gets a tick, once something is due."""


class Opened(NamedTuple):
    """A partition that is taken over."""

    decider: Decider
    switch: Switch


class Decision:
    """The tenants' partitions that this worker owns, each with its decider and the offsets it has reached."""

    def __init__(self, policy: Loaded, directory: Directory, keys: Keyring, in_force: InForce) -> None:
        self._policy = policy
        self._directory = directory
        self._keys = keys
        self._in_force = in_force
        self._signing = signing_threads()
        self._to_mend: set[int] = set()
        self._deciders: dict[int, Decider] = {}
        self._switches: dict[int, Switch] = {}
        self._reached: dict[tuple[str, int], int] = {}
        self._heard: dict[int, float] = {}

    def take(self, at: TP, chunk: Sequence[Any]) -> list[Record]:
        """What follows from a chunk of the partition `at`, in order. Records taken before are passed over."""
        topic, number = at.topic, at.partition
        decider = self._deciders[number]
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
            out += self._records(outcomes, self._switches[number])
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
            del self._deciders[number], self._heard[number], self._switches[number]
        self._reached = {at: offset for at, offset in self._reached.items() if at[1] in numbers}

    def restored(self, _: int, pieces: Iterable[bytes]) -> Decider:
        """The partition's decider as it was saved.

        Raises:
            StateError: the pieces can't be read.
        """
        decider = Decider(self._policy.for_responses, self._directory)
        decider.restore(pieces)
        return decider

    def opened(self, number: int, decider: Decider | None) -> Opened:
        """The partition as its new owner finds it: its decider, and what has to be set right on the kill switch.

        Raises:
            KafkaException, TimeoutError: the kill switch can't be read.
        """
        saved = decider is not None
        decider, found = decider or Decider(self._policy.for_responses, self._directory), self._in_force(number)
        switch = Switch(number, found, self._signing)
        self._mend(decider, found, switch, saved=saved)
        return Opened(decider, switch)

    def go_on(self, number: int, opened: Opened, offsets: dict[str, int]) -> None:
        """Owns a partition from the next records on that its state does not account for."""
        self._deciders[number], self._switches[number] = opened
        self._reached |= {(topic, number): offset - 1 for topic, offset in offsets.items()}
        self._heard[number] = time.monotonic()

    def has_word(self, number: int) -> bool:
        """Whether a heartbeat is due, or something on the kill switch has to be set right."""
        return self._switches[number].has_word()

    def word(self, number: int) -> list[Record]:
        """The heartbeat, if it is due, after what sets the kill switch right."""
        return self._switches[number].word(self._keys.signer, self._keys.commands.keys.sha256)

    async def watch_keys(self) -> None:
        """Has what is in force signed anew once another key signs, or one that signed is trusted no more."""
        if self._keys.refresh():
            self._to_mend = set(self._switches)
        for number in sorted(self._to_mend & self._switches.keys()):
            decider, switch = self._deciders[number], self._switches[number]
            switch.read_begins()
            try:
                found = await asyncio.to_thread(self._in_force, number)
            except (KafkaException, TimeoutError) as error:
                _log.warning("%s/%d can't be read to be signed anew, and is tried again: %s", KILLSWITCH, number, error)
                return
            finally:
                since = switch.read_ends()
            if self._switches.get(number) is switch:
                self._mend(decider, found, switch, saved=True, but=since)
            self._to_mend.discard(number)

    def _mend(self, decider: Decider, found: Found, switch: Switch, *, saved: bool, but: Collection[str] = ()) -> None:
        """Makes the decider and what was `found` agree; what that takes is said with the next transactions."""
        signer = self._keys.signer
        mended = take_over(decider, found, saved=saved, kid=signer.kid, now=wall_ms(), but=but)
        anew = [outcome for outcome in mended.outcomes if isinstance(outcome, Command)]
        switch.say(_incidents(mended.outcomes), [*anew, *mended.again], signer)

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

    def _outcomes(self, decider: Decider, topic: str, record: Any) -> list[Outcome]:
        """Raises ValueError (msgspec's errors are that too) for a record that is no signal, or a request that nobody
        who may has signed."""
        value = record.value or b""
        if topic == REQUESTS:
            payload, signed = self._keys.requests.signed(value, REQUEST_TYPE)
            request = decode_request(payload)
            if record.timestamp > 0 and parse_millis(request.time) > record.timestamp:
                # The clock of whoever asked runs ahead: it must not carry the blocks of others to their end.
                request = replace(request, time=format_millis(record.timestamp))
            return decider.order(request, signed.person)
        signal, arrived = decode_signal(value), max(0, record.timestamp)
        ahead = parse_millis(signal.time) - arrived
        if arrived and ahead > _AHEAD:
            # It would carry every block to its end.
            raise ValueError(f"time is {ahead / 1000:.0f} s ahead of the broker's clock")
        return decider.take(signal, arrived)

    def _records(self, outcomes: list[Outcome], switch: Switch) -> list[Record]:
        # The gateways before the analysts.
        commands = [outcome for outcome in outcomes if isinstance(outcome, Command)]
        return switch.records(commands, self._keys.signer) + _incidents(outcomes)


def _incidents(outcomes: Iterable[Outcome]) -> list[Record]:
    told = (outcome for outcome in outcomes if isinstance(outcome, Incident))
    return [Record(INCIDENTS, incident.tenant.encode(), encode(incident)) for incident in told]


def make(decision: Decision, kafka: Kafka) -> faust.App:
    """The app around `decision`."""
    app, signals = make_app("decide", kafka, [SIGNALS, REQUESTS], commits=not kafka.transactions)
    publisher = Publisher(kafka)
    log = partial(log_of, kafka, group("decide"), STATE_DECIDE, publisher=publisher)
    own(app, signals, "decide", Ownership(app, "decide", decision, publisher, log, atomic=True, voice=decision))

    @app.timer(_KEYS_S)
    async def keys() -> None:
        await decision.watch_keys()

    return app


def __getattr__(name: str) -> faust.App:
    """`app`, made when it is asked for, so that importing this module needs no settings."""
    if name != "app":
        raise AttributeError(name)
    settings = read_settings()
    policy = read_policy(find_policy(settings.policy))
    keys = Keyring(settings.signing, policy.policy.response.contact)
    known = in_force(settings.kafka, keys.commands)
    app = make(Decision(policy, settings.known(), keys, known), settings.kafka)
    globals()["app"] = app
    return app

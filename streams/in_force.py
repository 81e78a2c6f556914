"""What the kill switch orders now: the last command of each subject, read back from its topic."""

import logging
from collections.abc import Callable, Iterable

from schemas.command import TOKEN_TYPE, Command, from_claims
from schemas.topics import KILLSWITCH
from sinks.killswitch import Verifier
from streams.committed import committed_records
from streams.settings import Kafka

_log = logging.getLogger(__name__)

InForce = Callable[[int], Iterable[Command]]
"""Of a partition's number: the last command of each subject in it."""


def in_force(kafka: Kafka, verifier: Verifier) -> InForce:
    """Reads a partition to its end each time it is asked.

    What nobody who may has signed is passed over, and said.
    """

    def read(number: int) -> Iterable[Command]:
        last: dict[tuple[str, str, str], Command] = {}
        for message in committed_records(kafka, KILLSWITCH, number, "tripswitch-decide-in-force"):
            try:
                command = from_claims(verifier.payload(message.value() or b"", TOKEN_TYPE))
            except ValueError as error:
                _log.warning("%s/%d offset %d passed over: %s", KILLSWITCH, number, message.offset(), error)
                continue
            key = (command.tenant, command.scope, command.subject)
            if key not in last or command.epoch > last[key].epoch:
                last[key] = command
        return last.values()

    return read

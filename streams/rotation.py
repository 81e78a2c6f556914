"""Rotating the key that signs commands, without a moment in which a gateway trusts nobody.

1. the new public key joins the JWKS file; 2. every gateway heard of lately says that it has it; 3. the new private key
takes the old one's place, and decide signs what is in force anew; 4. the old public key leaves the JWKS file. Each step
can be taken up again where an interrupted rotation stopped.
"""

import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from schemas.topics import KILLSWITCH
from sinks.keys import entry_of, new_private_key, read_jwks, read_private_key, retire_key, write_jwks
from sinks.killswitch import Verifier
from streams.acknowledged import Acknowledged, Gateway
from streams.clock import wall_ms
from streams.in_force import read_partition
from streams.init import reach
from streams.settings import Kafka, Signing
from streams.takeover import in_force

_LOOK_S = 1.0


class Signed(Struct, frozen=True):
    """What on the kill switch the key `kid` has not signed: commands in force, and partitions by their heartbeats."""

    commands: int
    partitions: list[int]

    @property
    def complete(self) -> bool:
        """Whether nothing is left."""
        return not (self.commands or self.partitions)


class Rotation:
    """From the key in the settings' files to a new one."""

    def __init__(self, signing: Signing) -> None:
        """Reads what is there.

        Raises:
            BadKey: a file can't be used.
        """
        self._private, self._jwks = Path(signing.key), Path(signing.jwks)
        self._next = self._private.with_name(self._private.name + ".next")
        self.old: str = read_private_key(self._private).thumbprint()
        self.new = ""

    def publish(self) -> bool:
        """Puts the new public key beside the old one. Returns whether it goes on with an earlier rotation.

        Raises:
            BadKey: a file can't be used.
        """
        earlier = self._next.exists()
        entry = entry_of(read_private_key(self._next)) if earlier else new_private_key(self._next)
        self.new = entry["kid"]
        entries = read_jwks(self._jwks)
        if all(one.get("kid") != self.new for one in entries):
            write_jwks(self._jwks, [*entries, entry])
        return earlier

    def switch(self) -> None:
        """Has the new key sign from now on; the old private key is gone."""
        self._next.replace(self._private)

    def distrust(self) -> None:
        """Has the new key sign at once, and nobody trust the old one any more."""
        earlier = self._next.exists()
        entry = entry_of(read_private_key(self._next)) if earlier else new_private_key(self._next)
        self.new = entry["kid"]
        # The private key first: decide goes on with the old one until it finds the new one's public half.
        self.switch()
        write_jwks(self._jwks, [*(one for one in read_jwks(self._jwks) if one.get("kid") != self.new), entry])
        retire_key(self._jwks, self.old)

    def retire(self) -> None:
        """Takes the old public key out of the JWKS file."""
        retire_key(self._jwks, self.old)


def await_gateways(
    kafka: Kafka, sha256: str, seconds: float, told: Callable[[list[Gateway], list[Gateway]], None]
) -> list[Gateway]:
    """Waits until every gateway that was heard of lately has the keys `sha256`; returns those that have not.

    `told` is called with all and with those that lack whenever one has followed.

    Raises:
        KafkaException, TimeoutError: the acknowledgements can't be read.
    """
    acknowledged, end, before = Acknowledged(kafka), time.monotonic() + seconds, None
    while True:
        heard = acknowledged.gateways()
        lacking = [gateway for gateway in heard if gateway.keys != sha256]
        if before != (before := (len(heard), len(lacking))):
            told(heard, lacking)
        if not lacking or time.monotonic() >= end:
            return lacking
        time.sleep(_LOOK_S)


def await_signed(kafka: Kafka, verifier: Verifier, kid: str, seconds: float) -> Signed:
    """Waits until the key `kid` has signed everything in force and the last heartbeats; returns what it has not.

    Raises:
        KafkaException, TimeoutError, Unreachable: the kill switch can't be read.
    """
    end = time.monotonic() + seconds
    while True:
        left = not_signed(kafka, verifier, kid)
        if left.complete or time.monotonic() >= end:
            return left
        time.sleep(_LOOK_S)


def not_signed(kafka: Kafka, verifier: Verifier, kid: str) -> Signed:
    """What the key `kid` has not signed.

    Raises:
        KafkaException, TimeoutError, Unreachable: the kill switch can't be read.
    """
    commands, partitions, now = 0, [], wall_ms()
    for number in range(reach(kafka).get(KILLSWITCH, 0)):
        found = read_partition(kafka, number, verifier, quiet=True)
        commands += sum(written.kid != kid and in_force(written, now) for written in found.commands.values())
        if found.heartbeat_kid != kid:
            partitions.append(number)
    return Signed(commands, partitions)


def signed_by(kafka: Kafka, verifier: Verifier, kid: str) -> int:
    """How many commands in force the key `kid` has signed.

    Raises:
        KafkaException, TimeoutError, Unreachable: the kill switch can't be read.
    """
    now, count = wall_ms(), 0
    for number in range(reach(kafka).get(KILLSWITCH, 0)):
        found = read_partition(kafka, number, verifier, quiet=True)
        count += sum(written.kid == kid and in_force(written, now) for written in found.commands.values())
    return count

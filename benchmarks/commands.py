"""Signed commands for the kill switch's benchmarks: a million signatures take minutes, so they are kept in build/."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from joserfc.jwk import RSAKey

from benchmarks.cluster import ROOT
from schemas.command import TOKEN_TYPE, Command, claims, record_key
from schemas.times import format_millis
from sinks.killswitch import Signer

ISSUER = "https://tripswitch.example/ssf"
NOW_MS = 1_795_223_525_000
# Far enough for a benchmark to find them in force whenever it runs.
_EXPIRES_MS = NOW_MS + 10 * 365 * 86_400_000
_TENANTS = 1_000
_LENGTHS = 4


class Made:
    """``count`` suspensions, each of another key, and the JWKS file that they are verified with."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.jwks = ROOT / "build" / f"killswitch-{count}.jwks.json"
        self._file = self.jwks.with_suffix(".bin")
        if not (self.jwks.exists() and self._file.exists()):
            self._make()

    def in_force(self, partitions: int) -> list[tuple[int, str]]:
        """What a heartbeat says of each partition: number and digest."""
        counts, sums = [0] * partitions, [0] * partitions
        for number in range(self.count):
            made = command(number)
            term = f"{record_key(made.tenant, made.scope, made.subject)}/{made.epoch}"
            partition = partition_of(number, partitions)
            counts[partition] += 1
            sums[partition] += int.from_bytes(hashlib.sha256(term.encode()).digest(), "big")
        return [(count, f"{total % 2**256:064x}") for count, total in zip(counts, sums, strict=True)]

    def records(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Tenant, record key and value."""
        with self._file.open("rb") as file:
            for number in range(self.count):
                tenant, subject = who(number)
                value = file.read(int.from_bytes(file.read(_LENGTHS), "big"))
                yield tenant, record_key(tenant, "identity", subject).encode(), value

    def _make(self) -> None:
        self.jwks.parent.mkdir(exist_ok=True)
        key = RSAKey.generate_key(2048)
        signer = Signer(key, issuer=ISSUER, contact="#ai-platform")
        being_made = Path(f"{self._file}.new")
        with being_made.open("wb") as file:
            for number in range(self.count):
                said = claims(command(number), issuer=ISSUER, issued=NOW_MS, contact="#ai-platform")
                token = signer.token(said, TOKEN_TYPE)
                file.write(len(token).to_bytes(_LENGTHS, "big") + token)
        being_made.replace(self._file)
        entry = {**key.as_dict(private=False), "kid": key.thumbprint(), "alg": "RS256", "use": "sig"}
        self.jwks.write_text(json.dumps({"keys": [entry]}))


def who(number: int) -> tuple[str, str]:
    """Tenant and identity of a command."""
    return f"tenant-{number % _TENANTS}", f"key_{number:08x}"


def partition_of(number: int, partitions: int) -> int:
    """All commands on a tenant are in one partition."""
    return number % _TENANTS % partitions


def command(number: int) -> Command:
    """The command of that number."""
    tenant, subject = who(number)
    return Command(
        command_id=f"cmd-{number:032x}",
        time=format_millis(NOW_MS),
        tenant=tenant,
        identity=subject,
        scope="identity",
        subject=subject,
        action="suspend",
        epoch=NOW_MS + number % 1000,
        expires_at=format_millis(_EXPIRES_MS),
        mode="enforce",
        reason="231 near-identical calls in 10 minutes, 40 times the usual rate, from a network never seen before",
        incident_id=f"inc-{number:016x}",
        finding_ids=[f"f-{number:032x}"],
        policy="1",
    )

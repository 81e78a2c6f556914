"""The tokens in force, kept in a file, so that a restarted gateway knows them before it hears of the broker.

The file holds the writer's own signed tokens and is verified like the topic: who can write to it can leave blocks out,
which the next heartbeat tells, and can forge none. It is replaced as a whole, and its checksum covers all of it.
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_log = logging.getLogger(__name__)

_MAGIC = b"tripswitch-snapshot 1\n"
_LENGTHS = 4


class Unusable(ValueError):
    """A snapshot that can't be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the tokens belong to: a snapshot of another issuer or topic is none of ours."""

    issuer: str
    topic: str
    jwks_sha256: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``offsets`` are where to read on, by partition; ``tokens`` are partition, record key and value."""

    origin: Origin
    offsets: Mapping[int, int]
    tokens: list[tuple[int, bytes, bytes]] = field(repr=False)


def write_snapshot(
    path: Path, origin: Origin, offsets: Mapping[int, int], tokens: Iterable[tuple[int, bytes, bytes]]
) -> None:
    """Replace the file. Raises OSError, and leaves the old file then."""
    number, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "wb") as file:
            digest = hashlib.sha256()
            for part in _parts(origin, offsets, tokens):
                digest.update(part)
                file.write(part)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        Path(made).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(made).unlink()
        raise


def read_snapshot(path: Path) -> Snapshot | None:
    """What the file holds; None when there is none. Raises `Unusable` when it is damaged or can't be read."""
    try:
        with path.open("rb") as file:
            return _read(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unusable(str(error.strerror)) from error


def _parts(origin: Origin, offsets: Mapping[int, int], tokens: Iterable[tuple[int, bytes, bytes]]) -> Iterator[bytes]:
    yield _MAGIC
    head = {"issuer": origin.issuer, "topic": origin.topic, "jwks_sha256": origin.jwks_sha256}
    yield _framed(json.dumps(head | {"offsets": dict(offsets)}).encode())
    for partition, key, value in tokens:
        yield partition.to_bytes(_LENGTHS, "big") + _framed(key) + _framed(value)


def _framed(raw: bytes) -> bytes:
    return len(raw).to_bytes(_LENGTHS, "big") + raw


def _read(file: IO[bytes]) -> Snapshot:
    size = os.fstat(file.fileno()).st_size - hashlib.sha256().digest_size
    digest = hashlib.sha256()

    def take(length: int) -> bytes:
        if file.tell() + length > size:
            raise Unusable("it is cut short")
        raw = file.read(length)
        digest.update(raw)
        return raw

    def take_framed() -> bytes:
        return take(int.from_bytes(take(_LENGTHS), "big"))

    if size < len(_MAGIC) or take(len(_MAGIC)) != _MAGIC:
        raise Unusable("it is of another version, or no snapshot")
    head = take_framed()
    tokens = []
    while file.tell() < size:
        tokens.append((int.from_bytes(take(_LENGTHS), "big"), take_framed(), take_framed()))
    if file.read() != digest.digest():
        raise Unusable("its checksum is wrong")
    try:
        said = json.loads(head)
        origin = Origin(said["issuer"], said["topic"], said["jwks_sha256"])
        offsets = {int(number): int(offset) for number, offset in said["offsets"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unusable("its head is wrong") from error
    return Snapshot(origin, offsets, tokens)

"""Pieces of a partition's saved state: what a checkpoint is made of."""

from typing import NamedTuple

import msgspec


class StateError(ValueError):
    """Saved state that can't be read; says why and what to do."""


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A part of a saved state: what it holds, in which version of that kind's format."""

    kind: str
    format: int
    body: bytes


class Checkpoint(NamedTuple):
    """What changed since the last checkpoint, and the next slice of everything else.

    Where `begins` is true a new round of slices begins: once the round is complete, the state follows from this
    checkpoint and those after it alone.
    """

    begins: bool
    pieces: list[bytes]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Piece)


def seal(kind: str, format: int, body: bytes) -> bytes:  # noqa: A002
    """One piece."""
    return _encoder.encode(Piece(kind, format, body))


def unseal(raw: bytes) -> Piece:
    """The piece in `raw`.

    Raises:
        StateError: it is none.
    """
    try:
        return _decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise StateError(
            f"a record of {len(raw)} bytes in the state topic is no piece of saved state: {error}"
        ) from error

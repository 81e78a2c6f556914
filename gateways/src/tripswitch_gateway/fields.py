"""Typed reading of a command's claims: a field is what it should be, or the record is refused as malformed."""

import base64
import json
from typing import Any


class Refused(Exception):
    """A record is not a command to obey.

    ``reason`` is one of: tombstone, oversized, malformed, algorithm, type, unknown-kid, signature, role, issuer,
    audience, event-mismatch, subject-mismatch, key-mismatch, partition-mismatch, from-the-future, from-the-past,
    epoch-ahead, older-epoch, same-epoch, heartbeat-replayed.
    ``command_id`` is known only when the signature was good.
    """

    def __init__(self, reason: str, command_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.command_id = command_id


def decode_segment(segment: bytes) -> bytes:
    """The bytes of an unpadded base64url segment."""
    try:
        return base64.b64decode(segment + b"=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise Refused("malformed") from None


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`."""
    try:
        parsed = json.loads(raw.decode())
    except (ValueError, RecursionError):
        raise Refused("malformed") from None
    if not isinstance(parsed, dict):
        raise Refused("malformed")
    return parsed


_REQUIRED = object()


def mapping(source: dict[str, Any], name: str) -> dict[str, Any]:
    """A member that must be an object."""
    value = source.get(name)
    if not isinstance(value, dict):
        raise Refused("malformed")
    return value


def only_event(claims: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The one event of a token, with its type."""
    events = mapping(claims, "events")
    if len(events) != 1:
        raise Refused("malformed")
    [(uri, event)] = events.items()
    if not isinstance(event, dict):
        raise Refused("malformed")
    return uri, event


def text(source: dict[str, Any], name: str, default: object = _REQUIRED) -> str:
    """A member that must be a text, and not empty unless `default` says what stands in for it."""
    value = source.get(name)
    if value is None and isinstance(default, str):
        return default
    if not isinstance(value, str) or (not value and default is _REQUIRED):
        raise Refused("malformed")
    try:
        value.encode()
    except UnicodeEncodeError:
        # JSON can spell a lone surrogate; it has no UTF-8, so no record key.
        raise Refused("malformed") from None
    return value


def texts(source: dict[str, Any], name: str) -> tuple[str, ...]:
    """A member that is absent or a list of texts."""
    value = source.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refused("malformed")
    return tuple(value)


def choice(source: dict[str, Any], name: str, allowed: tuple[str, ...], default: str | None = None) -> str:
    """A member that must be one of `allowed`."""
    value = source.get(name)
    if value is None:
        value = default
    if not isinstance(value, str) or value not in allowed:
        raise Refused("malformed")
    return value


def integer(source: dict[str, Any], name: str) -> int:
    """A member that must be a whole number from 0 to 2^63 - 1."""
    value = source.get(name)
    if type(value) is not int or not 0 <= value < 2**63:
        raise Refused("malformed")
    return value


def amount(source: dict[str, Any], name: str) -> float | None:
    """A member that is absent or a number from 0 up to 2^53."""
    value = source.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value < 2**53:
        raise Refused("malformed")
    return float(value)


def flag(source: dict[str, Any], name: str) -> bool:
    """A member that is absent (false) or a boolean."""
    value = source.get(name, False)
    if not isinstance(value, bool):
        raise Refused("malformed")
    return value


def localised(event: dict[str, Any], name: str) -> str:
    """The English text of a ``{language: text}`` member, else any other, else an empty string."""
    translations = event.get(name)
    if translations is None:
        return ""
    if not isinstance(translations, dict) or not all(isinstance(value, str) for value in translations.values()):
        raise Refused("malformed")
    return str(translations.get("en") or next(iter(translations.values()), ""))

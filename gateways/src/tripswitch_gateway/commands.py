"""Commands on the kill-switch topic, and how to tell that one is genuine."""

import time
from collections.abc import Callable
from typing import Any

from tripswitch_gateway import fields
from tripswitch_gateway.claims import ACTIONS, SCOPES, Command, Limits, read_command, record_key
from tripswitch_gateway.fields import Refused
from tripswitch_gateway.heartbeats import Heartbeat, read_heartbeat
from tripswitch_gateway.keys import BREAK_GLASS, COMMANDS, KeyFile
from tripswitch_gateway.tokens import TokenVerifier

__all__ = ["ACTIONS", "SCOPES", "Command", "CommandVerifier", "Limits", "record_key"]

AUDIENCE = "tripswitch-gateways"
MAX_AHEAD_MS = 5 * 60 * 1000
_BREAK_GLASS_ACTIONS = ("suspend", "revoke", "restore")
_KEY_LENGTH = 64


def wall_clock_ms() -> int:
    """Unix milliseconds by this machine's clock."""
    return time.time_ns() // 1_000_000


class CommandVerifier:
    """Turns a record of the kill-switch topic into a `Command` or a `Heartbeat`, or raises `Refused`.

    Nothing outside the signature is believed: the record key is derived again from the signed claims, and headers of
    the record are not looked at. ``now_ms`` is Unix milliseconds, this machine's clock when None.
    """

    def __init__(
        self, keys: KeyFile, issuer: str, audience: str = AUDIENCE, clock_ms: Callable[[], int] = wall_clock_ms
    ) -> None:
        self.keys = keys
        self.issuer = issuer
        self._audience = audience
        self._clock_ms = clock_ms
        self._tokens = TokenVerifier(keys)

    def glance(self, key: bytes | None, value: bytes | None) -> None:
        """Refuse at a small cost what can never be a command, and leave the rest to `verify`."""
        self._tokens.check_head(value)
        if key is None or len(key) != _KEY_LENGTH:
            raise Refused("key-mismatch")

    def verify(self, key: bytes | None, value: bytes | None, now_ms: int | None = None, partition: int = 0) -> Command:
        """Verify the command in one record. Raises `Refused`, and nothing else, whatever the bytes are."""
        token = self._tokens.open(value)
        try:
            self._check_addressing(token.claims)
            command = read_command(token, partition)
            _check_key(key, command)
            if token.role == BREAK_GLASS:
                _check_break_glass(command)
            self._check_time(token.claims, command, now_ms)
        except Refused as refusal:
            refusal.command_id = token.token_id
            raise
        return command

    def verify_heartbeat(self, key: bytes | None, value: bytes | None, partition: int) -> Heartbeat:
        """Verify the heartbeat in one record of ``partition``. Raises `Refused`, and nothing else."""
        token = self._tokens.open(value)
        self._check_addressing(token.claims)
        # Who was given a key for the worst day must not be able to say that all is well.
        if token.role != COMMANDS:
            raise Refused("role")
        return read_heartbeat(token, key, partition)

    def _check_addressing(self, claims: dict[str, Any]) -> None:
        if claims.get("iss") != self.issuer:
            raise Refused("issuer")
        audience = claims.get("aud")
        if audience != self._audience and not (isinstance(audience, list) and self._audience in audience):
            raise Refused("audience")

    def _check_time(self, claims: dict[str, Any], command: Command, now_ms: int | None) -> None:
        # Old is normal, a compacted topic is read from its beginning; the future means that a clock is wrong, and an
        # epoch taken from that clock would fence off every later command.
        latest = (self._clock_ms() if now_ms is None else now_ms) + MAX_AHEAD_MS
        if fields.integer(claims, "iat") * 1000 > latest or command.not_before > latest:
            raise Refused("from-the-future")
        if command.epoch > latest:
            raise Refused("epoch-ahead")


def _check_key(key: bytes | None, command: Command) -> None:
    # A command under another's key would compact that other one away.
    if key != command.key.encode():
        raise Refused("key-mismatch")


def _check_break_glass(command: Command) -> None:
    if not (command.manual and command.break_glass) or command.action not in _BREAK_GLASS_ACTIONS:
        raise Refused("role")

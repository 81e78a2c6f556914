"""From commands to the spans in which they block."""

from collections.abc import Iterable

from msgspec import Struct

from schemas.command import STRICTNESS, Command
from schemas.times import parse_millis

FOREVER = float("inf")


class Held(Struct):
    """A block: the command that began it, and from when until when it holds (seconds since 1970)."""

    command: Command
    start: float
    until: float

    @property
    def whom(self) -> str:
        """The identity, or the tenant where a whole one is blocked."""
        return self.command.identity or self.command.tenant


def seconds(time: str) -> float:
    """Seconds since 1970 of a time on the wire."""
    return parse_millis(time) / 1000


def blocks_of(commands: Iterable[Command]) -> list[Held]:
    """The blocks that `commands` make, in their order of time. One holds until it expires, until it is restored, or
    until the next command on its subject."""
    live: dict[tuple[str, str, str], Held] = {}
    out: list[Held] = []
    for command in sorted(commands, key=lambda c: parse_millis(c.time)):
        moment, whom = seconds(command.time), command.identity or command.tenant
        key = (whom, command.scope, command.subject)
        if key in live:
            live[key].until = min(live[key].until, moment)
        if STRICTNESS[command.action]:
            until = seconds(command.expires_at) if command.expires_at else FOREVER
            live[key] = Held(command, moment, until)
            out.append(live[key])
        elif not command.subject:
            # A restore that names no subject is of everything about the identity.
            for (of, _, _), held in live.items():
                if of == whom:
                    held.until = min(held.until, moment)
    return out

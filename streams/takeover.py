"""What the next owner of a partition of the kill switch has to set right there before it goes on."""

import logging
from collections.abc import Collection
from typing import NamedTuple

from msgspec.structs import replace

from responses import Decider, Outcome
from schemas.command import Command, record_key
from schemas.heartbeat import ends
from streams.in_force import Found, Written

_log = logging.getLogger(__name__)


class Mended(NamedTuple):
    """`again` are commands to write once more, the same but for the signature; the `outcomes` are new."""

    again: list[Written]
    outcomes: list[Outcome]


def take_over(decider: Decider, found: Found, *, saved: bool, kid: str, now: int, but: Collection[str] = ()) -> Mended:
    """Makes the decider of a partition and what its kill switch has (`found`) agree. `now` in ms.

    Without `saved` state the topic is all that is known. Else the state is right where its own commands are concerned,
    since both are written in one transaction: what is covered up is ordered again, what was written again is withdrawn.
    What a break-glass key signed meanwhile is a person's word. Whatever is in force ends up signed by the key `kid`.
    Record keys in `but` are left alone.
    """
    # Before anything is changed: a restore has its place here too, a receiver would obey what was written over it.
    again = [
        written
        for key, written in found.commands.items()
        if key not in but and (key in found.amiss or (written.kid != kid and in_force(written, now)))
    ]
    if not saved:
        for written in found.commands.values():
            # A break-glass key is a person's, whatever the command says.
            decider.blocks.resume(replace(written.command, manual=written.command.manual or written.break_glass))
        return Mended(again, [])
    outcomes: list[Outcome] = []
    held = {record_key(*subject): (subject, block) for subject, block in decider.blocks.in_force()}
    held = {key: held[key] for key in held if key not in but}
    settled: set[str] = set()
    for key, written in found.commands.items():
        if key in but:
            continue
        command = written.command
        last = decider.blocks.last_epoch((command.tenant, command.scope, command.subject))
        if key in held and held[key][1].command_id == command.command_id:
            settled.add(key)
        elif written.break_glass and command.epoch > last:
            _log.warning("taken over as a person's order: %s (%s)", command.command_id, command.reason)
            outcomes += decider.blocks.adopt(command)
            settled.add(key)
        elif key not in held and in_force(written, now):
            _log.warning("withdrawn, since it is not in force: %s, written again", command.command_id)
            outcomes += decider.blocks.withdraw(command)
    for key, (subject, block) in held.items():
        if key not in settled and (block.expires is None or block.expires > decider.now):
            _log.warning("ordered again, since %s is no longer to be read", block.command_id)
            outcomes += decider.blocks.order_again(subject)
    replaced = _keys(outcomes)
    return Mended([written for written in again if written.key not in replaced], outcomes)


def in_force(written: Written, now: int) -> bool:
    """Whether gateways obey a command at `now` (ms)."""
    return written.command.action != "restore" and ends(written.command, written.issued) > now


def _keys(outcomes: Collection[Outcome]) -> set[str]:
    return {record_key(c.tenant, c.scope, c.subject) for c in outcomes if isinstance(c, Command)}

"""`tripswitch killswitch`: what is on the kill switch, whether it is right, and the way past decide when it is down."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.command import Command
from schemas.heartbeat import ends, is_heartbeat
from schemas.times import format_millis, parse_millis
from schemas.topics import KILLSWITCH
from sinks.errors import Unreachable
from sinks.keys import retired_kids
from sinks.killswitch import Signer, Verifier
from streams.commands.orders import IdentityOption, Reason, ScopeOption, Target, parse_target, typed_by
from streams.commands.terminal import JsonOption, Mistake, console, errors, one_line
from streams.settings import Settings, read_settings

_OURS = 1
_GROUP = "tripswitch-operator-killswitch"
_SHOWN = 20
_GROUP = "tripswitch-operator-verify"

AllOption = Annotated[bool, typer.Option("--all", help="Begin with what is there already.")]
BeatsOption = Annotated[bool, typer.Option("--heartbeats", help="Show them, too.")]
GlassOption = Annotated[Path, typer.Option("--key", help="The break-glass key.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Though decide runs: it is shut out, and starts again.")]

app = typer.Typer(no_args_is_help=True, help="The kill switch: what gateways are ordered to do.")
glass = typer.Typer(no_args_is_help=True, help="Orders past decide, when it is down, with the key kept off line.")
app.add_typer(glass, name="break-glass")


@app.command()
def tail(everything: AllOption = False, heartbeats: BeatsOption = False, as_json: JsonOption = False) -> None:
    """Follows the commands, a line each, until it is interrupted."""
    from streams.following import follow
    from streams.in_force import read_command, read_heartbeat
    from streams.orders import reaching

    with one_line(), suppress(KeyboardInterrupt):
        settings = read_settings()
        verifier = Verifier.read(Path(settings.signing.jwks))
        with reaching(settings.kafka):
            for message in follow(settings.kafka, KILLSWITCH, _partitions(settings), everything=everything):
                key = message.key()
                if is_heartbeat(key) and not heartbeats:
                    continue
                verifier.keys.refresh()
                told: dict[str, Any] = {"partition": message.partition(), "offset": message.offset()}
                try:
                    if is_heartbeat(key):
                        beat, kid = read_heartbeat(key.decode(), message.value(), verifier)
                        told |= {"time": format_millis(beat.at), "heartbeat": beat.sequence, "in_force": beat.count}
                        text = f"{format_millis(beat.at)} heartbeat of {beat.partition}: {beat.count} in force"
                    else:
                        written = read_command(key, message.value(), verifier)
                        kid = written.kid
                        told |= _told(written.command) | {"break_glass": written.break_glass}
                        text = f"{written.command.time} {_text(written.command)}"
                        text += " BREAK-GLASS" if written.break_glass else ""
                    told["kid"] = kid
                except ValueError as error:
                    told |= {"refused": str(error)}
                    text = f"{KILLSWITCH}/{message.partition()} offset {message.offset()} REFUSED: {error}"
                print(json.dumps(told) if as_json else text, flush=True)


@app.command("list")
def show(as_json: JsonOption = False) -> None:
    """Shows what is in force, and for how long yet."""
    from rich.table import Table

    from streams.clock import wall_ms
    from streams.in_force import read_partition
    from streams.orders import reaching
    from streams.takeover import in_force

    with one_line():
        settings = read_settings()
        verifier, now = Verifier.read(Path(settings.signing.jwks)), wall_ms()
        with reaching(settings.kafka):
            found = [read_partition(settings.kafka, n, verifier, quiet=True) for n in range(_partitions(settings))]
    live = [written for one in found for written in one.commands.values() if in_force(written, now)]
    live.sort(key=lambda written: (written.command.tenant, written.command.subject, written.command.scope))
    covered = sum(len(one.amiss) for one in found)
    if as_json:
        told = [_told(w.command) | {"ends_in_s": _left(w.command, now), "kid": w.kid} for w in live]
        print(json.dumps({"in_force": told, "covered_up": covered}))
        return
    table = Table("tenant/subject", "scope", "action", "ends in", "by", "since", "reason")
    for command in (written.command for written in live):
        left = _left(command, now)
        table.add_row(
            f"{command.tenant}/{command.subject}", command.scope, command.action,
            "a person's word" if left is None else f"{left:.0f} s", "a person" if command.manual else "policy",
            command.time, command.reason,
        )  # fmt: skip
    console().print(table)
    if covered:
        errors.print(f"the last record of {covered} keys is no command in force: `tripswitch killswitch verify`")


@app.command()
def verify(as_json: JsonOption = False) -> None:
    """Checks every record of the topic; exit code 1 where something is wrong."""
    from streams.clock import wall_ms
    from streams.committed import committed_records
    from streams.orders import reaching
    from streams.verification import Verification

    with one_line():
        settings = read_settings()
        verifier = Verifier.read(Path(settings.signing.jwks))
        retired = retired_kids(Path(settings.signing.jwks))
        partitions, records, over, wrong = _partitions(settings), 0, 0, []
        with reaching(settings.kafka):
            for number in range(partitions):
                verification = Verification(number, partitions, verifier, settings.signing.issuer, retired)
                for message in committed_records(settings.kafka, KILLSWITCH, number, _GROUP, quiet=True):
                    verification.take(message, wall_ms())
                records += verification.records
                over += verification.over
                wrong += verification.end(wall_ms())
    if as_json:
        told = [{"partition": w.partition, "offset": w.offset, "key": w.key, "reason": w.reason} for w in wrong]
        print(json.dumps({"records": records, "partitions": partitions, "by_retired_keys": over, "wrong": told}))
    else:
        for one in wrong[:_SHOWN]:
            where = f"{KILLSWITCH}/{one.partition}" + ("" if one.offset is None else f" offset {one.offset}")
            print(f"{where} {one.key}: {one.reason}")
        more = f"; {len(wrong) - _SHOWN} more are not shown" if len(wrong) > _SHOWN else ""
        old = f", {over} of them signed by retired keys" if over else ""
        print(f"{records} records in {partitions} partitions{old}; {len(wrong)} things wrong{more}")
    raise typer.Exit(_OURS if wrong else 0)


@glass.command()
def revoke(
    target: Target, reason: Reason, key: GlassOption, scope: ScopeOption = "identity", identity: IdentityOption = None,
    force: ForceOption = False,
) -> None:  # fmt: skip
    """Blocks past decide."""
    _break_glass("revoke", target, reason, key, scope, identity, force=force)


@glass.command()
def suspend(
    target: Target, reason: Reason, key: GlassOption, scope: ScopeOption = "identity", identity: IdentityOption = None,
    force: ForceOption = False,
) -> None:  # fmt: skip
    """Pauses past decide."""
    _break_glass("suspend", target, reason, key, scope, identity, force=force)


@glass.command()
def restore(
    target: Target, reason: Reason, key: GlassOption, scope: ScopeOption = "identity", identity: IdentityOption = None,
    force: ForceOption = False,
) -> None:  # fmt: skip
    """Gives access back past decide."""
    _break_glass("restore", target, reason, key, scope, identity, force=force)


def _break_glass(
    action: Any, target: str, reason: str, key: Path, scope: Any, identity: str | None, *, force: bool
) -> None:
    from streams.break_glass import Alive, BreakGlass
    from streams.orders import reaching
    from streams.policy import find_policy, read_policy

    with one_line():
        tenant, name, scope, subject = parse_target(target, scope, identity)
        if not reason.strip():
            raise Mistake("--reason is empty: say why, for those who read it later")
        settings = read_settings()
        contact = read_policy(find_policy(settings.policy)).policy.response.contact
        signer = Signer.read(key, issuer=settings.signing.issuer, contact=contact)
        verifier = Verifier.read(Path(settings.signing.jwks))
        public = verifier.keys.get(signer.kid)
        if public is None or public.role != "break-glass":
            raise Mistake(
                f"{key}: gateways know no break-glass key {signer.kid}; `tripswitch keys new --break-glass` makes one"
            )
        try:
            with reaching(settings.kafka):
                past = BreakGlass(settings.kafka, signer, verifier, tenant)
                if not force:
                    past.check_decide_is_down()
                command = past.order(action, scope, subject or name, name or None, reason, typed_by())
        except Alive as error:
            raise Mistake(str(error)) from error
    print(f"{_text(command)}\npublished past decide as {command.command_id}, epoch {command.epoch}, and audited")


def _partitions(settings: Settings) -> int:
    from streams.init import reach

    count = reach(settings.kafka).get(KILLSWITCH)
    if not count:
        raise Unreachable(f"Kafka at {settings.kafka.bootstrap} lacks {KILLSWITCH}; run `tripswitch init` first")
    return count


def _told(command: Command) -> dict[str, Any]:
    names = (
        "command_id", "time", "tenant", "identity", "scope", "subject", "action", "epoch", "expires_at", "reason",
        "incident_id", "manual",
    )  # fmt: skip
    return {name: getattr(command, name) for name in names}


def _text(command: Command) -> str:
    until = f" until {command.expires_at}" if command.expires_at else ""
    return f"{command.action} {command.tenant}/{command.subject} ({command.scope}){until}: {command.reason}"


def _left(command: Command, now: int) -> float | None:
    end = ends(command, parse_millis(command.time))
    return None if end == float("inf") else (end - now) / 1000

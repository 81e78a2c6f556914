"""`tripswitch revoke`, `suspend`, `throttle` and `restore`: a person's word on an identity, a part of it, a tenant; and
`approve`, on what is planned of an identity."""

import getpass
import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from schemas.command import Scope
from schemas.request import Planned, Request
from sinks.errors import Unreachable
from sinks.killswitch import Signer, Verifier
from streams.commands.terminal import USERS_MISTAKE, JsonOption, Mistake, errors, one_line
from streams.settings import Signing, read_settings

_OURS = 1

Target = Annotated[str, typer.Argument(metavar="TENANT/SUBJECT", help="acme/key_7f3a; acme/* is the whole tenant.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is shown to analysts and kept.")]
ScopeOption = Annotated[Scope, typer.Option("--scope", help="What SUBJECT names.")]
IdentityOption = Annotated[
    str | None, typer.Option("--identity", help="Whose session, credential or end user SUBJECT is.")
]
ApproveOption = Annotated[
    str | None, typer.Option("--approve", metavar="REQUEST", help="The same order of another person, which waits.")
]
From = Annotated[str | None, typer.Option("--from", metavar="TIME", help="When it begins; now unless named.")]
Until = Annotated[
    str, typer.Option("--until", metavar="TIME", help="2026-11-27T20:00:00Z, or 30m, 4h, 2d after --from.")
]
Multiplier = Annotated[float, typer.Option("--max-multiplier", help="Up to so many times the identity's usual.", min=0)]
By = Annotated[str | None, typer.Option("--by", help="Who approves, where the key that signs names nobody.")]
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for decide's answer.")]


def parse_target(target: str, scope: Scope, identity: str | None) -> tuple[str, str, Scope, str | None]:
    """The tenant, identity, scope and subject that the command line names.

    Raises:
        Mistake: it names none.
    """
    tenant, slash, subject = target.partition("/")
    if not (tenant and slash and subject):
        raise Mistake(f"{target!r}: name the identity as TENANT/SUBJECT, for example acme/key_7f3a")
    if subject == "*" or scope == "tenant":
        if scope not in ("identity", "tenant") or subject not in ("*", tenant):
            raise Mistake(f"{target!r}: the whole tenant is {tenant}/*, without --scope {scope}")
        return tenant, "", "tenant", tenant
    if scope == "identity":
        return tenant, subject, scope, None
    if scope == "session" and not identity:
        raise Mistake("--scope session needs --identity: callers make the names of sessions up")
    return tenant, identity or "", scope, subject


def parse_planned(since: str | None, until: str, multiplier: float) -> Planned:
    """What is approved, as the command line says it.

    Raises:
        Mistake: it says nothing that can be approved.
    """
    begins = datetime.now(UTC).replace(microsecond=0) if since is None else _moment("--from", since)
    length = re.fullmatch(r"(\d{1,4})([mhd])", until)
    ends = begins + timedelta(**{_UNITS[length[2]]: int(length[1])}) if length else _moment("--until", until)
    if ends <= begins:
        raise Mistake(f"--until {until}: it would end before it begins")
    if ends <= datetime.now(UTC):
        raise Mistake(f"--until {until}: it is over")
    if multiplier <= 0:
        raise Mistake("--max-multiplier is how many times the identity's usual is expected: more than 0")
    return Planned(begins, ends, multiplier)


def _moment(option: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Mistake(f"{option} {text}: no time like 2026-11-27T20:00:00Z") from None
    if moment.tzinfo is None:
        raise Mistake(f"{option} {text}: say in which time zone, for example {text}Z")
    return moment.astimezone(UTC)


def read_signer(signing: Signing) -> Signer:
    """The key of who types.

    Raises:
        BadKey: it can't be used.
    """
    return Signer.read(Path(signing.operator_key or signing.key), issuer=signing.issuer, contact="")


def typed_by() -> str:
    """Who types, as far as the machine knows; the key says it better."""
    return os.environ.get("USER") or getpass.getuser()


def _order(
    action: Any, target: str, reason: str, scope: Scope, identity: str | None, approve: str | None, *,
    no_wait: bool, as_json: bool, by: str | None = None, planned: Planned | None = None,
) -> None:  # fmt: skip
    from streams.orders import Answer, Sent, make_request

    with one_line():
        tenant, name, scope, subject = parse_target(target, scope, identity)
        if not reason.strip():
            raise Mistake("--reason is empty: say why, for those who read it later")
        settings = read_settings()
        signer = read_signer(settings.signing)
        request = make_request(
            action, tenant, name, reason, by or typed_by(), scope=scope, subject=subject, approves=approve,
            planned=planned,
        )  # fmt: skip
        verifier = None if no_wait else Verifier.read(Path(settings.signing.jwks))
        sent = Sent(request, signer, settings.kafka)
        try:
            answer = Answer("unanswered") if verifier is None else sent.answer(verifier)
        except Unreachable as error:
            # The broker has the order: nobody should give it twice.
            answer = Answer("unanswered", why=str(error))
    if as_json:
        told = {} if no_wait else msgspec.to_builtins(answer)
        print(json.dumps(msgspec.to_builtins(request) | told))
    else:
        print(f"{action} of {target} asked for: {request.request_id}")
        _tell(request, target, answer)
    if answer.outcome == "refused":
        errors.print(f"tripswitch: refused: {answer.why}", markup=False)
        raise typer.Exit(USERS_MISTAKE)
    if answer.outcome == "unanswered" and not no_wait:
        why = answer.why or "decide has not read it yet (does it run?)"
        errors.print(f"tripswitch: not known to be carried out: {why}; it will be once decide reads it", markup=False)
        raise typer.Exit(_OURS)


def _tell(request: Request, target: str, answer: Any) -> None:
    for command in answer.commands:
        what = f"{command.action} of {command.tenant}/{command.subject} ({command.scope})"
        shadow = "" if command.mode == "enforce" else "; the policy's mode is shadow, so no gateway obeys it"
        print(f"{what} published: {command.command_id}, incident {command.incident_id}{shadow}")
    if answer.outcome == "waiting" and request.planned is not None:
        print("decide expects it now; no block of ours was due to nothing else, so none was ended")
    elif answer.outcome == "waiting" and request.scope == "tenant":
        print(
            f"it waits for another person: tripswitch {request.action} '{target}' --reason … --approve "
            f"{request.request_id}"
        )
    elif answer.outcome == "waiting":
        print("decide has read it, and had nothing to publish")


def revoke(
    target: Target, reason: Reason, scope: ScopeOption = "identity", identity: IdentityOption = None,
    approve: ApproveOption = None, no_wait: NoWait = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Blocks an identity at every gateway until a person restores it."""
    _order("revoke", target, reason, scope, identity, approve, no_wait=no_wait, as_json=as_json)


def suspend(
    target: Target, reason: Reason, scope: ScopeOption = "identity", identity: IdentityOption = None,
    approve: ApproveOption = None, no_wait: NoWait = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Pauses an identity at every gateway until a person restores it."""
    _order("suspend", target, reason, scope, identity, approve, no_wait=no_wait, as_json=as_json)


def throttle(
    target: Target, reason: Reason, scope: ScopeOption = "identity", identity: IdentityOption = None,
    approve: ApproveOption = None, no_wait: NoWait = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Slows an identity down at every gateway until a person restores it."""
    _order("throttle", target, reason, scope, identity, approve, no_wait=no_wait, as_json=as_json)


def restore(
    target: Target, reason: Reason, scope: ScopeOption = "identity", identity: IdentityOption = None,
    approve: ApproveOption = None, no_wait: NoWait = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Gives an identity its access back at every gateway."""
    _order("restore", target, reason, scope, identity, approve, no_wait=no_wait, as_json=as_json)


def approve(
    target: Target, reason: Reason, until: Until, max_multiplier: Multiplier, since: From = None, by: By = None,
    no_wait: NoWait = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Expects an identity's unusual volume for a while, and ends the block that it led to."""
    with one_line():
        _, _, scope, _ = parse_target(target, "identity", None)
        if scope == "tenant":
            raise Mistake(f"{target!r}: an approval is of one identity")
        planned = parse_planned(since, until, max_multiplier)
    _order("approve", target, reason, "identity", None, None, no_wait=no_wait, as_json=as_json, by=by, planned=planned)

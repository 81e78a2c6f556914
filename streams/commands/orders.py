"""`tripswitch revoke`, `suspend`, `throttle` and `restore`: a person's word on an identity."""

import getpass
import json
import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from sinks.killswitch import Signer
from streams.commands.terminal import JsonOption, Mistake, one_line
from streams.settings import read_settings

Target = Annotated[str, typer.Argument(metavar="TENANT/SUBJECT")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is shown to analysts and kept.")]


def _order(action: Any, target: str, reason: str, as_json: bool) -> None:
    from streams.orders import make_request, send

    with one_line():
        tenant, slash, identity = target.partition("/")
        if not (tenant and slash and identity):
            raise Mistake(f"{target!r}: name the identity as TENANT/SUBJECT, for example acme/key_7f3a")
        if not reason.strip():
            raise Mistake("--reason is empty: say why, for those who read it later")
        settings = read_settings()
        signer = Signer.read(Path(settings.signing.key), issuer=settings.signing.issuer, contact="")
        request = make_request(action, tenant, identity, reason, os.environ.get("USER") or getpass.getuser())
        send(request, signer, settings.kafka)
    print(
        json.dumps(msgspec.to_builtins(request))
        if as_json
        else f"{action} of {tenant}/{identity} asked for: {request.request_id}"
    )


def revoke(target: Target, reason: Reason, as_json: JsonOption = False) -> None:
    """Blocks an identity at every gateway until a person restores it."""
    _order("revoke", target, reason, as_json)


def suspend(target: Target, reason: Reason, as_json: JsonOption = False) -> None:
    """Pauses an identity at every gateway until a person restores it."""
    _order("suspend", target, reason, as_json)


def throttle(target: Target, reason: Reason, as_json: JsonOption = False) -> None:
    """Slows an identity down at every gateway until a person restores it."""
    _order("throttle", target, reason, as_json)


def restore(target: Target, reason: Reason, as_json: JsonOption = False) -> None:
    """Gives an identity its access back at every gateway."""
    _order("restore", target, reason, as_json)

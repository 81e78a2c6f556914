"""`tripswitch doctor`: is what is decided obeyed, everywhere?"""

import json
import os
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from sinks.errors import Unreachable
from streams.commands.orders import typed_by
from streams.commands.terminal import JsonOption, Mistake, console, one_line
from streams.settings import read_settings

if TYPE_CHECKING:
    from streams.doctor import Canary

HEADER = "TRIPSWITCH_CANARY_HEADER"


def doctor(
    canary: Annotated[
        str | None,
        typer.Option("--canary", metavar="TENANT/SUBJECT", help="Block this identity, see all obey, restore it."),
    ] = None,
    probe: Annotated[
        list[str] | None,
        typer.Option("--probe", metavar="URL", help=f"Call this gateway as the canary, with the header in {HEADER}."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Looks at the broker, decide's heartbeats, the gateways and the names they ask about; says how to mend what is
    wrong. Exit code 1 where something is."""
    from confluent_kafka import KafkaException

    from streams.doctor import Check, examine
    from streams.doctor.screen import shown

    checks: list[Check] = []
    with one_line():
        settings, asked = read_settings(), _canary(canary, probe or [])
        try:
            for check in examine(settings, asked):
                checks.append(check)
                if not as_json:
                    console().print(shown(check))
        except (KafkaException, TimeoutError) as error:
            raise Unreachable(f"Kafka at {settings.kafka.bootstrap}: {error}") from error
    if as_json:
        print(json.dumps(msgspec.to_builtins(checks)))
    if any(check.state == "failure" for check in checks):
        raise typer.Exit(1)


def _canary(target: str | None, probes: list[str]) -> "Canary | None":
    from streams.doctor import Canary

    if target is None:
        if probes:
            raise Mistake("--probe calls as the canary: name it with --canary TENANT/SUBJECT")
        return None
    tenant, slash, identity = target.partition("/")
    if not (tenant and slash and identity):
        raise Mistake(f"--canary {target!r}: name the identity as TENANT/SUBJECT, for example acme/canary")
    name, colon, value = os.environ.get(HEADER, "").partition(":")
    if probes and not colon:
        raise Mistake(f'{HEADER} is not set: give it as "Authorization: Bearer …"')
    return Canary(tenant, identity, typed_by(), tuple(probes), (name.strip(), value.strip()) if colon else None)

"""`tripswitch keys`: the keys that sign commands, of people who give orders, and for when decide is down."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sinks.keys import (
    Entry,
    entry_of,
    keys_sha256,
    new_keys,
    new_private_key,
    public_keys,
    read_jwks,
    retire_key,
    write_jwks,
)
from sinks.keys import read_private_key as read_private
from sinks.killswitch import Verifier
from streams.commands.terminal import JsonOption, Mistake, console, errors, one_line
from streams.settings import Settings, Signing, read_settings

if TYPE_CHECKING:
    from streams.acknowledged import Gateway
    from streams.rotation import Rotation

_OURS = 1
KeyOption = Annotated[Path | None, typer.Option("--key", help="Where its private key goes, instead of here.")]
WaitOption = Annotated[float, typer.Option("--wait", min=0.0, help="Seconds to wait for each of gateways and decide.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Go on though a gateway or a command is left behind.")]


def new(
    person: Annotated[str | None, typer.Option("--person", help="A key with which this person gives orders.")] = None,
    break_glass: Annotated[bool, typer.Option("--break-glass", help="A key for when decide is down.")] = False,
    key: KeyOption = None,
) -> None:
    """Makes a key: the one that signs commands with its JWKS file, a person's, or one to keep off line."""
    with one_line():
        signing = read_settings().signing
        if person is not None and break_glass:
            raise Mistake("a person's key gives orders, a break-glass key commands: make two")
        if person is not None:
            _new_person(signing, person.strip(), key)
        elif break_glass:
            private, jwks = key or Path("tripswitch-break-glass.pem"), Path(signing.jwks)
            kid = _add(jwks, private, role=True)
            print(f"private key {private}, kid {kid}, is in {jwks}; keep {private} off line")
        else:
            private = key or Path(signing.key)
            kid = new_keys(private, Path(signing.jwks))
            print(f"private key {private}, public keys {signing.jwks}, kid {kid}")


def _new_person(signing: Signing, person: str, key: Path | None) -> None:
    if not person or any(letter in person for letter in '/\\"'):
        raise Mistake(f"--person {person!r}: name a person, without slashes")
    if signing.operators is None:
        raise Mistake(
            "people's keys have a JWKS file of their own: name it in TRIPSWITCH_OPERATORS, or as operators in "
            "[signing] of tripswitch.toml, for decide too"
        )
    private, jwks = key or Path(f"tripswitch-{person}.pem"), Path(signing.operators)
    kid = _add(jwks, private, person=person)
    print(f"private key {private}, kid {kid}, {person}'s, is in {jwks}; {person} names it in TRIPSWITCH_OPERATOR_KEY")


def _add(jwks: Path, private: Path, *, role: bool = False, person: str | None = None) -> str:
    entries: list[Entry] = read_jwks(jwks) if role or jwks.exists() else []
    entry = new_private_key(private, role="break-glass" if role else "commands", person=person)
    write_jwks(jwks, [*entries, entry])
    kid: str = entry["kid"]
    return kid


def show(as_json: JsonOption = False) -> None:
    """Shows the public keys: which of them signs, and what the others are for."""
    from rich.table import Table

    with one_line():
        signing = read_settings().signing
        private = Path(signing.key)
        signs = read_private(private).thumbprint() if private.exists() else None
        files = [Path(signing.jwks), *([Path(signing.operators)] if signing.operators else [])]
        keys = [(file, key) for file in files for key in public_keys(file)]
        rows = [(key.kid, f"{key.person}'s orders" if key.person else key.role, str(file)) for file, key in keys]
        sha256 = keys_sha256(key.kid for key in public_keys(files[0]))
    if as_json:
        told = [{"kid": kid, "for": what, "file": file, "signs": kid == signs} for kid, what, file in rows]
        print(json.dumps({"keys": told, "jwks_sha256": sha256}))
        return
    table = Table("kid", "for", "signs now", "file")
    for kid, what, file in rows:
        table.add_row(kid, what, "yes" if kid == signs else "", file)
    console().print(table)
    print(f"gateways acknowledge {sha256}")


def rotate(
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Trust the old key no more from this moment on.")
    ] = False,
    wait: WaitOption = 60.0,
    force: ForceOption = False,
) -> None:
    """Has a new key sign commands: waits until gateways trust it, has what is in force signed anew, retires the old."""
    from streams.orders import reaching
    from streams.rotation import Rotation

    with one_line():
        settings = read_settings()
        rotation = Rotation(settings.signing)
        with reaching(settings.kafka):
            if compromised:
                done = _distrust(rotation, settings, wait)
            else:
                done = _rotate(rotation, settings, wait, force=force)
    raise typer.Exit(0 if done else _OURS)


def _rotate(rotation: "Rotation", settings: Settings, wait: float, *, force: bool) -> bool:
    earlier = rotation.publish()
    jwks = Path(settings.signing.jwks)
    print(f"{'going on with' if earlier else 'made'} the key {rotation.new}; {jwks} has it beside {rotation.old}")
    lacking = _await_gateways(settings, wait)
    if lacking and not force:
        errors.print(
            f"tripswitch: not switched: {', '.join(lacking)} did not say within {wait:g} s that they have {jwks}. Ship "
            "the file, and run this again; --force switches without them, and they refuse commands until they have it",
            markup=False,
        )
        return False
    rotation.switch()
    print(f"{settings.signing.key} has the key {rotation.new} now; waiting for decide to sign with it")
    if not _await_signed(rotation, settings, wait):
        errors.print(f"the old key stays trusted until `tripswitch keys retire {rotation.old}`", markup=False)
        return False
    rotation.retire()
    print(f"everything in force is signed by {rotation.new}; {rotation.old} is retired")
    return True


def _distrust(rotation: "Rotation", settings: Settings, wait: float) -> bool:
    rotation.distrust()
    jwks = Path(settings.signing.jwks)
    print(f"{rotation.old} is out of {jwks}: ship it at once. {rotation.new} signs from now on")
    lacking, signed = _await_gateways(settings, wait), _await_signed(rotation, settings, wait)
    if lacking:
        errors.print(f"tripswitch: these may still trust the old key: {', '.join(lacking)}", markup=False)
    if signed and not lacking:
        print(f"everything in force is signed by {rotation.new}, and every gateway has it")
    return signed and not lacking


def _await_signed(rotation: "Rotation", settings: Settings, wait: float) -> bool:
    from streams.rotation import await_signed

    left = await_signed(settings.kafka, Verifier.read(Path(settings.signing.jwks)), rotation.new, wait)
    if not left.complete:
        errors.print(
            f"tripswitch: {left.commands} commands in force and the heartbeats of {len(left.partitions)} partitions "
            f"are not signed by {rotation.new} yet (does decide run, with this key file?)",
            markup=False,
        )
    return left.complete


def _await_gateways(settings: Settings, wait: float) -> list[str]:
    from streams.rotation import await_gateways

    sha256 = keys_sha256(key.kid for key in public_keys(Path(settings.signing.jwks)))

    def tell(heard: "list[Gateway]", lacking: "list[Gateway]") -> None:
        print(f"{len(heard) - len(lacking)} of {len(heard)} gateways heard of lately have the keys {sha256[:12]}")

    return [gateway.name for gateway in await_gateways(settings.kafka, sha256, wait, tell)]


def retire(
    kid: Annotated[str, typer.Argument(metavar="KID", help="As `tripswitch keys list` shows it.")],
    force: ForceOption = False,
) -> None:
    """Takes a public key out of its JWKS file: nothing that it signed is trusted any more."""
    from streams.orders import reaching
    from streams.rotation import signed_by

    with one_line():
        settings = read_settings()
        signing = settings.signing
        files = [Path(signing.jwks), *([Path(signing.operators)] if signing.operators else [])]
        holding = [file for file in files if any(key.kid == kid for key in public_keys(file))]
        if not holding:
            raise Mistake(f"{kid}: no such key in {', '.join(map(str, files))}")
        if entry_of(read_private(Path(signing.key)))["kid"] == kid:
            raise Mistake(f"{kid} signs commands now: `tripswitch keys rotate` has another one sign first")
        if files[0] in holding and not force:
            with reaching(settings.kafka):
                count = signed_by(settings.kafka, Verifier.read(files[0]), kid)
            if count:
                raise Mistake(
                    f"{count} commands in force are signed by {kid}: let decide sign them anew (it does so when it "
                    "starts), or --force, and gateways that start later will not see them"
                )
        for file in holding:
            retire_key(file, kid)
        print(f"{kid} is out of {', '.join(map(str, holding))}")

"""The command line."""

import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from schemas.directory import Directory, DirectoryError, read_directory
from sinks.clickhouse import SchemaError
from sinks.errors import Unreachable
from sinks.killswitch import BadKey, Signer, new_keys
from streams.policy import PolicyError, find_policy, read_policy
from streams.settings import SettingsError, read_settings

USERS_MISTAKE = 2
_SHOWN_REJECTS = 5

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Notices within seconds that an AI-gateway identity is misused, and cuts it off.",
)
keys = typer.Typer(no_args_is_help=True, help="The keys that sign commands.")
policy = typer.Typer(no_args_is_help=True, help="The policy: every threshold and response.")
app.add_typer(keys, name="keys")
app.add_typer(policy, name="policy")
_errors = Console(stderr=True, soft_wrap=True, highlight=False)

PolicyOption = Annotated[
    str | None, typer.Option("--policy", help="policy.toml; else TRIPSWITCH_POLICY, ./policy.toml, the one installed.")
]
DirectoryOption = Annotated[Path | None, typer.Option("--directory", help="Who the identities are: JSON or TOML.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For a program to read.")]
AppName = Literal["detect", "decide", "archive", "notify"]


class Mistake(ValueError):
    """Something on the command line that can't be meant."""


@contextmanager
def _one_line() -> Iterator[None]:
    """The user's mistakes end in one line that says what, where and what to do, and exit code 2."""
    from streams.init import PartitionsDiffer
    from streams.replay import EventsError

    try:
        yield
    except (
        Mistake, PolicyError, SettingsError, DirectoryError, EventsError, BadKey, Unreachable, SchemaError,
        PartitionsDiffer, OSError,
    ) as error:  # fmt: skip
        text = str(error)
        if isinstance(error, OSError) and error.filename:
            text = f"{error.filename}: {error.strerror}"
        _errors.print(f"tripswitch: {text}", markup=False)
        raise typer.Exit(USERS_MISTAKE) from error


@app.command()
def replay(
    events: Annotated[str, typer.Argument(help="A .jsonl or .jsonl.gz file of usage events, or - for standard input.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for findings, incidents, commands (.jsonl) and summary.json.")
    ],
    directory: DirectoryOption = None,
    policy_file: PolicyOption = None,
    partitions: Annotated[int, typer.Option(min=1, max=4096, help="Split as Kafka would.")] = 1,
    chunk: Annotated[
        int, typer.Option(min=1, max=1 << 20, help="Events taken at once; the answer is the same for any.")
    ] = 1024,
    as_json: JsonOption = False,
) -> None:
    """Runs detection and decision over a file, without a broker."""
    from streams.collector import spare_what_stays
    from streams.replay import replay as run

    spare_what_stays()

    with _one_line():
        loaded = read_policy(find_policy(policy_file))
        known = read_directory(directory) if directory else read_settings().known()
        rejected = [0]

        def on_rejected(line: int, reason: str) -> None:
            rejected[0] += 1
            if rejected[0] <= _SHOWN_REJECTS:
                _errors.print(f"{events}:{line}: rejected: {reason}", markup=False)

        with _progress(events) as advance:
            summary = run(
                events,
                out,
                loaded,
                known,
                partitions=partitions,
                chunk=chunk,
                on_rejected=on_rejected,
                on_chunk=advance,
            )
    if rejected[0] > _SHOWN_REJECTS:
        _errors.print(f"{events}: {rejected[0] - _SHOWN_REJECTS} more lines rejected")
    if as_json:
        print(json.dumps(msgspec.to_builtins(summary)))
        return
    print(
        f"{summary.events} events of {summary.identities} identities in {summary.seconds:.1f} s "
        f"({summary.events_per_second:,.0f}/s): "
        f"{summary.findings} findings, {summary.incidents} incidents, {summary.commands} commands in {out}"
    )
    print(f"{summary.duplicates} duplicates, {summary.late} late, {summary.rejected} rejected")


@contextmanager
def _progress(events: str) -> Iterator[Callable[[int], None] | None]:
    """Counts events on a terminal; silent elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_errors, transient=True) as bar:
        task = bar.add_task(f"replaying {events}", total=None)
        yield lambda lines: bar.advance(task, lines)


@app.command()
def demo(as_json: JsonOption = False) -> None:
    """The whole system on this machine, nothing to install or start; a gateway is attacked before your eyes."""
    from streams.demo import run as play

    with _one_line():
        code = play(json=as_json)
    raise typer.Exit(code)


@app.command()
def init() -> None:
    """Makes topics, ClickHouse tables and signing keys; changes nothing that is there."""
    from streams.init import initialise

    with _one_line():
        done = False
        for line in initialise(read_settings()):
            done = True
            print(line)
        print("ready" if done else "ready; there was nothing to do")


@app.command()
def run(name: Annotated[AppName, typer.Argument(metavar="detect|decide|archive|notify")]) -> None:
    """Runs a worker of one Faust app until it is stopped."""
    import importlib

    from schemas.topics import TOPICS
    from streams.app import run as work
    from streams.init import reach

    with _one_line():
        settings = read_settings()
        missing = [topic.name for topic in TOPICS if topic.name not in reach(settings.kafka)]
        if missing:
            raise SettingsError(
                f"the broker at {settings.kafka.bootstrap} lacks {', '.join(missing)}; run `tripswitch init` first"
            )
        if name == "archive":
            from streams.archive import make_sink

            with make_sink(settings.clickhouse.url, Directory()) as sink:
                sink.setup()
        worker = importlib.import_module(f"streams.{name}").app
    work(worker)


def _order(action: Any, target: str, reason: str, as_json: bool) -> None:
    from streams.orders import make_request, send

    with _one_line():
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


Target = Annotated[str, typer.Argument(metavar="TENANT/SUBJECT")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is shown to analysts and kept.")]


@app.command()
def revoke(target: Target, reason: Reason, as_json: JsonOption = False) -> None:
    """Blocks an identity at every gateway until a person restores it."""
    _order("revoke", target, reason, as_json)


@app.command()
def suspend(target: Target, reason: Reason, as_json: JsonOption = False) -> None:
    """Pauses an identity at every gateway until a person restores it."""
    _order("suspend", target, reason, as_json)


@app.command()
def throttle(target: Target, reason: Reason, as_json: JsonOption = False) -> None:
    """Slows an identity down at every gateway until a person restores it."""
    _order("throttle", target, reason, as_json)


@app.command()
def restore(target: Target, reason: Reason, as_json: JsonOption = False) -> None:
    """Gives an identity its access back at every gateway."""
    _order("restore", target, reason, as_json)


@keys.command("new")
def keys_new() -> None:
    """Makes the signing key and its JWKS file where the settings say; overwrites nothing."""
    with _one_line():
        signing = read_settings().signing
        kid = new_keys(Path(signing.key), Path(signing.jwks))
        print(f"private key {signing.key}, public keys {signing.jwks}, kid {kid}")


@policy.command("check")
def policy_check(
    path: Annotated[str | None, typer.Argument(help="The policy; else the one that would be used.")] = None,
) -> None:
    """Says whether a policy can be used."""
    with _one_line():
        loaded = read_policy(find_policy(path))
        print(f"{loaded.path}: valid, version {loaded.version}")


@policy.command("show")
def policy_show(
    path: Annotated[str | None, typer.Argument(help="The policy; else the one that would be used.")] = None,
) -> None:
    """Prints the policy in use, as JSON."""
    with _one_line():
        loaded = read_policy(find_policy(path))
        print(
            json.dumps(
                {"path": loaded.path, "version": loaded.version, "policy": msgspec.to_builtins(loaded.policy)}, indent=1
            )
        )


def main() -> None:
    """The `tripswitch` command."""
    app()

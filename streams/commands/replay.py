"""`tripswitch replay`: detection and decision over a file."""

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from streams.commands.terminal import (
    DirectoryOption,
    JsonOption,
    PolicyOption,
    Rejects,
    known,
    one_line,
    progress,
)
from streams.policy import find_policy, read_policy


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

    with one_line():
        loaded = read_policy(find_policy(policy_file))
        directory_in_use, rejects = known(directory), Rejects(events)
        with progress(f"replaying {events}") as advance:
            summary = run(
                events,
                out,
                loaded,
                directory_in_use,
                partitions=partitions,
                chunk=chunk,
                on_rejected=rejects,
                on_chunk=advance,
            )
    rejects.tell_rest()
    if as_json:
        print(json.dumps(msgspec.to_builtins(summary)))
        return
    print(
        f"{summary.events} events of {summary.identities} identities in {summary.seconds:.1f} s "
        f"({summary.events_per_second:,.0f}/s): "
        f"{summary.findings} findings, {summary.incidents} incidents, {summary.commands} commands in {out}"
    )
    print(f"{summary.duplicates} duplicates, {summary.late} late, {summary.rejected} rejected")

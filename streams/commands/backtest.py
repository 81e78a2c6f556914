"""`tripswitch backtest`: what a policy makes of traffic of the past."""

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from schemas.directory import Directory
from streams.commands.terminal import (
    DirectoryOption,
    JsonOption,
    Mistake,
    PolicyOption,
    Rejects,
    console,
    known,
    one_line,
    progress,
)
from streams.policy import Loaded, find_policy, read_policy


def backtest(
    corpus: Annotated[
        Path,
        typer.Argument(
            help="Folder with events.jsonl(.gz), labels.jsonl and directory.json; with --shadow also a file."
        ),
    ],
    policy_file: PolicyOption = None,
    against: Annotated[str | None, typer.Option("--against", help="Another policy, to be shown beside.")] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Without labels: whom it would have cut off, for how long, at what saving.")
    ] = False,
    directory: DirectoryOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for backtest.json, backtest.svg and the replay's files.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Replays labelled traffic and scores what was found; or says what would have been cut off (--shadow)."""
    from streams.collector import spare_what_stays

    spare_what_stays()
    with one_line():
        if shadow and against:
            raise Mistake("--shadow and --against: one or the other")
        policy = read_policy(find_policy(policy_file))
        if shadow:
            _shadow(corpus, policy, directory, out, as_json)
        else:
            _scored(corpus, policy, read_policy(find_policy(against)) if against else None, directory, out, as_json)


def _scored(
    folder: Path, policy: Loaded, against: Loaded | None, who: Path | None, out: Path | None, as_json: bool
) -> None:
    from streams.backtest.compare import differences
    from streams.backtest.corpus import read_corpus
    from streams.backtest.picture import picture
    from streams.backtest.run import Result, calls_of, replayed
    from streams.backtest.run import backtest as run
    from streams.backtest.table import table
    from streams.replay import write

    corpus = read_corpus(folder)
    if who is not None:
        corpus = msgspec.structs.replace(corpus, directory=known(who))
    calls = calls_of(corpus.events, corpus.directory)
    results: list[Result] = []
    for loaded, name in ((policy, ""), *([(against, "against")] if against else [])):
        with progress(f"replaying {corpus.events} with {loaded.path}") as advance:
            road, summary = replayed(corpus.events, loaded, corpus.directory, None, advance)
        results.append(run(corpus, calls, loaded, road))
        if out is not None:
            write(road, summary, out / name)
    ours, other = results[0], results[1] if against else None
    answer = {"policy": ours, "against": other, "differences": differences(ours, other) if other else []}
    if out is not None:
        _write(out, answer)
        (out / "backtest.svg").write_text(picture(ours, other))
    if as_json:
        print(json.dumps(msgspec.to_builtins(answer)))
    else:
        console().print(table(ours, other))


def _shadow(events: Path, policy: Loaded, who: Path | None, out: Path | None, as_json: bool) -> None:
    from streams.backtest.corpus import directory_of, events_of
    from streams.backtest.run import calls_of, replayed
    from streams.backtest.shadow import shadow
    from streams.backtest.shadow_table import table
    from streams.replay import write

    is_folder = events.is_dir()
    path = events_of(events) if is_folder else str(events)
    directory: Directory = directory_of(events) if is_folder and who is None else known(who)
    rejects = Rejects(path)
    with progress(f"replaying {path}") as advance:
        road, summary = replayed(path, policy, directory, rejects, advance)
    rejects.tell_rest()
    answer = shadow(calls_of(path, directory), road.incidents.values(), road.commands)
    if out is not None:
        write(road, summary, out)
        _write(out, answer)
    if as_json:
        print(json.dumps(msgspec.to_builtins(answer)))
    else:
        console().print(table(answer, policy))


def _write(out: Path, answer: Any) -> None:
    (out / "backtest.json").write_text(json.dumps(msgspec.to_builtins(answer), indent=1) + "\n")

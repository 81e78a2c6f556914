"""`tripswitch explain` and `tripswitch incidents`: what was found, and why."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from streams.commands.terminal import DirectoryOption, JsonOption, Mistake, PolicyOption, console, known, one_line
from streams.policy import find_policy, read_policy
from streams.settings import read_settings

ReplayOption = Annotated[
    Path | None, typer.Option("--replay", help="Folder that `tripswitch replay` wrote; else ClickHouse and Kafka.")
]
_DIFFERS = 1


def explain(
    name: Annotated[str, typer.Argument(metavar="FINDING|INCIDENT", help="An id: f-… or inc-…")],
    replay: ReplayOption = None,
    events: Annotated[str | None, typer.Option("--events", help="With --replay: the file that was replayed.")] = None,
    directory: DirectoryOption = None,
    policy_file: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows what a finding was made from and what decided, and computes it again to prove it.

    Exit code 1 when it does not come out the same.
    """
    from streams.explain import Archive, Explanation, ReplayFolder, Source
    from streams.explain import explain as run
    from streams.explain.screen import screen, whole_screen
    from streams.explain.whole import WholeExplanation, explain_whole

    @contextmanager
    def source() -> Iterator[Source]:
        if replay is not None and events is not None:
            yield ReplayFolder(replay, events)
        elif replay is not None or events is not None:
            raise Mistake("--replay and --events go together: the folder of a replay, and the file that it read")
        else:
            from streams.archived import archived

            with archived() as archive:
                settings = read_settings()
                yield Archive(archive, settings.kafka, settings.signing)

    with one_line():
        policy = read_policy(find_policy(policy_file))
        who = known(directory)
        explanation: Explanation | WholeExplanation
        with source() as where:
            incident = where.incident(name)
            if incident is None or incident.identity is not None:
                explanation = run(name, where, policy, who)
            elif isinstance(where, ReplayFolder):
                explanation = explain_whole(incident, where, policy, who)
            else:
                raise Mistake(f"{name}: it is of a whole tenant, which is explained from a replay: --replay, --events")
    if as_json:
        said = msgspec.to_builtins(explanation) | {"reproduced": explanation.reproduced}
        print(json.dumps(said))
    else:
        part = explanation
        console().print(whole_screen(part) if isinstance(part, WholeExplanation) else screen(part))
    if not explanation.reproduced:
        raise typer.Exit(_DIFFERS)


def incidents(replay: ReplayOption = None, as_json: JsonOption = False) -> None:
    """Lists incidents, the newest last."""
    from streams.explain.incidents import listed
    from streams.explain.sources import read_incidents

    with one_line():
        if replay is not None:
            found = read_incidents(replay)
        else:
            from streams.archived import archived

            with archived() as archive:
                found = archive.incidents()
    if as_json:
        print(json.dumps(msgspec.to_builtins(found)))
    else:
        console().print(listed(found))

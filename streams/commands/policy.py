"""`tripswitch policy`: whether a policy can be used, and what is in it."""

import difflib
import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from streams.commands.terminal import JsonOption, Mistake, one_line
from streams.policy import Loaded, find_policy, read_policy
from streams.policy_text import read_lines, within

PathArgument = Annotated[str | None, typer.Argument(help="The policy; else the one that would be used.")]


def check(path: PathArgument = None) -> None:
    """Says whether a policy can be used."""
    with one_line():
        loaded = read_policy(find_policy(path))
        print(f"{loaded.path}: valid, version {loaded.version}")


def show(
    path: PathArgument = None,
    section: Annotated[
        str | None, typer.Option("--section", help="A table or key alone, with its comments: spike, risk.points.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prints the policy in use, as JSON; with --section a part of it, as it is written."""
    with one_line():
        loaded = read_policy(find_policy(path))
        part, text = msgspec.to_builtins(loaded.policy), None
        if section is not None:
            part, text = _section(loaded, section)
        if text is not None and not as_json:
            print(text)
            return
        print(json.dumps({"path": loaded.path, "version": loaded.version, "policy": part}, indent=1))


def _section(loaded: Loaded, path: str) -> tuple[Any, str]:
    """The values at a dotted path, and the lines of the file that give them."""
    lines = read_lines(Path(loaded.path).read_text())
    found = within(lines, path)
    if not found:
        leaf = path.rpartition(".")[2]
        near = difflib.get_close_matches(path, [line.path for line in lines], 1, 0.75)
        near += [line.path for line in lines if difflib.get_close_matches(leaf, [line.path.rpartition(".")[2]])]
        raise Mistake(f"{loaded.path}: {path}: no such key" + (f"; did you mean {near[0]!r}?" if near else ""))
    value = msgspec.to_builtins(loaded.policy)
    for key in path.split("."):
        value = value[key]
    table = path.rpartition(".")[0] if found[0].key else ""
    text = [f"[{table}]"] if table else []
    for line in found:
        text += ["", line.raw] if text and not line.key else [line.raw]
    return value, "\n".join(text)

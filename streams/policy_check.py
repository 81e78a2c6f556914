"""What can be wrong with a policy: keys that there are not, values that can't be, and sections that contradict."""

import difflib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct

from responses.config import FAMILY, Ladder, Response, Risk
from schemas.command import STRICTNESS
from schemas.finding import Severity

_MOST_RISK = 100.0


def mistakes(table: Mapping[str, Any], of: Any, path: str = "") -> Iterator[str]:
    """What keeps a table from being `of`, a Struct or a dict by Literal: each key that there is not, with the nearest
    valid one, each value that its key can't have, and each key that is missing, by their paths."""
    fields = _fields(of)
    meant = set(fields) - _optional(of)
    for key in (one for one in table if one not in fields):
        near = difflib.get_close_matches(key, fields, 1)
        # What was misspelt is not missing as well.
        meant -= set(near)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        yield f"{path}{key}: no such key{hint}"
    for key, kind in fields.items():
        if key not in table:
            if key in meant:
                yield f"{path.rstrip('.') or 'policy'}: Object missing required field `{key}`"
        elif not _fields(kind):
            try:
                msgspec.convert(table[key], kind)
            except msgspec.ValidationError as error:
                yield f"{path}{key}: {_reason(str(error), table[key], kind)}"
        elif isinstance(table[key], Mapping):
            yield from mistakes(table[key], kind, f"{path}{key}.")
        else:
            yield f"{path}{key}: Expected a table, got `{type(table[key]).__name__}`"


def contradictions(risk: Risk, response: Response) -> Iterator[str]:
    """What sections say of each other that can't be meant."""
    if risk.open > _MOST_RISK:
        yield f"risk.open = {risk.open:g}: risk never exceeds {_MOST_RISK:g}, so no incident would ever open"
    if response.block_risk > _MOST_RISK:
        yield f"response.block_risk = {response.block_risk:g}: risk never exceeds {_MOST_RISK:g}"
    if response.families_to_block > (count := len(set(FAMILY.values()))):
        yield f"response.families_to_block = {response.families_to_block}: there are only {count} families"
    points = [(f"risk.points.{name}", risk.points[name]) for name in get_args(Severity)]
    ordered: list[tuple[tuple[str, float], tuple[str, float], str]] = [
        (
            ("risk.open", risk.open),
            ("response.block_risk", response.block_risk),
            "nobody would be shown who was blocked, and why",
        ),
        (
            ("risk.raise_again_minutes", risk.raise_again_minutes),
            ("risk.quiet_minutes", risk.quiet_minutes),
            "the incident has closed by then",
        ),
        (
            ("response.cap_tenant", response.cap_tenant),
            ("response.cap_all", response.cap_all),
            "a tenant can't have more than all",
        ),
        *((lower, higher, "the graver one counts more") for lower, higher in pairwise(points)),
    ]
    for (less, a), (more, b), why in ordered:
        if a > b:
            yield f"{less} = {a:g} is more than {more} = {b:g}: {why}"
    for name in ("interactive", "batch", "agent"):
        ladder: Ladder = getattr(response, name)
        if STRICTNESS[ladder.theft] < STRICTNESS[ladder.families]:
            milder, graver = f"response.{name}.theft", f"response.{name}.families"
            yield f"{milder} = {ladder.theft!r} is milder than {graver} = {ladder.families!r}: theft is the graver"


def _fields(of: Any) -> dict[str, Any]:
    """The keys that a table of type `of` has, with the type of each; none where `of` is no table."""
    if isinstance(of, type) and issubclass(of, Struct):
        return {field.encode_name: field.type for field in msgspec.structs.fields(of)}
    if get_origin(of) is dict and get_origin(get_args(of)[0]) is Literal:
        names, kind = get_args(of)
        return dict.fromkeys(get_args(names), kind)
    return {}


def _optional(of: Any) -> set[str]:
    """The keys that may be absent."""
    if isinstance(of, type) and issubclass(of, Struct):
        return {field.encode_name for field in msgspec.structs.fields(of) if not field.required}
    return set()


def _reason(message: str, value: object, kind: Any) -> str:
    """Msgspec's message, with the values that there are where only some are."""
    if get_origin(kind) is not Literal:
        return message
    values = [str(one) for one in get_args(kind)]
    near = difflib.get_close_matches(str(value), values, 1)
    return f"{message}; " + (f"did you mean {near[0]!r}?" if near else f"one of {', '.join(map(repr, values))}")

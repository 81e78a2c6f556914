"""Usage events' JSON read straight into columns, without a Python object for each text and number.

To decode an event, to ask it for its fields and to free it again costs more than to judge it. Of a record that is as
gateways write them this loop says the same as msgspec's decoder and `schemas.columns`; any other one it declines.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.columns import NAMES, NUMBERS, Fields
from schemas.compiled import compiled_bare
from schemas.json_tokens import DECLINED, PAD, blank, count, moment, number, text_end
from schemas.rules import CHOICE, COUNT, LONGEST_KEY, MOMENT, OBJECT, REAL, TEXT, TRUTH, Rules, rules_of
from schemas.usage import MAX_LINE, UsageEvent
from schemas.xxh3 import LONGEST, Bytes, hashed, word

TENANT, SUBJECT, CREDENTIAL, _ID = range(4)
_SPANS = ("tenant", "subject", "credential_id", "id")
_FIELDS, _RULES = rules_of(UsageEvent)
_COLUMNS = np.array(
    [[among.index(field) if field in among else -1 for among in (NAMES, NUMBERS, _SPANS)] for field in _FIELDS]
)
_SOURCE_NAME, _TENANT_NAME = NAMES.index("source"), NAMES.index("tenant")
_HARD = 4
"""So many numbers per record, on average, may be left to Python, which reads those of more than 15 digits."""
_ONE = np.uint64(1)
_QUOTE, _OPEN, _CLOSE, _COLON, _COMMA, _MINUS, _NINE, _F = (ord(c) for c in '"{}:,-9f')
_NULL, _TRUE, _FALSE = (np.uint64(int.from_bytes(text, "little")) for text in (b"null", b"true", b"alse"))
_HALF = np.uint64(0xFFFFFFFF)


class Packed(NamedTuple):
    """Records in one piece: where in `raw` each begins and ends."""

    raw: bytes | memoryview
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]


class Scanned(NamedTuple):
    """Records as columns: the bytes of all of them, their `fields`, which are `good` (the others were declined, and
    their fields mean nothing), and where in the bytes the names of an identity are (4 by n by 2: begin, size)."""

    raw: bytes
    fields: Fields
    good: NDArray[np.bool_]
    spans: NDArray[np.int64]


def pack(values: Sequence[bytes]) -> Packed:
    """Puts records together."""
    sizes = np.fromiter(map(len, values), np.int64, len(values))
    ends = np.cumsum(sizes)
    return Packed(b"".join(values), ends - sizes, ends)


def scan(records: Packed) -> Scanned:
    """Reads records."""
    n, raw = len(records.begins), b"".join((records.raw, PAD))
    out = Scanned(raw, Fields.of(n), np.zeros(n, np.bool_), np.zeros((len(_SPANS), n, 2), np.int64))
    work = _Work(np.zeros(1), np.empty((_HARD * n, 4), np.int64), np.zeros(64, np.int64))
    hards = _scan(
        np.frombuffer(raw, np.uint8), records.begins, records.ends, _RULES, _COLUMNS, out.fields, out.good, out.spans,
        work,
    )  # fmt: skip
    for i, field, at, past in work.hard[:hards].tolist():
        exact = float(raw[at:past])
        least, most, _ = _RULES.bounds[field]
        out.good[i] &= least <= exact <= most
        if _COLUMNS[field, 1] >= 0:
            out.fields.numbers[_COLUMNS[field, 1], i] = exact
    out.good[records.ends - records.begins > MAX_LINE] = False
    return out


class _Work(NamedTuple):
    """Room for a number; the hard numbers (record, field, begin, end) that are left to Python; the fields of the last
    record in their order, which is likely that of the next."""

    value: NDArray[np.float64]
    hard: NDArray[np.int64]
    order: NDArray[np.int64]


@compiled_bare
def _scan(
    raw: Bytes, begins: NDArray[np.int64], ends: NDArray[np.int64], rules: Rules, columns: NDArray[np.int64],
    out: Fields, good: NDArray[np.bool_], spans: NDArray[np.int64], work: _Work,
) -> int:  # fmt: skip
    """Reads every record; returns how many numbers are hard."""
    hards = 0
    for i in range(len(begins)):
        noted = _record(raw, begins[i], ends[i], i, rules, columns, out, spans, work, hards)
        if noted == DECLINED:
            continue
        hards, good[i] = noted, True
        id_at, id_size = np.uint64(spans[_ID, i, 0]), np.uint64(spans[_ID, i, 1])
        at, size = np.uint64(spans[SUBJECT, i, 0]), np.uint64(spans[SUBJECT, i, 1])
        out.unique[i] = max(hashed(raw, id_at, id_size, out.names[_SOURCE_NAME, i]), _ONE)
        out.identity[i] = max(hashed(raw, at, size, out.names[_TENANT_NAME, i]), _ONE)
    return hards


@compiled_bare
def _record(
    raw: Bytes, at: int, end: int, i: int, rules: Rules, columns: NDArray[np.int64], out: Fields,
    spans: NDArray[np.int64], work: _Work, hards: int,
) -> int:  # fmt: skip
    """Reads one record; returns how many numbers are hard by then, or that it is declined."""
    at = blank(raw, at)
    if raw[at] != _OPEN:
        return DECLINED
    level, seen, place = 0, np.uint64(0), 0
    while True:
        field, at = _key(raw, blank(raw, at + 1), level, rules, work.order, place)
        if at == DECLINED:
            return DECLINED
        place += 1
        if field >= 0:
            bit = _ONE << np.uint64(field)
            if seen & bit:
                return DECLINED
            seen |= bit
        first = raw[at]
        if first == _QUOTE:
            at = _text(raw, at + 1, i, field, rules, columns, out, spans)
        elif first == _OPEN and field >= 0 and rules.holds[field] == OBJECT:
            level = 1
            continue
        elif _MINUS <= first <= _NINE:
            at, hards = _number(raw, at, i, field, rules, columns, out, work, hards)
        else:
            at = _literal(raw, at, i, field, rules, columns, out)
        if at == DECLINED:
            return DECLINED
        at = blank(raw, at)
        if raw[at] == _CLOSE and level == 1:
            level, at = 0, blank(raw, at + 1)
        if raw[at] == _CLOSE and level == 0:
            break
        if raw[at] != _COMMA:
            return DECLINED
    whole = at + 1 == end or blank(raw, at + 1) == end
    return hards if whole and (seen & rules.required) == rules.required else DECLINED


@compiled_bare
def _key(raw: Bytes, at: int, level: int, rules: Rules, order: NDArray[np.int64], place: int) -> tuple[int, int]:
    """The field (-1: none of ours) of the key at `at`, and where its value begins. `place` is the key's number in the
    record, and `order` has the field that was there last."""
    if raw[at] != _QUOTE:
        return -1, DECLINED
    at += 1
    field = order[place % len(order)]
    if _is_key(raw, at, field, level, rules):
        at += int(rules.keys[field, 2])
    else:
        past = text_end(raw, at)
        if past == DECLINED:
            return -1, DECLINED
        field = _field(raw, at, past - at, level, rules)
        order[place % len(order)] = max(field, 0)
        at = past
    at = blank(raw, at + 1)
    return field, blank(raw, at + 1) if raw[at] == _COLON else DECLINED


@compiled_bare
def _is_key(raw: Bytes, at: int, field: int, level: int, rules: Rules) -> bool:
    """Whether the text at `at` is the key of a field."""
    size = int(rules.keys[field, 2])
    if raw[at + size] != _QUOTE or rules.levels[field] != level:
        return False
    first, second = _words(raw, at, size)
    return bool(rules.keys[field, 0] == first and rules.keys[field, 1] == second)


@compiled_bare
def _words(raw: Bytes, at: int, size: int) -> tuple[np.uint64, np.uint64]:
    """The text of up to 16 bytes at `at` as two words."""
    first, second = word(raw, np.uint64(at)), np.uint64(0)
    if size < 8:
        first &= (_ONE << np.uint64(8 * size)) - _ONE
    elif size > 8:
        second = word(raw, np.uint64(at + 8))
        if size < LONGEST_KEY:
            second &= (_ONE << np.uint64(8 * (size - 8))) - _ONE
    return first, second


@compiled_bare
def _field(raw: Bytes, at: int, size: int, level: int, rules: Rules) -> int:
    """The field whose key is the text of `size` bytes at `at`, -1 where there is none."""
    if not 0 < size <= LONGEST_KEY:
        return -1
    first, second = _words(raw, at, size)
    mixed = (first ^ (second >> np.uint64(7)) ^ np.uint64(size)) * rules.multiplier
    field = rules.slots[level, int(mixed >> np.uint64(57))]
    return field if field >= 0 and _is_key(raw, at, field, level, rules) else -1


@compiled_bare
def _text(
    raw: Bytes, at: int, i: int, field: int, rules: Rules, columns: NDArray[np.int64], out: Fields,
    spans: NDArray[np.int64],
) -> int:  # fmt: skip
    """Takes the text at `at` in; returns what comes after it, or that the field may not hold it."""
    past = text_end(raw, at)
    if past == DECLINED or field < 0:
        return past + 1 if field < 0 and past != DECLINED else DECLINED
    size, holds = past - at, rules.holds[field]
    if holds == MOMENT:
        out.time[i] = moment(raw, at, size)
        return DECLINED if out.time[i] == DECLINED else past + 1
    is_text, is_choice = holds == TEXT, holds == CHOICE
    if not (is_text or is_choice) or not rules.bounds[field, 0] <= size <= rules.bounds[field, 1]:
        return DECLINED
    column, span = columns[field, 0], columns[field, 2]
    if is_text and column < 0 and span < 0:
        return past + 1
    if size > LONGEST or (is_choice and size == 0):
        return DECLINED
    if span >= 0:
        spans[span, i, 0], spans[span, i, 1] = at, size
    if size > 0 and (column >= 0 or is_choice):
        name = hashed(raw, np.uint64(at), np.uint64(size), np.uint64(0))
        if column >= 0:
            out.names[column, i] = name
        for k in range(rules.choices.shape[1]):
            is_text |= rules.choices[field, k] == name
    return past + 1 if is_text else DECLINED


@compiled_bare
def _number(
    raw: Bytes, at: int, i: int, field: int, rules: Rules, columns: NDArray[np.int64], out: Fields, work: _Work,
    hards: int,
) -> tuple[int, int]:  # fmt: skip
    """Takes the number at `at` in; returns what comes after it, or that the field may not hold it, and how many numbers
    are hard by then."""
    if field < 0:
        return number(raw, at, work.value), hards
    holds, begin = rules.holds[field], at
    if holds == COUNT:
        at = count(raw, at, work.value)
    elif holds == REAL:
        at = number(raw, at, work.value)
    else:
        return DECLINED, hards
    value, column = work.value[0], columns[field, 1]
    if at == DECLINED:
        return DECLINED, hards
    if column >= 0:
        out.numbers[column, i] = value
    if not np.isnan(value):
        return at if rules.bounds[field, 0] <= value <= rules.bounds[field, 1] else DECLINED, hards
    if hards == len(work.hard):
        return DECLINED, hards
    work.hard[hards, 0], work.hard[hards, 1], work.hard[hards, 2], work.hard[hards, 3] = i, field, begin, at
    return at, hards + 1


@compiled_bare
def _literal(raw: Bytes, at: int, i: int, field: int, rules: Rules, columns: NDArray[np.int64], out: Fields) -> int:
    """Takes null, true or false at `at` in; returns what comes after it, or that the field may not hold it."""
    four = word(raw, np.uint64(at)) & _HALF
    if four == _NULL:
        return DECLINED if field >= 0 and rules.bounds[field, 2] == 0 else at + 4
    false = raw[at] == _F and (word(raw, np.uint64(at + 1)) & _HALF) == _FALSE
    if not (false or four == _TRUE) or (field >= 0 and rules.holds[field] != TRUTH):
        return DECLINED
    if field >= 0 and columns[field, 1] >= 0:
        out.numbers[columns[field, 1], i] = 0.0 if false else 1.0
    return at + 5 if false else at + 4

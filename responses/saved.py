"""A decider's saved state: what its pieces hold, and in which format.

A checkpoint's pieces come in the order of the classes here. Bodies are JSON, as the findings and incidents in them are
on the wire: whatever number came in goes out again.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct, field

from responses.case import Case, InForce, Whole
from responses.config import Config, Family
from responses.epochs import Subject
from responses.risk import Standing
from responses.second_person import Waiting
from responses.sweep import Key
from responses.taken import Ids
from schemas.directory import Approval
from schemas.finding import Finding
from schemas.incident import Incident
from schemas.piece import StateError, seal, unseal

_MOST = 500_000
"""Bytes of a piece, unless a single case has more."""


class Head(Struct):
    """The first of each checkpoint: whether a round begins with it, the clock (ms), and how many cases there are.

    `ids_first` and `ids` are the numbers of the first id that is kept and of the next one; between `ids_at` and
    `ids_end` this round's slices still lie.
    """

    begins: bool
    now: int
    cases: int
    ids_first: int
    ids: int
    ids_at: int
    ids_end: int


class SavedEpoch(Struct):
    """A subject's last epoch. Each checkpoint has all that the clock has not passed."""

    subject: Subject
    epoch: int


class SavedBlocked(Struct):
    """When an identity that counts for the caps was last blocked. Each checkpoint has all, the latest last."""

    at: Key
    when: int


class SavedWaiting(Struct):
    """An order that waits for a second person. Each checkpoint has all."""

    waiting: Waiting


class SavedApproval(Struct):
    """Unusual use that a person approved. Each checkpoint has all."""

    approval: Approval


class Gone(Struct):
    """A case that is no more."""

    at: Key


class SavedCase(Struct, omit_defaults=True):
    """One case, as `Case` names its parts."""

    at: Key
    touched: int
    next_farewell: int
    risk: list[tuple[Family, float, int]] = []
    claims: list[tuple[Family, float, int]] = []
    blocks: list[InForce] = []
    block_starts: list[int] = []
    denied_at: int = 0
    cleared_at: int = 0
    found_at: int = 0
    claimed_at: int = 0
    findings: list[Finding] = []
    incident: Incident | None = None
    incident_id: str | None = None
    next_look: int | None = None
    whole: Whole = field(default_factory=Whole)


Part = Head | SavedEpoch | SavedBlocked | SavedWaiting | SavedApproval | Gone | SavedCase | Ids


class _Kind(NamedTuple):
    name: str
    format: int
    decoder: msgspec.json.Decoder[Any]


_FORMATS: dict[type[Part], int] = {
    Head: 1, SavedEpoch: 1, SavedBlocked: 1, SavedWaiting: 1, SavedApproval: 1, Gone: 1, SavedCase: 1, Ids: 1,
}  # fmt: skip
"""Raised by whoever changes what a part's bytes mean, in `Finding` and `Incident` too."""
_KINDS = {
    part: _Kind(f"decide.{part.__name__.removeprefix('Saved').lower()}", number, msgspec.json.Decoder(list[part]))  # type: ignore[valid-type]
    for part, number in _FORMATS.items()
}
_NAMED = {kind.name: kind for kind in _KINDS.values()}
_encode = msgspec.json.Encoder().encode
_CURE = (
    "Run the version of tripswitch that wrote it; or delete the records of this partition of the state topic: the "
    "blocks in force are then read back from the kill switch, and risks and open incidents start afresh."
)


def save_case(case: Case) -> SavedCase:
    """What is saved of a case."""
    return SavedCase(
        at=(case.tenant, case.identity),
        touched=case.touched,
        next_farewell=case.next_farewell,
        risk=case.risk.held,
        claims=case.claims.held,
        blocks=list(case.blocks.values()),
        block_starts=case.block_starts,
        denied_at=case.denied_at,
        cleared_at=case.cleared_at,
        found_at=case.found_at,
        claimed_at=case.claimed_at,
        findings=list(case.findings.values()),
        incident=case.incident,
        incident_id=case.incident_id,
        next_look=case.next_look,
        whole=case.whole,
    )


def load_case(saved: SavedCase, config: Config) -> Case:
    """The case that was saved."""
    case = Case(*saved.at, config)
    case.touched = saved.touched
    case.next_farewell = saved.next_farewell
    case.risk = Standing(config, saved.risk)
    case.claims = Standing(config, saved.claims)
    # Who was blocked in the shadow never was, once the policy says to enforce: the next finding has its answer.
    shadow = config.response.mode == "shadow"
    case.blocks = {(block.scope, block.subject): block for block in saved.blocks if shadow or not block.shadow}
    case.block_starts = saved.block_starts
    case.denied_at = saved.denied_at
    case.cleared_at = saved.cleared_at
    case.found_at = saved.found_at
    case.claimed_at = saved.claimed_at
    case.findings = {finding.kind: finding for finding in saved.findings}
    case.incident = saved.incident
    case.incident_id = saved.incident_id
    case.next_look = saved.next_look
    case.whole = saved.whole
    return case


def seal_parts(parts: Iterable[Part]) -> list[bytes]:
    """Pieces of at most about 500 kB with `parts` in their order."""
    pieces = []
    for kind, group in groupby(parts, lambda part: _KINDS[type(part)]):
        rows: list[Raw] = []
        size = 0
        for row in map(_encode, group):
            if rows and size + len(row) > _MOST:
                pieces.append(seal(kind.name, kind.format, _encode(rows)))
                rows, size = [], 0
            rows.append(Raw(row))
            size += len(row)
        pieces.append(seal(kind.name, kind.format, _encode(rows)))
    return pieces


def unseal_parts(raw: bytes) -> Iterator[Part]:
    """The parts of one piece.

    Raises:
        StateError: it is no piece of a decider's state in this version's formats.
    """
    piece = unseal(raw)
    kind = _NAMED.get(piece.kind)
    if kind is None:
        raise StateError(
            f"a piece of saved state is of the kind {piece.kind!r}, which this version of tripswitch does not know "
            f"(it reads {', '.join(_NAMED)}). {_CURE}"
        )
    if piece.format != kind.format:
        raise StateError(
            f"a piece of saved state, {piece.kind}, has format {piece.format}; this version of tripswitch reads format "
            f"{kind.format}. {_CURE}"
        )
    try:
        yield from kind.decoder.decode(piece.body)
    except msgspec.MsgspecError as error:
        raise StateError(f"a piece of saved state, {piece.kind}, is damaged: {error}. {_CURE}") from error


class Saved:
    """What the pieces of checkpoints add up to. `again` are the cases written since the last round began."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """Takes pieces in their order.

        Raises:
            StateError: a piece can't be read, or some are missing.
        """
        self.head: Head | None = None
        self.epochs: dict[Subject, int] = {}
        self.blocked: dict[Key, int] = {}
        self.waiting: list[Waiting] = []
        self.approvals: list[Approval] = []
        self.cases: dict[Key, SavedCase] = {}
        self.ids: dict[int, str] = {}
        self.again: set[Key] = set()
        for raw in pieces:
            for part in unseal_parts(raw):
                self._add(part)
        headless = self.head is None and bool(self.cases or self.ids)
        if headless or (self.head is not None and len(self.cases) != self.head.cases):
            raise self.incomplete()

    def incomplete(self) -> StateError:
        """The error of a state whose records are not all there."""
        return StateError(
            "saved state is incomplete: records since the beginning of the last complete round are missing. " + _CURE
        )

    def _add(self, part: Part) -> None:
        match part:
            case Head():
                self.head = part
                self.epochs.clear()
                self.blocked.clear()
                self.waiting.clear()
                self.approvals.clear()
                if part.begins:
                    self.again.clear()
            case SavedEpoch():
                self.epochs[part.subject] = part.epoch
            case SavedBlocked():
                self.blocked[part.at] = part.when
            case SavedWaiting():
                self.waiting.append(part.waiting)
            case SavedApproval():
                self.approvals.append(part.approval)
            case Gone():
                self.cases.pop(part.at, None)
            case SavedCase():
                self.cases[part.at] = part
                self.again.add(part.at)
            case Ids():
                self.ids.update(enumerate(part.ids, part.first))

"""A file's calls as columns: who called when, and what it cost. A call that was delivered twice is one."""

from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from schemas.batch import Batch, Flags, Floats, Hashes, Ints, to_batch
from schemas.decoding import Malformed
from schemas.directory import Directory
from schemas.events import Decoded
from schemas.usage import UsageEvent, decode_usage
from streams.replay import in_chunks

_CHUNK = 4096


class Calls(Struct, frozen=True):
    """Columns of length n, in the file's order. `who` indexes `identities`, which are (tenant, subject) in the order
    of their first call. `time` is the end of the call in seconds since 1970; `cost` USD; `credential`, `session` and
    `end_user` are hashes as `hash_of` makes them; `served` is false for calls refused on our own word."""

    identities: list[tuple[str, str]]
    who: Ints
    time: Floats
    cost: Floats
    credential: Hashes
    session: Hashes
    end_user: Hashes
    served: Flags

    def __len__(self) -> int:
        return len(self.time)


def hash_of(name: str | None) -> np.uint64:
    """What the columns have for `name`."""
    return np.uint64(xxh3_64_intdigest(name.encode()) if name else 0)


def read_calls(lines: IO[bytes], directory: Directory) -> Calls:
    """The calls in the lines of a file; lines that are no usage event are left out."""
    numbers: dict[tuple[str, str], int] = {}
    seen: set[int] = set()
    who: list[int] = []
    end_users: list[np.uint64] = []  # no detector reads them, so batches have no such column
    batches: list[Batch] = []
    for chunk in in_chunks(lines, _CHUNK):
        events = list(_decoded(chunk))
        batch = to_batch(events, np.arange(len(events)), np.zeros(len(events), np.int64))
        again = np.zeros(len(events), np.bool_)
        for at, unique in enumerate(batch.unique.tolist()):
            again[at] = unique in seen
            seen.add(unique)
        batch = batch.without(again)
        for event in batch.events:
            caller = (event.data.tenant or directory.tenant_of(event.subject), event.subject)
            who.append(numbers.setdefault(caller, len(numbers)))
            end_users.append(hash_of(event.data.end_user))
        batches.append(structs.replace(batch, events=Decoded(())))
    return Calls(
        identities=list(numbers),
        who=np.array(who, np.int64),
        time=_joined([batch.time for batch in batches], np.int64) / 1000,
        cost=_joined([batch.cost for batch in batches], np.float64),
        credential=_joined([batch.credential for batch in batches], np.uint64),
        session=_joined([batch.session for batch in batches], np.uint64),
        end_user=np.array(end_users, np.uint64),
        served=~_joined([batch.denied for batch in batches], np.bool_),
    )


def _joined(columns: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *columns])


def _decoded(lines: Iterable[bytes]) -> Iterator[UsageEvent]:
    for line in lines:
        try:
            yield decode_usage(line)
        except Malformed:
            continue

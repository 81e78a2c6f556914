"""A file's calls as columns: who called when, and what it cost. A call that was delivered twice is one."""

from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from schemas.batch import Flags, Floats, Hashes, Ints, to_batch
from schemas.decoding import Malformed
from schemas.directory import Directory
from schemas.usage import UsageEvent, decode_usage
from streams.replay import in_chunks

_CHUNK = 4096
_COLUMNS = ("time", "cost", "credential", "session", "end_user", "denied")


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


def hash_of(name: str) -> np.uint64:
    """What the columns have for `name`."""
    return np.uint64(xxh3_64_intdigest(name.encode()))


def read_calls(lines: IO[bytes], directory: Directory) -> Calls:
    """The calls in the lines of a file; lines that are no usage event are left out."""
    numbers: dict[tuple[str, str], int] = {}
    seen: set[int] = set()
    who: list[int] = []
    parts: dict[str, list[NDArray[Any]]] = {name: [np.empty(0)] for name in _COLUMNS}
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
        for name, arrays in parts.items():
            arrays.append(getattr(batch, name))
    column = {name: np.concatenate(arrays[1:] or arrays) for name, arrays in parts.items()}
    return Calls(
        identities=list(numbers),
        who=np.array(who, np.int64),
        time=column["time"] / 1000,
        cost=column["cost"],
        credential=column["credential"],
        session=column["session"],
        end_user=column["end_user"],
        served=~column["denied"].astype(np.bool_),
    )


def _decoded(lines: Iterable[bytes]) -> Iterator[UsageEvent]:
    for line in lines:
        try:
            yield decode_usage(line)
        except Malformed:
            continue

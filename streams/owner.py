"""What a worker keeps of the partitions that it owns, as `streams.ownership` asks for it."""

from collections.abc import Iterable
from typing import Any, Protocol

from faust.types import TP

from schemas.piece import Checkpoint
from streams.fetched import Chunk
from streams.record import Record


class Owner(Protocol):
    """What a worker keeps of the partitions that it owns."""

    def take(self, at: TP, chunk: Chunk) -> list[Record]:
        """What follows from a chunk of records of the partition `at`, in order."""
        ...

    def ticks(self) -> list[Record]:
        """A tick for each idle partition in which something waits for the clock."""
        ...

    def keep(self, numbers: set[int]) -> None:
        """Forgets every partition but `numbers`."""
        ...

    def restored(self, number: int, pieces: Iterable[bytes], /) -> Any:
        """The partition `number` as it was saved, in its own form. Called in a thread; touches nothing else."""
        ...

    def go_on(self, number: int, partition: Any, offsets: dict[str, int]) -> None:
        """Owns a restored partition, whose records go on at `offsets` (by topic). None: nothing was ever saved."""
        ...

    def checkpoint(self, number: int) -> Checkpoint:
        """What is to be saved of the partition."""
        ...

    def offsets(self, number: int) -> dict[str, int]:
        """By topic, the next offset of the partition to read."""
        ...

    @property
    def size(self) -> int:
        """How many identities it knows."""
        ...


class Voice(Protocol):
    """What an owner says of itself in its partitions' transactions, though no record asks for it."""

    def opened(self, number: int, partition: Any, /) -> Any:
        """What `go_on` gets in place of the restored `partition` (None: nothing was ever saved). Called in a thread,
        once no other owner can write any more; touches nothing else."""
        ...

    def has_word(self, number: int, /) -> bool:
        """Whether there is something to say."""
        ...

    def word(self, number: int, /) -> list[Record]:
        """What is published with the next checkpoint, after what followed from all records before it."""
        ...

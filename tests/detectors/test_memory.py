"""Rows' memory, which grows where it stands."""

import numpy as np
import pytest

from detectors.identities import Rows
from detectors.memory import grown

PAIR = np.dtype([("a", "i8"), ("b", "f8")])


@pytest.mark.parametrize("sizes", [(16, 4096, 1 << 20), (1 << 20, 3 << 20, 64 << 20)])
def test_memory_keeps_what_it_held_and_is_blank_beyond(sizes: tuple[int, ...]) -> None:
    memory = grown(None, sizes[0])
    memory[: sizes[0]] = b"\1" * sizes[0]
    for size in sizes[1:]:
        memory = grown(memory, size)
        assert len(memory) >= size
        assert memory[: sizes[0]] == b"\1" * sizes[0]
        assert not any(memory[sizes[0] :: 997])


def test_who_looks_at_rows_goes_on_seeing_what_they_were() -> None:
    rows = Rows(PAIR)
    rows.reach(300)["a"] = 7
    looking = rows.array["a"]
    rows.reach(100_000)["a"][:300] += 1
    assert set(looking.tolist()) == {7}
    assert set(rows.array["a"][:300].tolist()) == {8}
    assert not rows.array["a"][300:].any()


def test_rows_that_are_taken_over_grow_on() -> None:
    rows, other = Rows(PAIR), Rows(PAIR)
    other.reach(10)["b"][3] = 0.5
    rows.become(other)
    del other
    assert rows.reach(1_000_000)["b"][:5].tolist() == [0, 0, 0, 0.5, 0]
    assert len(rows.array) >= 1_000_000

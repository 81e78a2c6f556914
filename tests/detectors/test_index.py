"""The index against a dictionary."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detectors.index import Index

HASHES = st.lists(st.one_of(st.integers(1, 40), st.integers(1, (1 << 64) - 1)), max_size=60)


@given(rounds=st.lists(st.tuples(HASHES, HASHES), max_size=8))
def test_it_finds_what_was_added_and_nothing_else(rounds: list[tuple[list[int], list[int]]]) -> None:
    index, plain = Index(), dict[int, int]()
    for added, asked in rounds:
        # As a batch does that names a new identity twice: one row.
        rows = [plain.setdefault(one, len(plain)) for one in added]
        index.add(np.array(added, np.uint64), np.array(rows, np.int64))
        wanted = [*asked, *added]
        found = index.find(np.array(wanted, np.uint64))
        assert found.tolist() == [plain.get(one, -1) for one in wanted]


def test_it_grows_and_forgets() -> None:
    index = Index()
    hashes = np.random.default_rng(1).integers(1, 1 << 63, 100_000).astype(np.uint64)
    for first in range(0, len(hashes), 1000):
        index.add(hashes[first : first + 1000], np.arange(first, first + 1000))
    assert index.find(hashes).tolist() == list(range(len(hashes)))
    index.clear()
    assert set(index.find(hashes).tolist()) == {-1}

"""Our compiled hash against the library's."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from schemas.xxh3 import LONGEST, hashed


@given(text=st.binary(max_size=LONGEST), before=st.integers(0, 9), seed=st.integers(0, 2**64 - 1))
@example(text=b"", before=0, seed=0)
@example(text=b"a", before=0, seed=0)
@example(text=bytes(LONGEST), before=1, seed=2**64 - 1)
def test_it_is_the_librarys_hash(text: bytes, before: int, seed: int) -> None:
    raw = np.frombuffer(bytes(before) + text + bytes(8), np.uint8)
    ours = hashed(raw, np.uint64(before), np.uint64(len(text)), np.uint64(seed))
    assert int(ours) == xxh3_64_intdigest(text, seed)


def test_every_length_has_the_librarys_hash() -> None:
    text = np.random.default_rng(1).integers(0, 256, LONGEST).astype(np.uint8)
    lengths = range(LONGEST + 1)
    ours = [int(hashed(text, np.uint64(0), np.uint64(n), np.uint64(7))) for n in lengths]
    assert ours == [xxh3_64_intdigest(text[:n].tobytes(), 7) for n in lengths]

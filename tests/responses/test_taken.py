"""Ids that were taken: the last ones are known, and a round of slices has them all."""

from responses.taken import REMEMBERED, Ids, Taken


def numbered(parts: list[Ids]) -> dict[int, str]:
    return {number: cause for part in parts for number, cause in enumerate(part.ids, part.first)}


def test_an_id_is_new_once() -> None:
    taken = Taken()
    assert [taken.add("a"), taken.add("b"), taken.add("a")] == [True, True, False]
    assert taken.count == 2


def test_the_last_hundred_thousand_are_known() -> None:
    taken = Taken()
    assert all(taken.add(f"f-{n}") for n in range(REMEMBERED + 50))
    assert len(taken._ids) == len(taken._order) == REMEMBERED
    assert taken.add("f-0")
    assert not taken.add(f"f-{REMEMBERED}")


def test_what_is_new_is_written_once_and_the_rest_by_slices() -> None:
    taken = Taken()
    for n in range(3000):
        taken.add(f"f-{n}")
    assert len(numbered(taken.unsaved(300))) == 3000
    assert taken.unsaved(300) == []
    taken.begin_round()
    written = {}
    for n in range(300):
        assert not taken.swept
        taken.add(f"g-{n}")
        slice_ = numbered(taken.unsaved(300))
        assert len(slice_) <= 12
        written |= slice_
        if taken.swept:
            break
    assert sorted(written) == list(range(3001 + n))
    assert Taken().restore(written, taken.first, taken.count, taken.slice_at, taken.slice_end)


def test_ids_that_are_dropped_meanwhile_need_no_slice() -> None:
    taken = Taken()
    for n in range(REMEMBERED):
        taken.add(f"f-{n}")
    taken.unsaved(300)
    taken.begin_round()
    for n in range(REMEMBERED + 10):
        taken.add(f"g-{n}")
    assert taken.swept
    assert len(numbered(taken.unsaved(300))) == REMEMBERED


def test_a_gap_is_noticed() -> None:
    taken = Taken()
    for n in range(5):
        taken.add(f"f-{n}")
    ids = numbered(taken.unsaved(300))
    del ids[2]
    assert not Taken().restore(ids, 0, 5, 0, 0)

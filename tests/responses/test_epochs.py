"""Epochs grow whatever is forgotten."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from responses.epochs import Epochs, Subject

A: Subject = ("acme", "identity", "a")
B: Subject = ("acme", "session", "b")


def test_an_epoch_is_the_clock_or_the_next() -> None:
    epochs = Epochs()
    assert [epochs.next(A, 1000), epochs.next(A, 1000), epochs.next(B, 1000)] == [1000, 1001, 1000]


def test_one_that_was_given_before_is_surpassed() -> None:
    epochs = Epochs()
    epochs.note(A, 5000)
    epochs.note(A, 4000)
    epochs.forget(1000)
    assert epochs.next(A, 1000) == 5001


def test_what_the_clock_has_passed_is_forgotten() -> None:
    epochs = Epochs()
    for moment in range(1000, 2000):
        epochs.forget(moment)
        epochs.next(("acme", "session", f"s{moment}"), moment)
    epochs.forget(1999)
    assert len(epochs.held) == 1
    epochs.forget(2000)
    assert epochs.held == []


@given(steps=st.lists(st.tuples(st.sampled_from([A, B]), st.sampled_from([0, 0, 1, 5])), max_size=60))
def test_epochs_are_what_they_were_were_nothing_forgotten(steps: list[tuple[Subject, int]]) -> None:
    forgetful, other, now = Epochs(), Epochs(), 1000
    given_: dict[Subject, list[int]] = {A: [], B: []}
    for subject, gap in steps:
        now += gap
        forgetful.forget(now)
        epoch = forgetful.next(subject, now)
        assert epoch == other.next(subject, now)
        given_[subject].append(epoch)
    assert all(earlier < later for epochs in given_.values() for earlier, later in pairwise(epochs))

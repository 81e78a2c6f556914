"""Heartbeats by partition."""

from schemas.heartbeat import Heartbeat
from streams.doctor.heartbeats import check_heartbeats
from streams.in_force import Found

NOW = 1_800_000_000_000


def beaten(ago: int, **amiss: str) -> Found:
    """A partition whose last heartbeat was `ago` milliseconds ago."""
    return Found(amiss=amiss, heartbeat=Heartbeat(0, NOW - ago, NOW - ago, 3_000, 0, "0" * 64, "k" * 64))


def said(*found: Found) -> list[tuple[str, str]]:
    return [(c.what, c.state) for c in check_heartbeats(dict(enumerate(found)), NOW)]


def test_all_that_beat_are_well() -> None:
    assert said(beaten(2_000), beaten(14_000)) == [("heartbeats", "ok")]


def test_one_that_stopped_or_never_began() -> None:
    assert said(beaten(0), beaten(16_000)) == [("heartbeats", "failure")]
    assert said(beaten(0), Found()) == [("heartbeats", "failure")]


def test_what_covers_a_command_up() -> None:
    assert said(beaten(0, **{"a" * 64: "a tombstone"})) == [("kill switch", "failure"), ("heartbeats", "ok")]

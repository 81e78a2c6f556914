"""What Kafka's client repeats while a broker is away."""

import importlib
import logging

import pytest

from streams import repeats
from streams.repeats import Repeats


def record(at: float, message: str = "Unable connect to node with id %s", *args: object) -> logging.LogRecord:
    made = logging.LogRecord("aiokafka.conn", logging.ERROR, "conn.py", 1, message, args or (1,), None)
    made.created = at
    return made


def test_a_message_is_written_once_in_half_a_minute_and_says_how_often_it_came() -> None:
    held = Repeats()
    written = [one for one in (record(1000 + n / 40, "away: %s", n) for n in range(2401)) if held.filter(one)]
    assert [one.getMessage() for one in written] == [
        "away: 0", "away: 1200 (1199 more like this before)", "away: 2400 (1199 more like this before)",
    ]  # fmt: skip


def test_another_message_is_not_held_back() -> None:
    held = Repeats()
    assert held.filter(record(1.0, "one %s"))
    assert held.filter(record(1.0, "another %s"))
    assert not held.filter(record(1.1, "one %s"))


@pytest.mark.parametrize("name", repeats._LOGGERS)
def test_the_client_has_loggers_of_these_names(name: str) -> None:
    module = importlib.import_module("aiokafka.client" if name == "aiokafka" else name)
    assert module.log.name == name


def test_the_clients_loggers_are_held_back() -> None:
    loggers = [logging.getLogger(name) for name in repeats._LOGGERS]
    before = [list(logger.filters) for logger in loggers]
    try:
        repeats.hold_back_repeats()
        assert all(isinstance(logger.filters[-1], Repeats) for logger in loggers)
    finally:
        for logger, filters in zip(loggers, before, strict=True):
            logger.filters = filters

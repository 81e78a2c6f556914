"""What Kafka's client writes while a broker is away: forty lines a second, all alike, unless it is held back."""

import logging

_EVERY_S = 30.0
_LOGGERS = (
    "aiokafka", "aiokafka.cluster", "aiokafka.conn", "aiokafka.consumer.consumer", "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator", "aiokafka.producer.producer", "aiokafka.producer.sender",
)  # fmt: skip


class Repeats(logging.Filter):
    """Lets a message through once in 30 s, whatever is filled into it; the next one says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, object], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written."""
        of = (record.name, record.msg)
        when, left_out = self._told.get(of, (-_EVERY_S, 0))
        if record.created - when < _EVERY_S:
            self._told[of] = (when, left_out + 1)
            return False
        self._told[of] = (record.created, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like this before)", None
        return True


def hold_back_repeats() -> None:
    """Holds back what Kafka's client repeats."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(Repeats())

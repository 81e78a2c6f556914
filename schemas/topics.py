"""The topics, and which of their settings matter."""

from msgspec import Struct

USAGE = "llm.usage"
SIGNALS = "llm.signals"
INCIDENTS = "llm.incidents"
REQUESTS = "llm.requests"
KILLSWITCH = "llm.killswitch"
AUDIT = "llm.killswitch.audit"
ACKS = "llm.killswitch.acks"
DEAD_LETTERS = "llm.dead-letters"
STATE_DETECT = "llm.state.detect"
STATE_DECIDE = "llm.state.decide"

_DAY = 24 * 3600 * 1000


# Logs that their writers cut themselves, as soon as everything in them has been written anew: neither time nor size nor
# a cleaner takes anything away. Deleting what lies before an offset frees whole segments, so these are small.
_STATE = {
    "retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": "4194304", "segment.bytes": str(64 << 20),
    "file.delete.delay.ms": "10000",
}  # fmt: skip


# Compacted, and soon: each heartbeat leaves a record, and a transaction's mark, that a starting gateway has to read.
# Restores are records, never tombstones, so a gateway that was away for days still sees what was given back. What was
# written stays readable for ten minutes, whatever was written over it.
_KILLSWITCH = {
    "cleanup.policy": "compact", "min.compaction.lag.ms": "600000", "max.compaction.lag.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.1", "delete.retention.ms": "3600000", "segment.ms": "600000",
    "segment.bytes": str(16 << 20),
}  # fmt: skip


class Topic(Struct, frozen=True):
    """A topic's name and broker settings; those in `fixed` are no matter of taste."""

    name: str
    config: dict[str, str]
    fixed: tuple[str, ...] = ()


TOPICS = (
    # The broker's own stamp: a gateway's clock decides nothing about lateness or backlog.
    Topic(
        USAGE,
        {"retention.ms": str(7 * _DAY), "message.timestamp.type": "LogAppendTime", "max.message.bytes": "2097152"},
        fixed=("message.timestamp.type",),
    ),
    Topic(SIGNALS, {"retention.ms": str(7 * _DAY)}),
    Topic(INCIDENTS, {"retention.ms": str(30 * _DAY)}),
    Topic(REQUESTS, {"retention.ms": str(30 * _DAY)}),
    Topic(KILLSWITCH, _KILLSWITCH, fixed=tuple(_KILLSWITCH)),
    Topic(AUDIT, {"retention.ms": "-1"}),
    Topic(ACKS, {"retention.ms": str(30 * _DAY)}),
    Topic(STATE_DETECT, _STATE, fixed=("retention.ms", "retention.bytes")),
    Topic(STATE_DECIDE, _STATE, fixed=("retention.ms", "retention.bytes")),
    Topic(DEAD_LETTERS, {"retention.ms": str(30 * _DAY), "max.message.bytes": "4194304"}),
)

"""Whether decide owns every partition of the kill switch, and lives."""

from collections.abc import Iterator, Mapping

from schemas.heartbeat import INTERVAL_MS
from schemas.topics import KILLSWITCH
from streams.doctor.check import Check
from streams.in_force import Found

_MISSED = 5


def check_heartbeats(found: Mapping[int, Found], now: int) -> Iterator[Check]:
    """What is wrong in the partitions at `now` (ms): heartbeats that are late, and records that cover commands up."""
    ages = {number: now - p.heartbeat.at for number, p in found.items() if p.heartbeat is not None}
    silent = sorted(found.keys() - ages.keys())
    late = sorted(number for number, age in ages.items() if age > _MISSED * INTERVAL_MS)
    mend = "start `tripswitch run decide`; see its log if it runs"
    if silent:
        yield Check("heartbeats", "failure", f"partitions {_list(silent)} of {KILLSWITCH} never had one", mend)
    if late:
        oldest = max(ages[number] for number in late) / 1000
        yield Check("heartbeats", "failure", f"partitions {_list(late)}: the last is {oldest:.0f} s old", mend)
    for number, partition in sorted(found.items()):
        for key, reason in partition.amiss.items():
            yield Check(
                "kill switch",
                "failure",
                f"{KILLSWITCH}/{number}: the last record of {key} is no command in force: {reason}",
                "find out who wrote it; decide issues the command again when it starts",
            )
    if found and not silent and not late:
        yield Check("heartbeats", "ok", f"{len(found)} partitions, the oldest {max(ages.values()) / 1000:.0f} s old")


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))

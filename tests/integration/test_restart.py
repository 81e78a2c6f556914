"""A worker that is stopped and started again goes on with the very next record.

Claimed: each record is read at least once, over a clean stop and over a kill -9.
"""

import base64
import json
import signal
from pathlib import Path

import pytest

from kafka_node import KafkaNode
from workers import Road, quick_road, wait_until


def letters(road: Road) -> list[bytes]:
    """What detect could not read, as it was."""
    return sorted(base64.b64decode(json.loads(m.value())["raw"]) for m in road.read("llm.dead-letters"))


@pytest.mark.parametrize(("how", "instance"), [(signal.SIGTERM, ""), (signal.SIGKILL, "a")], ids=["stop", "kill9"])
def test_nothing_is_skipped_over_a_restart(
    kafka_node: KafkaNode, tmp_path: Path, how: signal.Signals, instance: str
) -> None:
    poison = [b"[" * 200_000, *(b"record %d" % n for n in range(9))]
    with quick_road(kafka_node.bootstrap, tmp_path) as road:
        worker = road.start("detect", instance)
        road.publish(poison[:5], key=b"k")
        wait_until(lambda: len(letters(road)) == 5 and road.lag("detect") == 0, "the first five", road)
        road.stop(worker, how)
        road.publish(poison[5:], key=b"k")
        road.start("detect", instance)
        wait_until(lambda: len(letters(road)) >= 10 and road.lag("detect") == 0, "the other five", road)
        assert letters(road) == sorted(poison)

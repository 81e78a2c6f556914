"""A broker that goes away under running workers: they wait, come back by themselves, and miss nothing.

Claimed: every usage event that the broker took is read, and its finding published, at least once.
"""

import json
import time
from pathlib import Path

from kafka_node import KafkaNode
from traffic import Story
from workers import Road, wait_until


def identities_found(road: Road) -> set[str]:
    return {json.loads(m.value())["identity"] for m in road.read("llm.signals") if b"llm.finding.v1" in m.value()}


def test_workers_outlive_a_broker_that_is_killed(kafka_node: KafkaNode, tmp_path: Path) -> None:
    road = Road(kafka_node.bootstrap, tmp_path)
    try:
        road.cli("init")
        workers = [road.start("detect"), road.start("decide")]
        story = Story(int(time.time() * 1000))
        half = len(story.events) // 2
        road.publish(story.events[:half])
        wait_until(lambda: road.lag("detect") == 0, "detect has read the first half", road)
        kafka_node.kill9()
        # Long enough for the clients to notice.
        time.sleep(5.0)
        assert [worker.poll() for worker in workers] == [None, None], road.logs()
        kafka_node.start()
        road.publish(story.events[half:])
        wait_until(lambda: road.lag("detect") == 0, "detect has read the second half", road)
        wait_until(lambda: identities_found(road) >= {"key_stolen", "agent_loop", "svc_spike"}, "findings", road)
        wait_until(lambda: len(road.read("llm.killswitch")) >= 3, "commands", road)
    finally:
        road.close()

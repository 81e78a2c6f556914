"""What happened live is explained from ClickHouse and Kafka alone, and computed again from the topic, byte for byte."""

import json
import time
from typing import Any

import pytest

from traffic import Story
from workers import Road, wait_until

CUT_OFF = {"cred_key_stolen", "s-loop", "svc_spike"}


@pytest.fixture(scope="module")
def lived(road: Road) -> Road:
    """The road after a theft, a loop and a spike, when all workers have ended and the embedded ClickHouse is free."""
    road.cli("init")
    workers = {name: road.start(name) for name in ("detect", "decide", "archive")}
    road.publish([*Story(int(time.time() * 1000)).events, b"not json"], key=b"key_stolen")
    wait_until(lambda: len(road.read("llm.killswitch.audit")) >= len(CUT_OFF), "commands", road)
    # The buckets that nothing follows are closed by their owner's ticks, and may tell something still.
    before, now = -1, 0
    while before != now:
        time.sleep(6)
        before, now = (
            now,
            sum(map(len, map(road.read, ("llm.signals", "llm.incidents", "llm.killswitch.audit")))),
        )
    # One after the other, so that each has read all that the one before it wrote.
    for name, worker in workers.items():
        for _ in range(2):
            wait_until(lambda name=name: road.lag(name) == 0, f"{name} has read everything", road)
            # Nothing of what the one before wrote may be hidden by a transaction that is about to end.
            time.sleep(2)
        assert road.stop(worker) == 0
    return road


def incidents(road: Road) -> dict[str, dict[str, Any]]:
    return {i["identity"]: i for i in json.loads(road.cli("incidents", "--json").stdout)}


def test_incidents_are_those_that_were_published(lived: Road) -> None:
    found = incidents(lived)
    published: dict[str, Any] = {}
    for message in lived.read("llm.incidents"):
        incident = json.loads(message.value())
        published[incident["incident_id"]] = incident
    assert {i["incident_id"]: i["headline"] for i in found.values()} == {
        name: i["headline"] for name, i in published.items()
    }
    assert {"key_stolen", "agent_loop", "svc_spike"} <= found.keys()


@pytest.mark.parametrize("identity", ["key_stolen", "agent_loop", "svc_spike"])
def test_an_incident_is_computed_again_from_the_topic(lived: Road, identity: str) -> None:
    incident = incidents(lived)[identity]
    done = lived.cli("explain", incident["incident_id"], "--json", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["reproduced"] is True
    assert {one["finding_id"] for one in said["recomputed"]} == set(incident["finding_ids"])
    assert said["calls"]
    assert said["state_before"]
    [command] = said["commands"]
    assert command["action"] == said["decision"]["wanted"]["action"]
    assert command["subject"] in CUT_OFF


def test_status_reads_the_topic(lived: Road) -> None:
    [gateway] = json.loads(lived.cli("status", "--kafka", "--json").stdout)
    assert gateway["gateway"] == "gateway/test"
    usage = [m for m in lived.read("llm.usage") if b"llm.usage.v1" in m.value()]
    assert gateway["events"] == len(usage)
    sights = {one["detector"]: one["sight"] for one in gateway["detectors"]}
    assert sights["entitlement"] == "blind"
    assert sights["spike"] == "sees"

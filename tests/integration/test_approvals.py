"""What people approve in advance, on a real Kafka: an order that decide takes, keeps with its state, and lets end.

Claimed: volume within the multiplier leads to no block while the approval lasts, a quota's likewise; beyond it, and
after its end, it does; whoever restarts decide changes nothing of that; `explain` names the approval.
"""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kafka_node import KafkaNode
from schemas.times import format_millis
from traffic import HOME, HOUR
from workers import PARTITIONS, Road, quick_road, wait_until

QUOTA = 100
DIRECTORY = {
    "identities": {
        name: {"tenant": "acme", "quotas": [{"per": "month", "requests": QUOTA}]} for name in ("metered", "overdrawn")
    }
}


@pytest.fixture
def road(kafka_node: KafkaNode, tmp_path: Path) -> Iterator[Road]:
    (tmp_path / "directory.json").write_text(json.dumps(DIRECTORY))
    with quick_road(kafka_node.bootstrap, tmp_path) as road:
        road.environment["TRIPSWITCH_DIRECTORY"] = str(tmp_path / "directory.json")
        yield road


def event(subject: str, at: int) -> dict[str, Any]:
    """A call at `at` (ms) that is like no other."""
    name = f"{subject}-{at}"
    return {
        "specversion": "1.0", "type": "llm.usage.v1", "id": name, "source": "gateway/test", "subject": subject,
        "time": format_millis(at),
        "data": {
            "tenant": "acme", "credential_id": f"cred_{subject}", "workload": "interactive", "model": "gpt-5.1",
            "input_tokens": 900, "output_tokens": 200, "cost_usd": 0.002, "status": 200, "session_id": name,
            "fingerprint": name, **HOME,
        },
    }  # fmt: skip


def calls(subject: str, count: int, now: int) -> list[dict[str, Any]]:
    """So many within the minute before `now` (ms)."""
    return [event(subject, now - 60_000 * n // count) for n in range(count, 0, -1)]


def approve(
    road: Road, name: str, multiplier: str, since: datetime, until: str, *more: str
) -> subprocess.CompletedProcess[str]:
    span = ("--max-multiplier", multiplier, "--from", since.isoformat(), "--until", until, "--reason", "the launch")
    return road.cli("approve", f"acme/{name}", *span, *more, check=False)


def findings(road: Road, identity: str) -> list[dict[str, Any]]:
    told = [json.loads(message.value()) for message in road.read("llm.signals")]
    return [one for one in told if one["type"] == "llm.finding.v1" and one["identity"] == identity]


def blocked(road: Road) -> set[str]:
    """Whoever was ever ordered off."""
    told = [dict(message.headers())["ce_subject"].decode() for message in road.read("llm.killswitch.audit")]
    return {subject.removeprefix("acme/identity/") for subject in told}


def attacked(road: Road, name: str, *others: str) -> bool:
    """Twenty calls of each within the last fifth of a second; whether the first is blocked."""
    moment = int(time.time() * 1000)
    road.publish([event(who, moment - 10 * n) for n in range(20) for who in (name, *others)])
    return name in blocked(road)


def quiet(road: Road) -> bool:
    return road.lag("detect") == road.lag("decide") == 0


def test_what_is_approved_is_no_case_within_its_multiplier_and_until_its_end(road: Road) -> None:
    road.start("detect")
    decide = road.start("decide", "a")
    wait_until(lambda: sum(decide.restored()) >= PARTITIONS, "decide owns its partitions", road)
    now = int(time.time() * 1000)
    usual = [now - hour * HOUR + minute * 60_000 for hour in range(10, 0, -1) for minute in range(0, 50, 5)]
    road.publish([event(name, at) for at in usual for name in ("launch", "beyond")])
    begins = datetime.fromtimestamp(now / 1000, UTC) - timedelta(minutes=5)
    # Of one tenant, so that the last answer is the answer to all.
    for name, multiplier in (("beyond", "2"), ("metered", "2")):
        approve(road, name, multiplier, begins, "1h", "--no-wait")
    assert "decide expects it now" in approve(road, "launch", "50", begins, "1h").stdout

    # It is part of the state.
    road.stop(decide, signal.SIGKILL)
    decide = road.start("decide", "a")
    wait_until(lambda: sum(decide.restored()) >= PARTITIONS, "decide is back", road)
    now = int(time.time() * 1000)
    road.publish([one for name in ("metered", "overdrawn") for one in calls(name, QUOTA + 50, now)])
    wait_until(lambda: attacked(road, "beyond", "launch"), "what is more than was approved is blocked", road)
    wait_until(lambda: "overdrawn" in blocked(road), "what nobody approved is blocked", road)
    wait_until(lambda: quiet(road), "everything was decided on", road)
    assert blocked(road) == {"beyond", "overdrawn"}
    [spike] = [one for one in findings(road, "launch") if one["evidence"].get("extreme")][:1]
    # By where buckets happen to end it is a spike too; an approval excuses volume, and nothing else may be found.
    found = {one["kind"] for one in findings(road, "metered") if one["severity"] == "high"}
    assert {"quota"} <= found <= {"quota", "spike"}

    # A later approval takes the place of the one before.
    ends = begins

    def ended_early() -> bool:
        nonlocal ends
        ends = datetime.now(UTC) + timedelta(seconds=8)
        # 2: it was over before the command line had begun.
        return approve(road, "launch", "50", begins, ends.isoformat()).returncode == 0

    wait_until(ended_early, "the approval ends in a moment", road)
    assert "launch" not in blocked(road)
    time.sleep(max(0.0, ends.timestamp() - time.time()))

    wait_until(lambda: attacked(road, "launch"), "the same after the approval's end", road)

    # Who explains it reads the archive.
    for worker in list(road.workers):
        road.stop(worker)
    archive = road.start("archive")
    wait_until(lambda: road.lag("archive") == 0, "everything is archived", road)
    road.stop(archive)
    told = json.loads(road.cli("explain", spike["finding_id"], "--json").stdout)
    assert told["decision"]["approved"].endswith(": the launch")
    assert told["decision"]["wanted"] is None
    assert told["commands"] == []

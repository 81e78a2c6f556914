"""init, detect, decide, archive and notify on a real Kafka: three attacks go in; signed commands come out.

Claimed: findings equal those of an offline replay of the same partitions, commands verify with the public key alone,
the archive has every event once, Slack has one message per incident, and what can't be read is a dead letter with its
bytes while the stream goes on.
"""

import asyncio
import base64
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from schemas.heartbeat import is_heartbeat
from schemas.times import format_millis
from sinks.killswitch import Verifier
from sinks.slack.fake import FakeSlack
from streams.in_force import in_force
from streams.settings import Kafka
from traffic import HOUR, Story
from tripswitch_gateway import CommandVerifier, KeyFile, RevocationTable
from workers import PARTITIONS, Road, wait_until

Told = tuple[str, str, str]
"""A finding's id, kind and identity."""
TOKEN, CHANNEL = "xoxb-test-token", "C0TEST"
BAD = [b"not json", b'{"id":"x"}', b"\xff\xfe"]


@contextmanager
def slack_running() -> Iterator[FakeSlack]:
    """A fake Slack on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    slack = FakeSlack(token=TOKEN, channel=CHANNEL)
    asyncio.run_coroutine_threadsafe(slack.start(), loop).result(10)
    try:
        yield slack
    finally:
        asyncio.run_coroutine_threadsafe(slack.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def told(findings: Iterable[bytes]) -> Counter[Told]:
    """How often each finding was told."""
    return Counter((f["finding_id"], f["kind"], f["identity"]) for f in map(json.loads, findings))


class Travelled:
    """The road after the story, with bad records in its midst: nothing more is published unless a test asks for it."""

    def __init__(self, road: Road, slack: FakeSlack) -> None:
        self.road = road
        self.slack = slack
        self.first, self.again = road.cli("init").stdout, road.cli("init").stdout
        for name in ("detect", "decide", "archive"):
            road.start(name)
        road.start("notify", SLACK_BOT_TOKEN=TOKEN, SLACK_CHANNEL=CHANNEL, SLACK_API_URL=slack.url)
        self.story = Story(int(time.time() * 1000))
        self.future = self.story.events[0] | {
            "id": "tomorrow",
            "time": format_millis(int(time.time() * 1000) + 24 * HOUR),
        }
        half = len(self.story.events) // 2
        road.publish(self.story.events[:half])
        road.publish([*BAD, json.dumps(self.future).encode()], key=b"key_stolen")
        road.publish([*self.story.events[half:], self.story.events[half]])
        self.replayed = self._replay()
        # The story ends with the buckets that nothing follows: ticks close them, seconds after everything was read.
        # Only when all findings are there and have been answered is nothing more to come.
        wait_until(lambda: self.findings() >= self.replayed, "the findings of a replay", road)
        for app in ("detect", "decide", "archive", "notify"):
            wait_until(lambda app=app: road.lag(app) == 0, f"{app} has read everything", road)

    def _replay(self) -> Counter[Told]:
        """The findings of an offline replay of the same partitions."""
        road, file = self.road, self.road.folder / "events.jsonl"
        usage = (message.value() for message in road.read("llm.usage"))
        file.write_bytes(b"\n".join(raw for raw in usage if b"llm.usage.v1" in raw and b"tomorrow" not in raw))
        road.cli("replay", str(file), "--out", str(road.folder / "replayed"), "--partitions", str(PARTITIONS))
        return told((road.folder / "replayed" / "findings.jsonl").read_bytes().splitlines())

    def findings(self) -> Counter[Told]:
        """What detect has published."""
        return told(m.value() for m in self.road.read("llm.signals") if b"llm.finding.v1" in m.value())

    def commands(self) -> list[dict[str, Any]]:
        """What the kill-switch topic orders, verified as a gateway does."""
        verifier = CommandVerifier(KeyFile(self.road.folder / "jwks.json"), "https://tripswitch.example/ssf")
        commands = [m for m in self.road.read("llm.killswitch") if not is_heartbeat(m.key())]
        verified = [verifier.verify(m.key(), m.value()) for m in commands]
        return [{"command": c, "subject": c.subject, "action": c.action} for c in verified]


@pytest.fixture(scope="module")
def travelled(road: Road) -> Iterator[Travelled]:
    with slack_running() as slack:
        yield Travelled(road, slack)


def test_init_does_everything_once(travelled: Travelled) -> None:
    assert "topic llm.killswitch, 4 partitions" in travelled.first
    assert travelled.again == "ready; there was nothing to do\n"


def test_each_attack_is_ordered_off_at_the_narrowest(travelled: Travelled) -> None:
    orders = {c["subject"]: c["action"] for c in travelled.commands()}
    assert orders["cred_key_stolen"] == "revoke"
    assert orders["s-loop"] == "suspend"
    assert orders["svc_spike"] in ("throttle", "suspend")


def test_a_gateway_denies_what_was_ordered_off(travelled: Travelled) -> None:
    table, now = RevocationTable(), int(time.time() * 1000)
    for order in travelled.commands():
        table.apply(order["command"], now)
    assert not table.check("key_stolen", credential="cred_key_stolen", tenant="acme", now_ms=now).allowed
    assert not table.check("agent_loop", session="s-loop", tenant="acme", now_ms=now).allowed
    assert table.check("key_stolen", credential="cred_new", tenant="acme", now_ms=now).allowed
    assert table.check("bystander", tenant="acme", now_ms=now).allowed


def test_the_next_owner_of_decide_finds_what_is_in_force(travelled: Travelled) -> None:
    road = travelled.road
    read = in_force(Kafka(bootstrap=road.bootstrap), Verifier.read(road.folder / "jwks.json"))
    written = [w.command for number in range(PARTITIONS) for w in read(number).commands.values()]
    found = {(c.subject, c.epoch, c.action) for c in written}
    last = {c["subject"]: c["command"] for c in sorted(travelled.commands(), key=lambda c: c["command"].epoch)}
    assert found == {(subject, command.epoch, command.action) for subject, command in last.items()}


def test_findings_equal_those_of_a_replay_of_the_same_partitions(travelled: Travelled) -> None:
    live = travelled.findings()
    assert {kind for _, kind, _ in live} == {"spike", "loop", "geo_shift"}
    assert live == travelled.replayed


def test_what_cannot_be_read_is_a_dead_letter_with_its_bytes(travelled: Travelled) -> None:
    letters = [json.loads(m.value()) for m in travelled.road.read("llm.dead-letters")]
    raw = {base64.b64decode(letter["raw"]): letter["reason"] for letter in letters}
    assert set(raw) == {*BAD, json.dumps(travelled.future).encode()}
    assert "ahead of the broker's clock" in raw[json.dumps(travelled.future).encode()]
    assert all(raw.values())


def test_slack_shows_one_message_per_incident(travelled: Travelled) -> None:
    incidents = {json.loads(m.value())["incident_id"] for m in travelled.road.read("llm.incidents")}
    assert len(travelled.slack.messages) == len(incidents) == 3


def test_a_person_gives_access_back(travelled: Travelled) -> None:
    road = travelled.road
    before = len(travelled.commands())
    done = road.cli("restore", "acme/svc_spike", "--reason", "the owner's load test")
    assert "restore of acme/svc_spike" in done.stdout
    wait_until(lambda: len(travelled.commands()) > before, "the restore is published", road)
    last = [c["command"] for c in travelled.commands() if c["subject"] == "svc_spike"]
    assert last[-1].action == "restore"
    assert last[-1].epoch > last[0].epoch


def test_an_unsigned_request_is_a_dead_letter(travelled: Travelled) -> None:
    road = travelled.road
    before, letters = len(travelled.commands()), len(road.read("llm.dead-letters"))
    road.publish([b'{"action":"restore","identity":"key_stolen","tenant":"acme"}'], key=b"acme", topic="llm.requests")
    wait_until(lambda: len(road.read("llm.dead-letters")) > letters, "the request is refused", road)
    assert len(travelled.commands()) == before


def test_the_archive_has_every_event_once(travelled: Travelled) -> None:
    """Last: the embedded ClickHouse lets one process in at a time."""
    road = travelled.road
    wait_until(lambda: road.lag("archive") == 0, "archive has read everything", road)
    for worker in list(road.workers):
        assert road.stop(worker) == 0, road.logs()
    script = (
        "import json, sys; from sinks.clickhouse import ClickHouseSink; s = ClickHouseSink(sys.argv[1]);"
        "print(json.dumps([s.query(q)[0][0] for q in sys.argv[2:]])); s.close()"
    )
    questions = [
        "SELECT count() FROM usage_events FINAL", "SELECT uniqExact(incident_id) FROM incidents",
        "SELECT uniqExact(command_id) FROM commands", "SELECT count() FROM dead_letters",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, road.environment["CLICKHOUSE_URL"], *questions],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    events, incidents, commands, letters = json.loads(done.stdout)
    assert events == len(travelled.story.events)
    assert incidents == 3
    assert commands == len({c["command"].command_id for c in travelled.commands()})
    assert letters >= len(BAD) + 1

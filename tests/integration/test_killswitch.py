"""The kill switch on a real Kafka: its owner dies, its topic is tampered with, its key is changed, its orders come from
two persons or from past decide.

Claimed: `killswitch verify` says what is wrong; the next owner sets it right; nothing that is in force is lost over a
change of keys; nobody orders a tenant off alone.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from kafka_node import KafkaNode
from schemas.command import Command, record_key
from sinks.killswitch import Verifier
from streams.in_force import Written, read_command, read_partition
from streams.settings import Kafka
from streams.takeover import in_force
from workers import PARTITIONS, Road, Worker, quick_road, wait_until


@pytest.fixture
def road(kafka_node: KafkaNode, tmp_path: Path) -> Iterator[Road]:
    with quick_road(kafka_node.bootstrap, tmp_path) as road:
        yield road


def start(road: Road) -> Worker:
    """A decide that owns every partition."""
    worker = road.start("decide", "a")
    wait_until(lambda: sum(worker.restored()) >= PARTITIONS, "decide owns its partitions", road)
    return worker


def live(road: Road) -> dict[str, Written]:
    """What is in force, by subject."""
    verifier, now = Verifier.read(road.folder / "jwks.json"), int(time.time() * 1000)
    found = [read_partition(Kafka(bootstrap=road.bootstrap), n, verifier, quiet=True) for n in range(PARTITIONS)]
    return {w.command.subject: w for one in found for w in one.commands.values() if in_force(w, now)}


def wrong(road: Road) -> list[str]:
    """What `killswitch verify` finds."""
    done = road.cli("killswitch", "verify", "--json", check=False)
    told = json.loads(done.stdout)["wrong"]
    assert done.returncode == bool(told), done.stderr
    return [one["reason"] for one in told]


def write(road: Road, partition: int, key: str, value: bytes | None) -> None:
    """As whoever has the broker, and no key."""
    producer = Producer({"bootstrap.servers": road.bootstrap})
    producer.produce("llm.killswitch", value, key.encode(), partition)
    assert producer.flush(30) == 0


def place(road: Road, command: Command) -> tuple[int, str, bytes | None]:
    """The partition, the key and the value of a command's record."""
    key = record_key(command.tenant, command.scope, command.subject)
    last = [m for m in road.read("llm.killswitch") if m.key() == key.encode()][-1]
    return last.partition(), key, last.value()


def test_the_next_owner_sets_a_tampered_topic_right(road: Road) -> None:
    start(road)
    for subject in ("covered", "deleted", "given_back"):
        done = road.cli("suspend", f"acme/{subject}", "--reason", "to be tampered with")
        assert f"suspend of acme/{subject} (identity) published" in done.stdout
    old = place(road, live(road)["given_back"].command)
    road.cli("restore", "acme/given_back", "--reason", "as it should be")
    before = live(road)
    assert before.keys() == {"covered", "deleted"}
    wait_until(lambda: wrong(road) == [], "a heartbeat of what was ordered", road)
    road.stop(road.workers[-1], signal.SIGKILL)
    write(road, *place(road, before["covered"].command)[:2], b"garbage")
    write(road, *place(road, before["deleted"].command)[:2], None)
    write(road, *old)
    told = wrong(road)
    assert any("not signed by a key that is trusted" in reason for reason in told)
    assert any("a tombstone" in reason for reason in told)
    assert any("an old command was written again" in reason for reason in told)
    start(road)

    wait_until(lambda: all(last_is_valid(road, one.command) for one in before.values()), "they are written again", road)
    after = live(road)
    assert after.keys() == before.keys()
    for subject, written in after.items():
        # The same command: a gateway that has it takes it for a repetition.
        assert {**written.claims, "iat": 0} == {**before[subject].claims, "iat": 0}


def last_is_valid(road: Road, command: Command) -> bool:
    """Whether whoever reads the topic once it was compacted finds the command."""
    _, key, value = place(road, command)
    try:
        read_command(key.encode(), value, Verifier.read(road.folder / "jwks.json"))
    except ValueError:
        return False
    return True


def acknowledge(road: Road, gateway: str, sha256: str | None) -> None:
    """As a gateway would."""
    record: dict[str, Any] = {
        "category_uid": 7, "class_uid": 7001, "activity_id": 4, "status_id": 1, "time": int(time.time() * 1000),
        "command_uid": f"jwks/{sha256}", "metadata": {"product": {"name": "a gateway", "vendor_name": gateway}},
        "unmapped": {"jwks_sha256": sha256},
    }  # fmt: skip
    road.publish([json.dumps(record).encode()], key=b"k", topic="llm.killswitch.acks")


def keys(road: Road) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(road.cli("keys", "list", "--json").stdout)
    return told


def test_a_key_is_rotated_once_gateways_have_it(road: Road) -> None:
    start(road)
    road.cli("suspend", "acme/key_1", "--reason", "to outlive its key")
    road.cli("revoke", "acme/key_2", "--reason", "to outlive its key")
    before = live(road)
    old = keys(road)["keys"][0]["kid"]
    acknowledge(road, "gateway/slow", keys(road)["jwks_sha256"])
    done = road.cli("keys", "rotate", "--wait", "2", check=False)
    assert done.returncode == 1
    assert "not switched: gateway/slow did not say" in done.stderr
    assert {written.kid for written in live(road).values()} == {old}
    # It has the file now.
    acknowledge(road, "gateway/slow", keys(road)["jwks_sha256"])
    done = road.cli("keys", "rotate", "--wait", "60")
    [entry] = keys(road)["keys"]
    assert entry["signs"]
    assert entry["kid"] != old
    assert f"{old} is retired" in done.stdout
    after = live(road)
    for subject, written in after.items():
        assert written.kid == entry["kid"]
        assert {**written.claims, "iat": 0} == {**before[subject].claims, "iat": 0}
    assert after.keys() == before.keys()
    wait_until(lambda: wrong(road) == [], "everything is signed by the new key", road)


def test_a_compromised_key_is_distrusted_at_once_and_nothing_is_lost(road: Road) -> None:
    start(road)
    road.cli("suspend", "acme/key_1", "--reason", "to outlive its key")
    [before] = live(road).values()
    road.cli("keys", "rotate", "--compromised", "--wait", "60")
    [entry] = keys(road)["keys"]
    [after] = live(road).values()
    assert after.kid == entry["kid"] != before.kid
    assert (after.command.action, after.command.manual) == ("suspend", True)
    assert after.command.epoch > before.command.epoch
    assert not any("heartbeat" in reason or "in force" in reason for reason in wrong(road))


def test_nobody_orders_a_tenant_off_alone(road: Road) -> None:
    road.environment["TRIPSWITCH_OPERATORS"] = str(road.folder / "people.json")
    for person in ("alice", "bob"):
        road.cli("keys", "new", "--person", person)
    start(road)
    alice, bob = ({"TRIPSWITCH_OPERATOR_KEY": str(road.folder / f"tripswitch-{name}.pem")} for name in ("alice", "bob"))
    asked = order(road, alice, "suspend", "acme/*")
    assert asked["outcome"] == "waiting"
    assert live(road) == {}
    same = order(road, alice, "suspend", "acme/*", "--approve", asked["request_id"])
    assert (same["outcome"], "another person has to approve" in same["why"]) == ("refused", True)
    done = order(road, bob, "suspend", "acme/*", "--approve", asked["request_id"])
    assert done["outcome"] == "done"
    [written] = live(road).values()
    assert (written.command.scope, written.command.subject) == ("tenant", "acme")
    assert written.command.reason == "because (alice, approved by bob)"
    # The key that signs commands gives no orders any more.
    refused = order(road, {}, "restore", "acme/key_1")
    assert (refused["outcome"], "not signed by a key that is trusted" in refused["why"]) == ("refused", True)


def order(road: Road, environment: dict[str, str], action: str, target: str, *more: str) -> dict[str, Any]:
    before = dict(road.environment)
    road.environment |= environment
    done = road.cli(action, target, "--reason", "because", "--json", *more, check=False)
    road.environment.clear()
    road.environment |= before
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_past_decide_while_it_is_down(road: Road) -> None:
    road.cli("keys", "new", "--break-glass")
    glass = ("--key", "tripswitch-break-glass.pem", "--reason", "decide is down")
    start(road)
    road.cli("suspend", "acme/key_1", "--reason", "first")
    wait_until(lambda: wrong(road) == [], "heartbeats", road)
    refused = road.cli("killswitch", "break-glass", "revoke", "acme/key_2", *glass, check=False)
    assert refused.returncode == 2
    assert "decide was heard of" in refused.stderr
    road.stop(road.workers[-1], signal.SIGKILL)
    road.cli("killswitch", "break-glass", "revoke", "acme/key_2", *glass, "--force")
    road.cli("killswitch", "break-glass", "restore", "acme/key_1", *glass, "--force")
    [written] = live(road).values()
    assert (written.command.subject, written.break_glass, written.command.manual) == ("key_2", True, True)
    assert len(road.read("llm.killswitch.audit")) == 3
    start(road)
    wait_until(lambda: not live(road)["key_2"].break_glass, "decide takes it over", road)
    done = json.loads(road.cli("restore", "acme/key_2", "--reason", "over", "--json").stdout)
    assert done["outcome"] == "done"
    assert live(road) == {}


def test_the_way_past_a_decide_that_runs_shuts_it_out(road: Road) -> None:
    """As it would a zombie."""
    road.cli("keys", "new", "--break-glass")
    worker = start(road)
    road.cli("suspend", "acme/key_1", "--reason", "first")
    glass = ("--key", "tripswitch-break-glass.pem", "--reason", "it hangs", "--force")
    road.cli("killswitch", "break-glass", "revoke", "acme/key_2", *glass)
    wait_until(lambda: worker.poll() is not None, "the broker refuses the former owner", road)
    assert "Fenced" in worker.log.read_text() or "fenced" in worker.log.read_text()
    road.supervise()
    wait_until(lambda: wrong(road) == [], "the next owner takes it over", road)
    assert live(road).keys() == {"key_1", "key_2"}


def test_an_order_that_nobody_reads_says_so_and_is_carried_out_later(road: Road) -> None:
    done = road.cli("suspend", "acme/key_1", "--reason", "while decide is down", check=False)
    assert done.returncode == 1
    assert "decide has not read it yet" in done.stderr
    start(road)
    wait_until(lambda: live(road).keys() == {"key_1"}, "it is carried out", road)


def test_init_says_what_is_other_than_it_must_be(road: Road) -> None:
    assert road.cli("init").stdout == "ready; there was nothing to do\n"
    entry = ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, "llm.killswitch", incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": road.bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(30)
    told = road.cli("init").stdout
    assert "topic llm.killswitch: cleanup.policy is delete, and should be compact" in told


def test_tail_shows_commands_as_they_come(road: Road) -> None:
    start(road)
    command = [sys.executable, "-m", "streams", "killswitch", "tail", "--all", "--json"]
    with subprocess.Popen(command, env=road.environment, cwd=road.folder, stdout=subprocess.PIPE, text=True) as tail:
        threading.Timer(60, tail.kill).start()
        road.cli("suspend", "acme/key_1", "--reason", "to be seen")
        assert tail.stdout is not None
        told = json.loads(tail.stdout.readline())
        tail.send_signal(signal.SIGINT)
    assert (told["action"], told["subject"], told["break_glass"]) == ("suspend", "key_1", False)
    table = road.cli("killswitch", "list").stdout
    assert "acme/key_1" in table
    assert "a person's word" in table

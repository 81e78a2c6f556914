# ruff: noqa: S608 - the names in these statements are the tests' own
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas import topics
from schemas.command import Limits
from schemas.times import parse_millis
from sinks.clickhouse import TOPICS, ClickHouseSink, Record, Written

NOON = datetime(2026, 3, 2, 12, 0, 0, 844_000, tzinfo=UTC)
FULL = {
    "credential_id": "cred_1", "kind": "api_key", "workload": "interactive", "provider": "openai",
    "route": "/v1/chat/completions", "input_tokens": 2**53, "output_tokens": 145, "cached_tokens": 0,
    "cost_usd": 0.000111, "error": "it's \"odd\" \\ \n", "latency_ms": 1379.3, "attempt": 0, "operation_id": "o",
    "session_id": "s", "end_user": "ü", "fingerprint": "f", "tool": "t", "ip": "::1", "country": "DE",
    "city": "Köln", "lat": -50.11, "lon": 8.68, "accuracy_km": 50.0, "asn": 4294967295, "user_agent": "u",
    "streaming": True, "usage_missing": False, "identity_trust": "authenticated",
}  # fmt: skip


def row(sink: ClickHouseSink, table: str) -> dict[str, object]:
    (found,) = sink.query(f"SELECT * FROM {table}")
    columns = sink.query(f"SELECT name FROM system.columns WHERE database = currentDatabase() AND table = '{table}'")
    return dict(zip((str(name) for (name,) in columns), found, strict=True))


def count(sink: ClickHouseSink, table: str) -> int:
    """Rows, without the help of FINAL."""
    return int(str(sink.query(f"SELECT count() FROM {table}")[0][0]))


def test_a_usage_event_comes_back_as_it_was(sink: ClickHouseSink, usage: Callable[..., Record]) -> None:
    assert sink.write("llm.usage", [usage(0, **FULL)]) == Written(1, 0)
    assert row(sink, "usage_events") == FULL | {
        "tenant": "acme", "identity": "key_7f3a", "time": NOON, "event_id": "e-0", "source": "gateway/eu-1",
        "model": "gpt-5-mini", "status": 200, "kafka_partition": 3, "kafka_offset": 0,
    }  # fmt: skip


def test_what_an_event_leaves_out_is_unknown_not_zero(sink: ClickHouseSink, usage: Callable[..., Record]) -> None:
    sink.write("llm.usage", [usage(0)])
    found = row(sink, "usage_events")
    unknown = {name for name, value in found.items() if value is None}
    assert unknown == {
        "input_tokens", "output_tokens", "cached_tokens", "cost_usd", "latency_ms", "attempt", "lat", "lon",
        "accuracy_km", "asn", "streaming", "usage_missing",
    }  # fmt: skip
    assert (found["tool"], found["workload"]) == ("", "")


def test_the_directory_names_the_tenant_that_an_event_does_not(url: str, usage: Callable[..., Record]) -> None:
    with ClickHouseSink(url, tenant_of={"svc_a": "acme"}.__getitem__) as sink:
        sink.setup()
        sink.write("llm.usage", [usage(0, subject="svc_a", tenant=None), usage(1, subject="svc_a", tenant="globex")])
        assert sink.query("SELECT tenant FROM usage_events ORDER BY event_id") == [("acme",), ("globex",)]


def test_without_a_directory_the_tenant_is_a_dash(sink: ClickHouseSink, usage: Callable[..., Record]) -> None:
    sink.write("llm.usage", [usage(0, tenant=None)])
    assert sink.query("SELECT tenant FROM usage_events") == [("-",)]


def test_a_finding(sink: ClickHouseSink, samples: Any) -> None:
    assert sink.write(topics.SIGNALS, [samples.tick(), samples.signal(1), samples.bucket(2)]) == Written(2, 0)
    found = row(sink, "findings")
    assert msgspec.json.decode(str(found.pop("evidence")))["details"] == {"channel": 'rate "fast"'}
    assert found == {
        "finding_id": "f-1", "time": datetime(2026, 3, 2, 12, 0, 1, tzinfo=UTC), "tenant": "acme",
        "identity": "key_7f3a", "kind": "spike", "severity": "high", "score": 0.9, "detector": "spike",
        "window": "10s", "observed": 1.8e6, "baseline": 4e4, "reason": "1.8 M tokens a minute, usually 40 k",
        "usd_per_minute": 69.0, "baseline_usd_per_minute": 0.0, "deterministic": False, "extreme": True,
    }  # fmt: skip


def test_a_tenant_bucket(sink: ClickHouseSink, samples: Any) -> None:
    sink.write(topics.SIGNALS, [samples.bucket()])
    assert row(sink, "tenant_buckets") == {
        "tenant": "acme", "bucket_end": datetime(2026, 3, 2, 12, 0, 10, tzinfo=UTC), "usage_partition": 3,
        "time": datetime(2026, 3, 2, 12, 0, 12, tzinfo=UTC), "identities": 2, "requests": 40, "failures": 1,
        "tokens": 1234.0, "cost_usd": 0.5, "denied": {"key_7f3a": 7},
    }  # fmt: skip


def test_final_gives_an_incidents_last_state_whatever_the_order(sink: ClickHouseSink, samples: Any) -> None:
    closed = samples.incident(
        1, state="closed", updated="2026-03-02T12:30:00.000Z", closed="2026-03-02T12:30:00.000Z", identity=None
    )
    sink.write(topics.INCIDENTS, [closed])
    sink.write(topics.INCIDENTS, [samples.incident(0)])
    assert sink.query("SELECT state, closed, identity FROM incidents FINAL") == [
        ("closed", datetime(2026, 3, 2, 12, 30, tzinfo=UTC), None)
    ]


def test_an_incident(sink: ClickHouseSink, samples: Any) -> None:
    sink.write(topics.INCIDENTS, [samples.incident()])
    assert row(sink, "incidents") == {
        "incident_id": "i-1", "tenant": "acme", "identity": "key_7f3a",
        "opened": datetime(2026, 3, 2, 12, 0, 1, tzinfo=UTC), "updated": datetime(2026, 3, 2, 12, 0, 2, tzinfo=UTC),
        "closed": None, "state": "open", "kinds": ["spike", "loop"], "risk": 0.8, "severity": "high",
        "usd_per_minute": 69.0, "baseline_usd_per_minute": 1.0, "headline": "key_7f3a spends 69 × the usual",
        "response": "suspend", "finding_ids": ["f-1"], "command_ids": ["c-1"],
        "raised": [datetime(2026, 3, 2, 12, 0, 2, tzinfo=UTC)],
    }  # fmt: skip


def test_a_command_is_read_from_its_token_which_is_kept(sink: ClickHouseSink, samples: Any) -> None:
    sent = samples.command()
    assert sink.write(topics.AUDIT, [sent]) == Written(1, 0)
    found = row(sink, "commands")
    assert len(str(found.pop("evidence_sha256"))) == 64
    assert found == {
        "command_id": "c-1", "time": NOON, "decided": datetime(2026, 3, 2, 12, 0, 2, tzinfo=UTC), "tenant": "acme",
        "identity": "key_7f3a", "scope": "identity", "subject": "key_7f3a", "action": "suspend",
        "epoch": 1772452802000, "expires_at": datetime(2026, 3, 2, 13, 0, 0, 844_000, tzinfo=UTC),
        "on_expiry": "restore", "mode": "enforce", "manual": False, "reason": "a loop", "limit_rpm": None,
        "limit_tpm": None, "limit_model": "", "in_flight": "abort", "http_status": 403, "incident_id": "i-1",
        "finding_ids": ["f-1"], "policy": "p1", "issuer": "https://tripswitch.example", "key_id": "2026-03",
        "token": sent.value.decode(),
    }  # fmt: skip


def test_a_throttle_has_limits_and_a_tenant_no_identity(sink: ClickHouseSink, samples: Any) -> None:
    slow = {"action": "throttle", "limits": Limits(rpm=60), "expires_at": None}
    sink.write(topics.AUDIT, [samples.command(scope="tenant", subject="acme", identity=None, **slow)])
    asked = "SELECT identity, expires_at, limit_rpm, limit_tpm, limit_model FROM commands"
    assert sink.query(asked) == [(None, None, 60, None, "")]


def test_a_request(sink: ClickHouseSink, samples: Any) -> None:
    sent = samples.request()
    sink.write(topics.REQUESTS, [sent])
    assert row(sink, "requests") == {
        "request_id": "r-1", "time": datetime(2026, 3, 2, 12, 5, tzinfo=UTC), "tenant": "acme",
        "identity": "key_7f3a", "action": "restore", "reason": "it was a load test", "requested_by": "kim",
        "token": sent.value.decode(),
    }  # fmt: skip


def test_an_acknowledgement(sink: ClickHouseSink, samples: Any) -> None:
    sink.write(topics.ACKS, [samples.acknowledgement()])
    assert row(sink, "acknowledgements") == {
        "command_uid": "c-1", "gateway": "gw-eu/pod-3", "product": "litellm", "time": NOON, "activity_id": 2,
        "status_id": 1, "status_detail": "", "epoch": 17, "propagation_ms": 606.0, "streams_aborted": 2,
    }  # fmt: skip


def test_a_dead_letter_keeps_its_bytes(sink: ClickHouseSink, samples: Any) -> None:
    raw = bytes(range(256))
    sink.write(topics.DEAD_LETTERS, [samples.dead_letter(raw=raw)])
    asked = "SELECT topic, kafka_partition, kafka_offset, reason, hex(raw) FROM dead_letters"
    assert sink.query(asked) == [("llm.usage", 3, 17, "not UTF-8", raw.hex().upper())]


def test_an_unreadable_record_of_our_own_is_kept_as_a_dead_letter(sink: ClickHouseSink, samples: Any) -> None:
    wrong = samples.raw(b"\xff not json", 8)
    assert sink.write(topics.INCIDENTS, [samples.incident(7), wrong]) == Written(2, 1)
    asked = "SELECT topic, kafka_partition, kafka_offset, hex(raw) FROM dead_letters"
    assert sink.query(asked) == [("llm.incidents", 3, 8, wrong.value.hex().upper())]


@pytest.mark.parametrize("topic", TOPICS)
def test_the_same_batch_again_changes_nothing(sink: ClickHouseSink, usage: Any, samples: Any, topic: str) -> None:
    records = {
        topics.USAGE: [usage(number) for number in range(3)],
        topics.SIGNALS: [samples.signal(0), samples.bucket(1), samples.raw(b"?", 2)],
        topics.INCIDENTS: [samples.incident()],
        topics.AUDIT: [samples.command()],
        topics.REQUESTS: [samples.request()],
        topics.ACKS: [samples.acknowledgement()],
        topics.DEAD_LETTERS: [samples.dead_letter()],
    }[topic]
    first = sink.write(topic, records)
    tables = [name for (name,) in sink.query("SELECT name FROM system.tables WHERE database = currentDatabase()")]
    before = {table: count(sink, str(table)) for table in tables}
    assert sink.write(topic, records) == first
    assert {table: count(sink, str(table)) for table in tables} == before


def test_a_batch_over_many_months_goes_in_once(sink: ClickHouseSink, usage: Callable[..., Record]) -> None:
    """A gateway's broken clock: over 100 months in a batch are `too many parts` unless the sink says otherwise."""
    month = 31 * 24 * 3600 * 1000
    records = [usage(number, time=number * month) for number in range(150)]
    for _ in range(2):
        assert sink.write("llm.usage", records) == Written(150, 0)
    assert count(sink, "usage_events") == 150


def test_overlapping_batches_count_once(sink: ClickHouseSink, usage: Callable[..., Record]) -> None:
    sink.write("llm.usage", [usage(number, cost_usd=0.1) for number in range(100)])
    sink.write("llm.usage", [usage(number, cost_usd=0.1) for number in range(50, 150)])
    assert sink.query("SELECT count() FROM usage_events FINAL") == [(150,)]
    (billed,) = sink.query("SELECT sum(requests), toString(sum(cost_usd)) FROM chargeback")
    assert billed == (150, "15")


def test_a_topic_that_was_made_anew_starts_from_offset_0_again(sink: ClickHouseSink, usage: Any) -> None:
    hour = 3_600_000
    sink.write("llm.usage", [usage(0)])
    sink.write("llm.usage", [usage(0, time=parse_millis("2026-03-02T12:00:00.844Z") + hour)])
    assert sink.query("SELECT count() FROM usage_events FINAL") == [(2,)]


def test_two_gateways_may_number_their_calls_alike(sink: ClickHouseSink, usage: Callable[..., Record]) -> None:
    other = usage(0)
    other = other._replace(offset=1, value=other.value.replace(b"gateway/eu-1", b"gateway/us-1"))
    sink.write("llm.usage", [usage(0), other])
    assert sink.query("SELECT count() FROM usage_events FINAL") == [(2,)]


KILLED = """
import os, signal, sys
import msgspec
from sinks.clickhouse import ClickHouseSink, Record
sink = ClickHouseSink(sys.argv[1])
sink.setup()
records = [Record(*fields) for fields in msgspec.msgpack.decode(sys.stdin.buffer.read())]
sink.write("llm.usage", records)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_nothing_written_is_lost_and_a_longer_batch_repairs(
    directory: Path, tmp_path: Path, usage: Callable[..., Record]
) -> None:
    url = f"chdb://{tmp_path / 'killed'}"
    root = Path(__file__).parents[3]
    records = [usage(number, cost_usd=0.25) for number in range(300)]
    fed = msgspec.msgpack.encode([tuple(record) for record in records[:200]])
    done = subprocess.run([sys.executable, "-c", KILLED, url], input=fed, cwd=root, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    with ClickHouseSink(url) as sink:
        assert count(sink, "usage_events") == 200
        sink.write("llm.usage", records[:200])
        assert count(sink, "usage_events") == 200
        sink.write("llm.usage", records[100:])
        assert sink.query("SELECT sum(requests), toString(sum(cost_usd)) FROM chargeback") == [(300, "75")]


def test_threads_have_a_client_each(sink: ClickHouseSink, usage: Callable[..., Record]) -> None:
    def write(number: int) -> None:
        sink.write("llm.usage", [usage(number * 10 + step)._replace(partition=number) for step in range(10)])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(sink, "usage_events") == 40
    assert len(sink._clients) >= 2


def test_no_records_are_no_insert(url: str) -> None:
    assert ClickHouseSink(url).write("llm.usage", []) == Written(0, 0)


def test_a_topic_without_a_table_is_a_mistake(url: str, usage: Callable[..., Record]) -> None:
    with pytest.raises(ValueError, match=r"llm\.killswitch'.*llm\.killswitch\.audit"):
        ClickHouseSink(url).write("llm.killswitch", [usage(0)])


def test_a_sum_of_costs_does_not_depend_on_order(sink: ClickHouseSink, usage: Callable[..., Record]) -> None:
    costs = [1e9, 1e-12, 0.1, 0.2, 4.8e-05, None]
    sink.write("llm.usage", [usage(number, cost_usd=cost) for number, cost in enumerate(costs)])
    asked = "SELECT toString(sum(cost_usd)), sum(requests_without_usage) FROM chargeback"
    assert sink.query(asked) == [("1000000000.300048000001", 6)]


def test_incidents_with_their_commands_and_how_fast_they_spread(sink: ClickHouseSink, samples: Any) -> None:
    sink.write(topics.INCIDENTS, [samples.incident(), samples.incident(1, incident_id="i-2")])
    sink.write(topics.AUDIT, [samples.command(), samples.command(1, command_id="c-2", epoch=1772452803000)])
    acks = [samples.acknowledgement(number, gateway=f"gw-{number}", ms=number) for number in range(1, 101)]
    again = samples.acknowledgement(500, gateway="gw-1", ms=9e9)  # a restarted gateway reads the topic anew
    refused = samples.acknowledgement(501, gateway="gw-old", ms=8e9, status=2)
    sink.write(topics.ACKS, [*acks, again, refused])
    asked = """SELECT incident_id, length(commands), acknowledged, refused, propagation_p50_ms, propagation_p99_ms
               FROM incident_responses ORDER BY incident_id"""
    (first, second) = sink.query(asked)
    assert first == ("i-1", 2, 100, 1, 51.0, 100.0)
    assert second == ("i-2", 0, 0, 0, None, None)

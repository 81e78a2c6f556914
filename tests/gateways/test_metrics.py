import re
from collections.abc import Callable
from typing import Any

import pytest

from tripswitch_gateway import CommandVerifier, RevocationList, render_metrics
from tripswitch_gateway.counts import Histogram

Claims = Callable[..., dict[str, Any]]
SAMPLE = re.compile(r'tripswitch_[a-z_]+(\{[a-z]+="[^"\\\n]*"\})? -?[0-9.e+-]+')


def samples(text: str) -> dict[str, float]:
    """Every sample, each of a family that was introduced before it."""
    found, family = {}, ""
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            family = line.split()[2]
        elif not line.startswith("# HELP "):
            assert SAMPLE.fullmatch(line), line
            assert line.startswith(family), line
            name, _, value = line.rpartition(" ")
            assert name not in found
            found[name] = float(value)
    return found


def test_metrics_before_the_start(verifier: CommandVerifier) -> None:
    blocks = RevocationList({"bootstrap.servers": "127.0.0.1:1"}, verifier, gateway="gw-1")
    found = samples(render_metrics(blocks))
    assert (found["tripswitch_ready"], found["tripswitch_stale"], found["tripswitch_following"]) == (0, 1, 0)
    assert found['tripswitch_propagation_seconds_bucket{le="+Inf"}'] == 0
    assert "tripswitch_clock_offset_seconds" not in found


def test_metrics_of_a_running_gateway(
    broker: Any, verifier: CommandVerifier, signer: Any, live_claims: Claims, wait_until: Any
) -> None:
    broker.create("llm.killswitch", "llm.killswitch.acks")
    verifier = CommandVerifier(verifier.keys, verifier.issuer)
    with RevocationList(broker.kafka, verifier, gateway="gw-1", patience_s=0.5) as blocks:
        assert blocks.ready.wait(20)
        made = live_claims()
        broker.send("llm.killswitch", *signer.record(made), 0)
        broker.send("llm.killswitch", b"x", b"garbage", 0)
        broker.send("llm.killswitch", *signer.heartbeat(0, made["iat"] * 1000), 0)
        wait_until(lambda: blocks.counts.disagreements == 1, "a disagreement")
        found = samples(render_metrics(blocks))
    assert found["tripswitch_ready"] == found["tripswitch_following"] == found["tripswitch_stale"] == 1
    assert found['tripswitch_live_commands{action="suspend"}'] == 1
    assert found['tripswitch_live_commands{action="revoke"}'] == 0
    assert found['tripswitch_applied_commands_total{action="suspend"}'] == 1
    assert found['tripswitch_refused_records_total{reason="malformed"}'] == 1
    assert found["tripswitch_heartbeats_total"] == found["tripswitch_disagreements_total"] == 1
    assert found["tripswitch_propagation_seconds_count"] == 1
    assert 0 <= found["tripswitch_clock_offset_seconds"] <= 20
    assert {f'tripswitch_staleness_seconds{{partition="{number}"}}' for number in range(4)} <= found.keys()


@pytest.mark.parametrize(("value", "bucket"), [(0.0, 0), (1.0, 0), (1.5, 1), (2.0, 1), (2.1, 2)])
def test_a_bound_belongs_to_its_bucket(value: float, bucket: int) -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(value)
    assert histogram.counts.index(1) == bucket
    assert histogram.total == value

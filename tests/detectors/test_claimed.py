"""Callers who merely claim to be an identity: what they do is not its doing."""

from collections.abc import Callable
from typing import Any

from made_traffic import BERLIN, HOUR, LAGOS, Traffic, in_order

from detectors import Config, Partition
from schemas.batch import to_batch
from schemas.directory import Directory
from schemas.finding import Finding, TenantBucket
from schemas.usage import CLAIMED

Signals = list[Finding | TenantBucket]
NOW = 30 * HOUR


def owner() -> Traffic:
    """Thirty hours from Berlin, and on."""
    traffic = Traffic(**BERLIN, user_agent="openai-python/2.8.1")
    traffic.quietly(30, per_hour=60)
    traffic.every(20.0, NOW, NOW + 1200)
    return traffic


def strangers(**changes: Any) -> Traffic:
    """Twenty minutes of one call again and again in its name, from elsewhere."""
    traffic = Traffic(
        **(LAGOS | {"user_agent": "curl/8", "identity_trust": CLAIMED, "credential_id": "cred_forged"} | changes)
    )
    for n in range(1200):
        traffic.call(NOW + n, event_id=f"forged-{n}", fingerprint="again", session_id="s")
    return traffic


def of_the_owner(signals: Signals) -> list[tuple[str, str]]:
    """Kind and severity of what is found: the stream's clock, which others move, is in the rest."""
    found = [s for s in signals if isinstance(s, Finding) and not s.evidence.claimed]
    return [(finding.kind, finding.severity) for finding in found]


def test_nothing_is_found_of_the_owner(run: Callable[..., Signals]) -> None:
    signals = run(in_order(owner().events, strangers().events))
    assert of_the_owner(signals) == of_the_owner(run(owner().events))
    claims = [s for s in signals if isinstance(s, Finding) and s.evidence.claimed]
    assert {finding.kind for finding in claims} >= {"loop"}
    assert {(finding.identity, finding.evidence.identity_trust) for finding in claims} == {("key_1", CLAIMED)}


def test_were_they_the_owner_it_would_be(run: Callable[..., Signals]) -> None:
    events = in_order(owner().events, strangers(identity_trust="authenticated").events)
    assert {kind for kind, _ in of_the_owner(run(events))} >= {"spike", "geo_shift"}


def test_findings_of_both_have_ids_of_their_own(run: Callable[..., Signals]) -> None:
    """Also those of a bucket, which no single event brings."""
    loud = Traffic(**BERLIN)
    loud.quietly(30, per_hour=60)
    for n in range(1200):
        loud.call(NOW + n, fingerprint=f"q{n}")
    quiet = strangers().events
    ids = [s.finding_id for s in run(in_order(loud.events, quiet)) if isinstance(s, Finding)]
    assert len(ids) == len(set(ids))


def test_they_are_told_apart_after_a_restart(policy: Config) -> None:
    events = in_order(owner().events, strangers().events)
    half = len(events) - 900
    whole, first = Partition(0, policy, Directory()), Partition(0, policy, Directory())
    for partition in (whole, first):
        partition.take(to_batch(events[:half], range(half), [0] * half))
    again = Partition(0, policy, Directory())
    again.restore(first.checkpoint().pieces)
    rest = to_batch(events[half:], range(half, len(events)), [0] * (len(events) - half))
    assert [told.signal for told in again.take(rest)] == [told.signal for told in whole.take(rest)]

"""What every detector promises, whatever it looks for."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_traffic import DIRECTORY, START_MS, Events, Traffic, in_order
from msgspec.structs import replace

from detectors import DETECTORS, Config, Partition
from schemas.batch import to_batch
from schemas.directory import Directory, Entry
from schemas.finding import Finding, TenantBucket, encode
from schemas.times import parse_millis, to_millis
from schemas.usage import DENIED, UsageData, UsageEvent

NAMES = [detector.name for detector in DETECTORS]
Run = Callable[..., list[Finding | TenantBucket]]

by_detector = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def whole(run: Run, world: Events) -> list[Finding | TenantBucket]:
    return run(world)


def of(signals: Sequence[Finding | TenantBucket], name: str) -> list[Finding]:
    return [s for s in signals if isinstance(s, Finding) and s.detector.partition("@")[0] == name]


def as_bytes(signals: Sequence[Finding | TenantBucket]) -> list[bytes]:
    return [encode(signal) for signal in signals]


def test_the_suite_knows_every_detector(policy: Config) -> None:
    partition = Partition(0, policy, Directory())
    assert [type(detector) for detector in partition._detectors] == list(DETECTORS)
    assert len(set(NAMES)) == len(NAMES)


@by_detector
def test_it_finds_something_in_the_suites_traffic(whole: list[Any], name: str) -> None:
    assert of(whole, name)


@by_detector
def test_name_kind_and_file_predict_each_other(name: str) -> None:
    [detector] = [d for d in DETECTORS if d.name == name]
    assert detector.kind == name
    assert detector.__module__ == f"detectors.{name}"
    assert detector.__name__.lower() == name.replace("_", "")


@by_detector
def test_its_docstring_is_a_runbook(name: str) -> None:
    [detector] = [d for d in DETECTORS if d.name == name]
    for part in ("What it detects:", "Why it matters:", "False positives:", "Runbook:"):
        assert part in (detector.__doc__ or "")


def test_it_is_deterministic(run: Run, world: Events, whole: list[Any]) -> None:
    assert as_bytes(run(world)) == as_bytes(whole)


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_how_the_stream_is_cut_changes_nothing(run: Run, world: Events, whole: list[Any], chunk: int) -> None:
    assert as_bytes(run(world, range(chunk, len(world), chunk))) == as_bytes(whole)


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, 4400), max_size=12))
def test_no_choice_of_cuts_changes_anything(run: Run, world: Events, whole: list[Any], cuts: list[int]) -> None:
    assert as_bytes(run(world, [min(cut, len(world)) for cut in cuts])) == as_bytes(whole)


def test_how_the_stream_is_cut_changes_nothing_when_clocks_are_corrected(run: Run, world: Events) -> None:
    skews = {"gateway/eu-1": 40, "gateway/fast": -120_000}
    events = [replace(event, source="gateway/fast") if n % 3 else event for n, event in enumerate(world)]
    arrived = [to_millis(event.time) + skews[event.source] for event in events]
    assert as_bytes(run(events, range(3, len(events), 211), arrived)) == as_bytes(run(events, (), arrived))


@by_detector
def test_ids_are_unique_and_say_nothing_of_offsets(policy: Config, whole: list[Any], world: Events, name: str) -> None:
    ids = [finding.finding_id for finding in of(whole, name)]
    assert len(set(ids)) == len(ids)
    elsewhere = Partition(5, policy, DIRECTORY)
    told = elsewhere.take(to_batch(world, range(10**6, 10**6 + len(world)), [0] * len(world))) + elsewhere.close()
    assert [f.finding_id for f in of([t.signal for t in told], name)] == ids


def test_ids_are_unique_over_all_detectors(whole: list[Any]) -> None:
    ids = [finding.finding_id for name in NAMES for finding in of(whole, name)]
    assert len(set(ids)) == len(ids)


@by_detector
def test_a_finding_is_never_told_before_its_last_evidence(whole: list[Any], world: Events, name: str) -> None:
    times = [to_millis(event.time) for event in world]
    for finding in of(whole, name):
        first, last = finding.evidence.offsets
        assert 0 <= first <= last
        assert parse_millis(finding.time) >= max(times[: last + 1])


@by_detector
def test_evidence_names_what_computes_it_again(whole: list[Any], world: Events, policy: Config, name: str) -> None:
    for finding in of(whole, name):
        evidence, trigger = finding.evidence, world[finding.evidence.offsets[1]]
        assert evidence.policy == policy.version
        assert finding.detector == f"{name}@{evidence.detector_version}"
        assert len(evidence.state_digest) == 16
        assert evidence.partition == 0
        if evidence.cause is not None:
            assert (evidence.cause.source, evidence.cause.id) == (trigger.source, trigger.id)
            assert (trigger.data.tenant, trigger.subject) == (finding.tenant, finding.identity)


@by_detector
def test_what_is_said_is_within_its_bounds(whole: list[Any], name: str) -> None:
    for finding in of(whole, name):
        assert 0 <= finding.score <= 1
        assert finding.reason
        numbers = (finding.observed, finding.baseline, finding.evidence.usd_per_minute, finding.evidence.age_seconds)
        assert all(math.isfinite(number) and number >= 0 for number in numbers)


@pytest.mark.parametrize("excluded", [{"status": 401}, {"status": 403, "error": DENIED}], ids=["401", "denied"])
def test_calls_that_are_no_evidence_leave_no_finding(run: Run, world: Events, excluded: dict[str, Any]) -> None:
    """A 401 tells of the caller, not of the subject it named; a call denied on our word was stopped already."""
    cut = {
        "agent_loop": 2 * 3600_000,
        "key_asleep": 69 * 3600_000,
        "key_beyond": 2 * 3600_000,
        "key_creeping": 27 * 3600_000,
        "key_dear": 9 * 3600_000,
        "key_hangs_up": 3 * 3600_000,
        "key_metered": 3600_000,
        "key_moved": 8 * 3600_000,
        "key_probed": 3 * 3600_000,
        "key_resold": 8 * 3600_000,
        "key_spike": 7 * 3600_000,
    }
    events = [
        replace(event, data=replace(event.data, **excluded))
        if to_millis(event.time) >= START_MS + cut.get(event.subject, 10**9)
        else event
        for event in world
    ]
    assert sum(a is not b for a, b in zip(events, world, strict=True)) > 300
    told = [signal for signal in run(events) if isinstance(signal, Finding) and signal.identity in cut]
    # Weak evidence is part of an ordinary life.
    assert not [finding for finding in told if finding.severity not in ("info", "low")]


def test_excluded_calls_teach_nothing(run: Run, orderly: Events) -> None:
    """Whatever comes between that is no evidence, the findings stay the same."""
    noisy: Events = []
    for n, event in enumerate(orderly):
        noisy.append(event)
        if n % 5 == 0:
            data = replace(event.data, status=401, input_tokens=10**6, country="ZZ", asn=n, fingerprint="x")
            noisy.append(replace(event, id=f"401-{n}", data=data))

    def essence(signals: Sequence[Finding | TenantBucket]) -> list[tuple[Any, ...]]:
        return [(s.kind, s.identity, s.severity, s.reason) for s in signals if isinstance(s, Finding)]

    assert essence(run(noisy)) == essence(run(orderly))


AMOUNTS = st.one_of(st.none(), st.sampled_from([0, 1, 10**15, 2**53]))
NAME = st.one_of(st.none(), st.sampled_from(["", "a", "ü" * 300, "\x00"]))
EXTREMES: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["", "m"]),
    "status": st.sampled_from([0, 200, 401, 429, 999]),
    "tenant": NAME,
    "input_tokens": AMOUNTS,
    "output_tokens": AMOUNTS,
    "cost_usd": st.one_of(st.none(), st.sampled_from([0.0, 5e-324, 1e15])),
    "attempt": st.one_of(st.none(), st.sampled_from([0, 1, 2**53])),
    "session_id": NAME,
    "fingerprint": NAME,
    "tool": NAME,
    "country": NAME,
    "lat": st.sampled_from([None, -90.0, 0.0, 90.0]),
    "lon": st.sampled_from([None, -180.0, 180.0]),
    "accuracy_km": st.sampled_from([None, 0.0, 1e15]),
    "asn": st.sampled_from([None, 0, 0xFFFFFFFF]),
    "workload": st.sampled_from([None, "interactive", "batch", "agent"]),
    "error": st.sampled_from([None, "", DENIED]),
    "credential_id": NAME,
    "identity_trust": st.sampled_from([None, "request_body"]),
    "provider": NAME,
    "route": NAME,
    "user_agent": NAME,
    "operation_id": NAME,
    "end_user": NAME,
    "kind": NAME,
    "ip": NAME,
    "city": NAME,
    "cached_tokens": AMOUNTS,
    "latency_ms": st.sampled_from([None, 0.0, 5e-324, 1e15]),
    "streaming": st.sampled_from([None, False, True]),
    "usage_missing": st.sampled_from([None, False, True]),
}
EXTREME = st.fixed_dictionaries(EXTREMES)
SOME_TIME = st.one_of(
    st.sampled_from([-START_MS / 1000, 0.0, 1e9]),
    st.integers(0, 120).map(float),
    st.floats(0, 1e6).map(lambda t: round(t, 3)),
)


def test_extremes_are_of_every_field() -> None:
    assert set(EXTREMES) == set(UsageData.__struct_fields__)


@settings(max_examples=60)
@given(
    calls=st.lists(st.tuples(SOME_TIME, st.sampled_from(["k", "", "ß\x00"]), EXTREME), min_size=1, max_size=60),
    cut=st.integers(0, 60),
)
def test_extremes_are_taken_as_they_are(run: Run, calls: list[tuple[float, str, dict[str, Any]]], cut: int) -> None:
    events = [
        Traffic(subject or "k0").call(at, event_id=f"e{n}", **data) for n, (at, subject, data) in enumerate(calls)
    ]
    signals = run(events)
    assert as_bytes(run(events, [min(cut, len(events))])) == as_bytes(signals)
    for signal in signals:
        if isinstance(signal, Finding):
            assert 0 <= signal.score <= 1
            assert math.isfinite(signal.observed)
            assert math.isfinite(signal.baseline)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_stream_of_a_few_events_is_closed(run: Run, count: int) -> None:
    traffic = Traffic()
    traffic.every(1.0, 0, count)
    buckets = [signal for signal in run(traffic.events) if isinstance(signal, TenantBucket)]
    assert [bucket.requests for bucket in buckets] == [count]


def test_no_event_is_no_signal(run: Run) -> None:
    assert run([]) == []


def test_a_million_events_of_one_identity(policy: Config) -> None:
    """Nearly three hours at a hundred a second: each is counted, and what is told and kept stays small."""
    model = Traffic(fingerprint="same", session_id="s", country="DE", asn=1).call(0)
    partition, signals, chunk = Partition(0, policy, DIRECTORY), list[Finding | TenantBucket](), 20_000
    for first in range(0, 1_000_000, chunk):
        numbers = range(first, first + chunk)
        events = [replace(model, id=f"e{n}", time=model.time + timedelta(milliseconds=10 * n)) for n in numbers]
        signals += [told.signal for told in partition.take(to_batch(events, numbers, [0] * chunk))]
    signals += [told.signal for told in partition.close()]
    buckets = [signal for signal in signals if isinstance(signal, TenantBucket)]
    assert sum(bucket.requests for bucket in buckets) == 1_000_000
    assert sum(bucket.tokens for bucket in buckets) == 1_000_000_000
    assert all(parse_millis(a.end) < parse_millis(b.end) for a, b in pairwise(buckets))
    # About one a minute and detector.
    assert 160 <= sum(isinstance(signal, Finding) for signal in signals) <= 450
    assert partition.identities == 1


def test_counts_tell_what_was_taken(policy: Config, world: Events) -> None:
    partition = Partition(0, policy, Directory())
    partition.take(to_batch(world, range(len(world)), [0] * len(world)))
    keys = {(event.source, event.id) for event in world}
    assert partition.counts.events == len(world)
    assert partition.counts.duplicates == len(world) - len(keys)
    assert partition.identities == len({(event.data.tenant, event.subject) for event in world})
    assert partition.due < 1 << 62
    partition.close()
    assert partition.due >= 1 << 62
    assert partition.close() == []


def test_an_idle_partition_closes_what_ended(policy: Config) -> None:
    traffic = Traffic()
    traffic.every(1.0, 0, 9)
    partition = Partition(0, policy, Directory())
    assert partition.take(to_batch(traffic.events, range(9), [0] * 9)) == []
    assert partition.idle_until(START_MS + 11_000) == []
    [told] = partition.idle_until(START_MS + 12_000)
    assert isinstance(told.signal, TenantBucket)
    assert (told.signal.end, told.signal.requests) == ("2026-03-02T00:00:10.000Z", 9)
    assert told.signal.time == "2026-03-02T00:00:12.000Z"


def test_a_missing_tenant_comes_from_the_directory(policy: Config) -> None:
    directory = Directory(identities={"known": Entry(tenant="acme")})
    partition = Partition(0, policy, directory)
    events = [Traffic(name, tenant=None).call(n) for n, name in enumerate(("known", "unknown"))]
    events.append(Traffic("known", tenant="acme").call(2, event_id="named"))
    told = partition.take(to_batch(events, range(3), [0] * 3)) + partition.close()
    sums = {told.signal.tenant: told.signal.requests for told in told if isinstance(told.signal, TenantBucket)}
    assert sums == {"acme": 2, "-": 1}
    assert partition.identities == 2


def test_refused_calls_are_no_history(policy: Config) -> None:
    """Calls that name an identity and are refused give it no hours, no model and no zeros to be measured against."""
    refused = UsageData(model="m", status=401, tenant="acme")
    start = datetime(2026, 3, 2, tzinfo=UTC)
    events = [UsageEvent(f"r{n}", "gw", "key_named", start + timedelta(minutes=10 * n), refused) for n in range(60)]
    partition = Partition(0, policy, Directory())
    partition.take(to_batch(events, range(len(events)), [0] * len(events)))
    partition.close()
    spike = partition._detectors[0]
    assert spike.rows.array["hours"][0] == 0
    assert spike._models == {}
    assert [cohort.count for cohort in spike._cohorts] == [0, 0, 0]


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_a_finding_names_the_credential_of_its_moment(policy: Config, chunk: int) -> None:
    """Of two that alternate, however the stream is cut: what a closed bucket tells looks back over a batch's edge."""
    traffic = Traffic("key_two")
    traffic.every(60.0, 0, 6 * 3600)
    traffic.every(1.0, 6 * 3600, 6 * 3600 + 63, input_tokens=200_000)
    events = [
        replace(event, data=replace(event.data, credential_id=("a", "b", "a")[n % 3]))
        for n, event in enumerate(traffic.events)
    ]
    partition, told = Partition(0, policy, Directory()), []
    for first in range(0, len(events), chunk):
        some = events[first : first + chunk]
        told += partition.take(to_batch(some, range(first, first + len(some)), [0] * len(some)))
    told += partition.close()
    whole = Partition(0, policy, Directory())
    undisturbed = whole.take(to_batch(events, range(len(events)), [0] * len(events))) + whole.close()
    assert [encode(t.signal) for t in told] == [encode(t.signal) for t in undisturbed]
    assert {t.signal.evidence.credential_id for t in told if isinstance(t.signal, Finding)} <= {"a", "b"}


def test_time_may_begin_in_1970(run: Run) -> None:
    """Zero is a moment like any other, though a blank row holds it too."""
    traffic = Traffic("key_old", country="DE", asn=1, session_id="s")
    traffic.every(300.0, -START_MS / 1000, -START_MS / 1000 + 3 * 86_400, fingerprint="again")
    assert run(traffic.events)


def test_what_a_gateway_does_not_say_of_the_workload_the_directory_may(run: Run) -> None:
    """Its own word counts first."""
    known = {"key_1": Entry(tenant="acme", workload="agent"), "key_2": Entry(tenant="other", workload="agent")}
    stories = []
    for name, said in (("key_1", {}), ("key_1b", {}), ("key_2", {}), ("key_1", {"workload": "batch"})):
        traffic = Traffic(name, fingerprint="same", session_id="s1", **said)
        traffic.every(1.0, 0 if not said else 900, 60 if not said else 1000)
        stories.append(traffic.events)
    loops = [
        s for s in run(in_order(*stories), directory=Directory(known)) if isinstance(s, Finding) and s.kind == "loop"
    ]
    told = {(f.identity, f.evidence.workload) for f in loops}
    assert told == {("key_1", "agent"), ("key_1b", None), ("key_2", None), ("key_1", "batch")}

"""A finding is computed again from its events, byte for byte, and what stood before it is shown."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from made_traffic import CASES, HOUR, Events, Traffic, in_order

from schemas.directory import Directory
from schemas.finding import Finding, encode
from schemas.times import format_millis, to_millis
from streams.explain import ReplayFolder, compute_again
from streams.explain.again import changes
from streams.policy import Loaded
from streams.replay import replay

File = Callable[..., str]


@pytest.fixture(scope="module")
def world() -> Events:
    """The golden cases in one file, some lines delivered twice and some late."""
    stories = [[e for e in case() if e.subject != "key_bystander"] for case in CASES.values()]
    events = in_order(*stories)
    for n in range(50, len(events), 97):
        events.insert(n + 5, events[n])
    for n in range(40, len(events) - 10, 61):
        events.insert(n + 8, events.pop(n))
    return events


def findings_of(folder: Path) -> list[Finding]:
    return [msgspec.json.decode(line, type=Finding) for line in lines_of(folder)]


def lines_of(folder: Path) -> list[bytes]:
    return (folder / "findings.jsonl").read_bytes().splitlines()


@pytest.mark.parametrize("partitions", [1, 5])
def test_every_finding_comes_out_again(
    policy: Loaded, events_file: File, tmp_path: Path, world: Events, partitions: int
) -> None:
    events = events_file(world, "events.jsonl.gz")
    replay(events, tmp_path / "out", policy, Directory(), partitions=partitions)
    source, found = ReplayFolder(tmp_path / "out", events), findings_of(tmp_path / "out")
    written = {f.finding_id: line for f, line in zip(found, lines_of(tmp_path / "out"), strict=True)}
    assert source.partitions == partitions
    assert len({f.kind for f in found}) >= 3
    assert len({f.evidence.partition for f in found}) >= min(partitions, 2)
    for finding in found:
        again = compute_again(finding, [], source.items(finding.evidence.partition), policy, Directory())
        assert again.found == {finding.finding_id: finding}
        assert encode(again.found[finding.finding_id]) == written[finding.finding_id]


def test_what_is_told_when_the_file_has_ended_comes_out_again(
    policy: Loaded, events_file: File, tmp_path: Path
) -> None:
    quiet, loud = Traffic(), Traffic()
    quiet.quietly(9)
    loud.every(2.0, 9 * HOUR, 9 * HOUR + 240, input_tokens=2000, cost_usd=0.3)
    told_last = []
    for length in range(28, 34):
        events = events_file(in_order(quiet.events, loud.events[:length]))
        replay(events, tmp_path / "out", policy, Directory())
        for finding in findings_of(tmp_path / "out"):
            if finding.evidence.offsets[1] == -1:
                source = ReplayFolder(tmp_path / "out", events)
                again = compute_again(finding, [], source.items(0), policy, Directory())
                assert again.found == {finding.finding_id: finding}
                assert again.before["windows"]["last"] == format_millis(to_millis(loud.events[length - 1].time))
                told_last.append(finding)
    assert told_last


def test_the_state_is_that_before_the_event_and_its_calls_are_the_identity_s(
    policy: Loaded, events_file: File, tmp_path: Path
) -> None:
    events = CASES["geo_shift_stolen_key"]()
    path = events_file(events)
    replay(path, tmp_path / "out", policy, Directory())
    source = ReplayFolder(tmp_path / "out", path)
    finding = next(one for one in findings_of(tmp_path / "out") if one.kind == "geo_shift")
    first, last = finding.evidence.offsets
    mine = [(n, event) for n, event in enumerate(events) if event.subject == finding.identity]
    again = compute_again(finding, [], source.items(0), policy, Directory())
    assert again.before["windows"]["last"] == format_millis(to_millis(max(event.time for n, event in mine if n < last)))
    between = [(n, event) for n, event in mine if first <= n <= last]
    assert again.events.count == len(between)
    assert [*again.events.first, *again.events.last] == [*between[:8], *between[8:][-8:]]
    [cause] = [event for n, event in mine if n == last]
    assert finding.evidence.cause is not None
    assert finding.evidence.cause.id == cause.id


def test_it_reads_no_more_than_it_needs(policy: Loaded, events_file: File, tmp_path: Path) -> None:
    path = events_file(CASES["loop_runaway_agent"]())
    replay(path, tmp_path / "out", policy, Directory())
    source, finding = ReplayFolder(tmp_path / "out", path), findings_of(tmp_path / "out")[0]
    items = source.items(0)
    compute_again(finding, [], items, policy, Directory())
    assert next(items).offset == finding.evidence.offsets[1] + 1


def test_other_events_bring_no_finding(policy: Loaded, events_file: File, tmp_path: Path) -> None:
    path = events_file(CASES["loop_runaway_agent"]())
    replay(path, tmp_path / "out", policy, Directory())
    source, finding = ReplayFolder(tmp_path / "out", path), findings_of(tmp_path / "out")[0]
    less = list(islice(source.items(0), finding.evidence.offsets[1]))
    assert compute_again(finding, [], less, policy, Directory()).found == {}


def test_changes_are_named_by_their_path(policy: Loaded, events_file: File, tmp_path: Path) -> None:
    path = events_file(CASES["loop_runaway_agent"]())
    replay(path, tmp_path / "out", policy, Directory())
    finding = findings_of(tmp_path / "out")[0]
    evidence = msgspec.structs.replace(finding.evidence, state_digest="0")
    other = msgspec.structs.replace(finding, reason="x", evidence=evidence)
    assert changes(finding, finding) == []
    assert changes(finding, other) == [
        f"evidence.state_digest: {finding.evidence.state_digest!r}, now '0'",
        f"reason: {finding.reason!r}, now 'x'",
    ]

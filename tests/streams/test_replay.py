"""The offline road: the same for every way of reading the same events."""

import gzip
import io
import json
import sys
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from made_traffic import CASES, Events, Traffic, as_lines, in_order

from schemas.command import decode_command
from schemas.directory import Directory
from schemas.finding import Finding
from schemas.incident import decode_incident
from schemas.times import format_millis, to_millis
from streams.partitioner import partition_of
from streams.policy import Loaded
from streams.replay import EventsError, Replay, Summary, replay

File = Callable[..., str]
OUTPUTS = ("findings.jsonl", "incidents.jsonl", "commands.jsonl")
KEYS = [
    "events",
    "duplicates",
    "late",
    "rejected",
    "identities",
    "findings",
    "incidents",
    "commands",
    "seconds",
    "cpu_seconds",
    "events_per_second",
    "partitions",
]


@pytest.fixture(scope="module")
def world() -> Events:
    """The golden cases in one file, some lines delivered twice and some late."""
    stories = [[e for e in case() if e.subject != "key_bystander"] for case in CASES.values()]
    everybody_else = Traffic("key_else")
    # A call a minute to the end: five lines later is then within the time that a second delivery is known for.
    everybody_else.every(60.0, 0, 60 * 3600)
    events = in_order(*stories, everybody_else.events)
    for n in range(50, len(events), 97):
        events.insert(n + 5, events[n])
    for n in range(40, len(events) - 10, 61):
        events.insert(n + 8, events.pop(n))
    return events


def outputs(policy: Loaded, events: str, out: Path, **options: Any) -> tuple[dict[str, bytes], Summary]:
    summary = replay(events, out, policy, Directory(), **options)
    return {name: (out / name).read_bytes() for name in OUTPUTS}, summary


def test_it_writes_what_it_says(policy: Loaded, events_file: File, tmp_path: Path, world: Events) -> None:
    files, summary = outputs(policy, events_file(world), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*OUTPUTS, "summary.json"])
    lines = {name: content.splitlines() for name, content in files.items()}
    found = msgspec.json.Decoder(Finding)
    assert [found.decode(line).finding_id for line in lines["findings.jsonl"]]
    incidents = [decode_incident(line) for line in lines["incidents.jsonl"]]
    commands = [decode_command(line) for line in lines["commands.jsonl"]]
    assert (len(lines["findings.jsonl"]), len(incidents), len(commands)) == (
        summary.findings,
        summary.incidents,
        summary.commands,
    )
    assert len({incident.incident_id for incident in incidents}) == len(incidents)
    assert [incident.opened for incident in incidents] == sorted(incident.opened for incident in incidents)
    assert commands
    assert {command.incident_id for command in commands} <= {incident.incident_id for incident in incidents}


def test_the_summary_has_these_keys_in_this_order(
    policy: Loaded, events_file: File, tmp_path: Path, world: Events
) -> None:
    _, summary = outputs(policy, events_file(world), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert list(written) == KEYS
    assert written == msgspec.to_builtins(summary)
    keys = {(event.source, event.id) for event in world}
    assert summary.events == len(world)
    assert summary.duplicates == len(world) - len(keys)
    assert summary.late > 0
    assert summary.rejected == 0
    assert summary.identities == len({event.subject for event in world})


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_the_chunk_changes_no_byte(
    policy: Loaded, events_file: File, tmp_path: Path, world: Events, chunk: int
) -> None:
    events = events_file(world)
    expected, _ = outputs(policy, events, tmp_path / "a")
    assert outputs(policy, events, tmp_path / "b", chunk=chunk)[0] == expected


def test_two_runs_differ_in_no_byte(policy: Loaded, events_file: File, tmp_path: Path, world: Events) -> None:
    events = events_file(world)
    assert outputs(policy, events, tmp_path / "a")[0] == outputs(policy, events, tmp_path / "b")[0]


def test_packed_plain_piped_and_with_blank_lines_are_the_same(
    policy: Loaded, events_file: File, tmp_path: Path, world: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = as_lines(world)
    expected, _ = outputs(policy, events_file(raw), tmp_path / "plain")
    assert outputs(policy, events_file(raw, "events.jsonl.gz"), tmp_path / "packed")[0] == expected
    # What is packed tells by its content, not by its name.
    assert outputs(policy, events_file(gzip.compress(raw), "events.txt"), tmp_path / "named")[0] == expected
    blank = b"\n \n" + raw.replace(b"\n", b"\r\n\n\t\n").rstrip()
    assert outputs(policy, events_file(blank, "blank.jsonl"), tmp_path / "blank")[0] == expected
    assert outputs(policy, events_file(BOM_UTF8 + raw, "marked.jsonl"), tmp_path / "marked")[0] == expected
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
    assert outputs(policy, "-", tmp_path / "piped")[0] == expected


def test_an_empty_file_is_an_empty_answer(policy: Loaded, events_file: File, tmp_path: Path) -> None:
    files, summary = outputs(policy, events_file(b"\n\n"), tmp_path / "out")
    assert set(files.values()) == {b""}
    assert (summary.events, summary.rejected, summary.identities) == (0, 0, 0)


def test_rejected_lines_are_named_by_their_number(policy: Loaded, events_file: File, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.every(1.0, 0, 10)
    lines = as_lines(traffic.events).splitlines(keepends=True)
    lines[4:4] = [b"\n", b"{not json\n"]
    rejected: list[tuple[int, str]] = []
    _, summary = outputs(
        policy, events_file(b"".join(lines)), tmp_path / "out", on_rejected=lambda n, why: rejected.append((n, why))
    )
    assert [number for number, _ in rejected] == [6]
    assert rejected[0][1].startswith("JSON is malformed")
    assert (summary.events, summary.rejected) == (10, 1)


def test_a_prefix_decides_what_the_whole_decides_by_its_end(policy: Loaded, world: Events) -> None:
    """Nothing that comes later changes what was decided before: no command, and when no incident opened."""

    def run(events: Events) -> Replay:
        road = Replay(policy, Directory())
        road.run(io.BytesIO(as_lines(events)), 4096, lambda line, reason: None, lambda lines: None)
        return road

    whole = run(world)
    assert len(whole.commands) >= 4
    cuts = [*range(7, len(world), len(world) // 25)]
    # And the moments at which something happens.
    times = [format_millis(to_millis(event.time)) for event in world]
    for command in whole.commands:
        first = next((n for n, time in enumerate(times) if time >= command.time), None)
        cuts += [first, first + 1, first + 2] if first is not None else []
    for cut in cuts:
        part, end = run(world[:cut]), max(times[:cut])
        assert [c for c in part.commands if c.time <= end] == [c for c in whole.commands if c.time <= end]
        opened = [
            sorted((i.incident_id, i.opened) for i in road.incidents.values() if i.opened <= end)
            for road in (part, whole)
        ]
        assert opened[0] == opened[1]
        assert [f for f in part.findings if f.time <= end] == [f for f in whole.findings if f.time <= end]


@pytest.mark.parametrize("partitions", [2, 4, 16])
def test_partitions_cover_all_events(
    policy: Loaded, events_file: File, tmp_path: Path, world: Events, partitions: int
) -> None:
    events = events_file(world)
    one, alone = outputs(policy, events, tmp_path / "one")
    many, split = outputs(policy, events, tmp_path / "many", partitions=partitions)
    assert (split.events, split.identities, split.duplicates) == (alone.events, alone.identities, alone.duplicates)
    assert outputs(policy, events, tmp_path / "again", partitions=partitions, chunk=13)[0] == many

    def found(files: dict[str, bytes]) -> set[tuple[str, str]]:
        findings = map(json.loads, files["findings.jsonl"].splitlines())
        # What a partition's identities have in common decides about weak evidence, and about who is new to a route.
        told = {(f["identity"], f["kind"]) for f in findings if f["severity"] not in ("info", "low")}
        return told - {("key_uncounted", "evasion")}

    assert found(many) == found(one)


def test_a_key_is_where_kafkas_default_partitioner_puts_it() -> None:
    """As Java's murmur2 has it: kafka.utils' own examples."""
    known = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
    for key, hashed in known.items():
        assert partition_of(key.encode(), 7) == (hashed & 0x7FFFFFFF) % 7


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[:-20],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:300] + b"\xff" * 40 + raw[340:],
        lambda raw: raw[:-8] + b"\0" * 8,
    ],
    ids=["end cut off", "half", "broken in the middle", "wrong checksum"],
)
def test_a_broken_gzip_file_is_said_to_be_that(
    policy: Loaded, tmp_path: Path, world: Events, spoil: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(spoil(gzip.compress(as_lines(world), mtime=0)))
    with pytest.raises(EventsError, match=r"events\.jsonl\.gz: .+"):
        replay(str(path), tmp_path / "out", policy, Directory())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["none.jsonl", "."])
def test_a_file_that_cannot_be_read_is_named(policy: Loaded, tmp_path: Path, name: str) -> None:
    with pytest.raises(EventsError, match=r"none\.jsonl: No such file|: Is a directory"):
        replay(str(tmp_path / name), tmp_path / "out", policy, Directory())
    assert not (tmp_path / "out").exists()


def test_nothing_is_half_written_when_it_fails(
    policy: Loaded, events_file: File, tmp_path: Path, world: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier answer stays whole, and no scratch is left."""
    events, out = events_file(world), tmp_path / "out"
    before, _ = outputs(policy, events, out)
    summary = (out / "summary.json").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("streams.replay.json.dumps", full)
    with pytest.raises(OSError, match="No space left"):
        replay(events_file(world[:100], "other.jsonl"), out, policy, Directory())
    assert {name: (out / name).read_bytes() for name in OUTPUTS} == before
    assert (out / "summary.json").read_bytes() == summary
    assert len(list(out.iterdir())) == 4


CORPUS = Path(__file__).parent.parent.parent.parent / "shared" / "corpus" / "corpus.py"


@pytest.mark.skipif(not CORPUS.exists(), reason="needs the practice corpus beside the repository (../shared/corpus)")
def test_practice_traffic_is_read(policy: Loaded, tmp_path: Path) -> None:
    import subprocess

    made = tmp_path / "corpus"
    options = ["--seed", "3", "--days", "1", "--identities", "12"]
    subprocess.run([sys.executable, CORPUS, str(made), *options], check=True, capture_output=True)
    files, summary = outputs(policy, str(made / "events.jsonl.gz"), tmp_path / "a")
    assert summary.events > 100
    # The last line may be far ahead of the others in so small a world, with nobody who follows.
    assert summary.rejected <= 1
    assert outputs(policy, str(made / "events.jsonl.gz"), tmp_path / "b", chunk=17)[0] == files

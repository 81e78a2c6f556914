"""A tenant whose keys rise together is explained by who grew, and decided again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from made_traffic import HOUR, Traffic, in_order
from typer.testing import CliRunner

from schemas.directory import Directory
from streams.cli import app
from streams.policy import Loaded
from streams.replay import replay

LOUD = range(3, 21)


@pytest.fixture
def events(events_file: Callable[..., str]) -> str:
    """Twenty keys that call twice an hour; from hour 40 on, most of them every four minutes."""
    stories = []
    for n in range(20):
        traffic = Traffic(f"key_{n:02}")
        traffic.every(1800.0, n * 60.0, 41 * HOUR)
        if n in LOUD:
            traffic.every(240.0, 40 * HOUR + n, 41 * HOUR + 600)
        stories.append(traffic.events)
    return events_file(in_order(*stories), "events.jsonl.gz")


@pytest.mark.parametrize("partitions", [1, 4])
def test_who_grew_is_shown(events: str, policy: Loaded, policy_file: Path, tmp_path: Path, partitions: int) -> None:
    replay(events, tmp_path / "out", policy, Directory(), partitions=partitions)
    found = [json.loads(line) for line in (tmp_path / "out" / "incidents.jsonl").read_text().splitlines()]
    [whole] = [incident for incident in found if incident["identity"] is None]
    given = ["explain", whole["incident_id"], "--replay", str(tmp_path / "out"), "--events", events]
    given += ["--policy", str(policy_file)]
    result = CliRunner().invoke(app, [*given, "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["reproduced"] is True
    assert {one["identity"] for one in said["grown"]} <= {f"key_{n:02}" for n in LOUD}
    assert (said["at_work"], said["usually_at_work"]) == (20, 20.0)
    assert all(one["calls"] > one["usual_calls"] == 2.0 for one in said["grown"])
    assert {key["path"] for key in said["detector_keys"]} >= {"tenant_spike.ratio"}
    shown = CliRunner().invoke(app, given).stdout
    assert "(the whole tenant)" in shown
    assert whole["headline"][:40] in shown
    assert f"reproduced {whole['incident_id']}, byte for byte" in shown


def test_a_tenant_s_incident_that_is_not_decided_again(
    events: str, policy: Loaded, policy_file: Path, tmp_path: Path
) -> None:
    replay(events, tmp_path / "out", policy, Directory())
    path = tmp_path / "out" / "incidents.jsonl"
    path.write_text(path.read_text().replace("the whole tenant makes", "nobody makes"))
    [incident] = [json.loads(line) for line in path.read_text().splitlines()]
    given = ["explain", incident["incident_id"], "--replay", str(tmp_path / "out"), "--events", events]
    result = CliRunner().invoke(app, [*given, "--policy", str(policy_file), "--json"])
    assert result.exit_code == 1
    [one] = json.loads(result.stdout)["recomputed"]
    assert [change.partition(":")[0] for change in one["differences"]] == ["headline"]

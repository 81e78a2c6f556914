"""`tripswitch explain` and `incidents` on a stolen key: place and velocity together."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_traffic import CASES
from typer.testing import CliRunner, Result

from schemas.directory import Directory
from streams.cli import app
from streams.policy import Loaded
from streams.replay import replay

Cli = Callable[..., Result]


@pytest.fixture
def cli(policy_file: Path) -> Cli:
    runner = CliRunner()
    return lambda *given: runner.invoke(app, [str(one) for one in given])


@pytest.fixture
def told(events_file: Callable[..., str], policy: Loaded, tmp_path: Path) -> Callable[..., list[Any]]:
    """`told(id, …)`: the arguments that explain `id` in a replay of the stolen key."""
    events = events_file(CASES["geo_shift_stolen_key"]())
    replay(events, tmp_path / "out", policy, Directory(), partitions=3)
    return lambda name, *more: ["explain", name, "--replay", tmp_path / "out", "--events", events, *more]


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture
def use(policy_file: Path) -> list[Any]:
    return ["--policy", policy_file]


def test_an_incident_is_explained_by_the_finding_that_decided(
    cli: Cli, told: Any, use: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    [incident], [block, *_] = lines(out, "incidents"), lines(out, "commands")
    result = cli(*told(incident["incident_id"], *use, "--json"))
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["reproduced"] is True
    assert {one["finding_id"] for one in said["recomputed"]} == set(incident["finding_ids"])
    assert all(one["reproduced"] and not one["differences"] for one in said["recomputed"])
    assert [command["command_id"] for command in said["commands"]] == [block["command_id"]]
    assert said["finding"]["time"] == block["time"]
    decision = said["decision"]
    assert decision["wanted"]["action"] == block["action"]
    assert (decision["wanted"]["scope"], decision["wanted"]["subject"]) == (block["scope"], block["subject"])
    assert len(decision["counted"]) >= 2
    keys = {key["path"]: key for key in said["decision_keys"]}
    assert keys[f"response.interactive.{decision['rung']}"]["value"] == f'"{block["action"]}"'
    assert keys["response.block_risk"]["comment"]
    assert all(key["path"].startswith(f"{said['finding']['kind']}.") for key in said["detector_keys"])
    assert {word["detector"] for word in said["words"] if word["score"] is not None} >= set(incident["kinds"])


def test_a_finding_on_the_screen(cli: Cli, told: Any, use: list[Any], tmp_path: Path) -> None:
    finding = next(one for one in lines(tmp_path / "out", "findings") if one["kind"] == "geo_shift")
    shown = cli(*told(finding["finding_id"], *use)).stdout
    for part in (
        finding["reason"], finding["evidence"]["state_digest"], "Decision", "Computed again from the events",
        f"reproduced {finding['finding_id']}, byte for byte", f"[{finding['kind']}] in the policy", "AS37282 NG",
    ):  # fmt: skip
        assert part in shown


def test_a_finding_that_was_tampered_with_is_not_reproduced(
    cli: Cli, told: Any, use: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "out" / "findings.jsonl"
    finding = lines(tmp_path / "out", "findings")[0]
    path.write_text(path.read_text().replace(finding["reason"], "nothing happened"))
    result = cli(*told(finding["finding_id"], *use))
    assert result.exit_code == 1
    assert f"differs {finding['finding_id']}" in result.stdout
    assert f"reason: 'nothing happened', now '{finding['reason']}'" in " ".join(result.stdout.split())


def test_another_policy_is_said(cli: Cli, told: Any, policy_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(policy_file.read_text() + "\n# another\n")
    finding = lines(tmp_path / "out", "findings")[0]
    result = cli(*told(finding["finding_id"], "--policy", other, "--json"))
    assert result.exit_code == 1
    [one] = json.loads(result.stdout)["recomputed"]
    assert f"it was made under policy {finding['evidence']['policy']}" in one["why_not"]
    assert [change.partition(":")[0] for change in one["differences"]] == ["evidence.policy"]


def test_other_events_are_not_reproduced(
    cli: Cli, told: Any, use: list[Any], tmp_path: Path, events_file: Callable[..., str]
) -> None:
    finding = lines(tmp_path / "out", "findings")[0]
    given = told(finding["finding_id"], *use)
    given[given.index("--events") + 1] = events_file(CASES["loop_popular_prompt"](), "others.jsonl")
    result = cli(*given)
    assert result.exit_code == 1
    assert "the events do not bring it again" in result.stdout
    assert "none can be shown" in result.stdout


def test_incidents_are_listed(cli: Cli, told: Any, tmp_path: Path) -> None:
    [incident] = lines(tmp_path / "out", "incidents")
    assert json.loads(cli("incidents", "--replay", tmp_path / "out", "--json").stdout) == [incident]
    shown = cli("incidents", "--replay", tmp_path / "out").stdout
    assert incident["incident_id"] in shown
    assert f"1 incidents, {int(incident['state'] == 'open')} open; 1 {incident['response']}" in shown


def mistake(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    [line] = result.stderr.splitlines()
    return line


def test_mistakes_are_one_line(cli: Cli, told: Any, use: list[Any], tmp_path: Path) -> None:
    assert mistake(cli(*told("f-none", *use))) == "tripswitch: f-none: no such finding or incident"
    assert "go together" in mistake(cli("explain", "f-1", "--replay", tmp_path / "out", *use))
    assert "go together" in mistake(cli("explain", "f-1", "--events", "x.jsonl", *use))
    elsewhere = cli("explain", "f-1", "--replay", tmp_path, "--events", "x.jsonl", *use)
    assert mistake(elsewhere).startswith(f"tripswitch: {tmp_path}: no findings.jsonl in it; name the folder")
    assert "no incidents.jsonl in it" in mistake(cli("incidents", "--replay", tmp_path))
    (tmp_path / "out" / "commands.jsonl").write_text("{}\n")
    assert mistake(cli(*told("f-1", *use))).startswith(f"tripswitch: {tmp_path}/out/commands.jsonl:1: ")


def test_a_replay_that_does_not_say_its_partitions(cli: Cli, told: Any, use: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "out" / "summary.json"
    said = json.loads(path.read_text())
    del said["partitions"]
    path.write_text(json.dumps(said))
    assert mistake(cli(*told("f-1", *use))).endswith("does not say `partitions`; replay the events again")

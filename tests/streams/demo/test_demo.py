"""The whole demo as a user runs it: three attacks are denied, one is restored, everything is in ClickHouse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("chdb")

# Far more than a demo takes: a machine where the kernels are not compiled yet, and where other tests run.
DEADLINE_S = 300.0


def test_the_demo_denies_all_three_and_restores_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy_file: Path
) -> None:
    for name in ("SLACK_BOT_TOKEN", "SLACK_CHANNEL", "KAFKA_BOOTSTRAP", "CLICKHOUSE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRIPSWITCH_POLICY", str(policy_file))
    done = subprocess.run(
        [sys.executable, "-m", "streams", "demo", "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    attacks = {"theft", "loop", "spike"}
    assert set(said) == {
        "events", "events_per_second", "incidents", "commands", "seconds_to_denial", "seconds_from_finding_to_denial",
        "denied_calls", "clickhouse_rows", "slack_messages", "restored",
    }  # fmt: skip
    for seconds in (said["seconds_to_denial"], said["seconds_from_finding_to_denial"]):
        assert set(seconds) == attacks
        assert all(figure > 0 for figure in seconds.values())
    assert all(said["seconds_from_finding_to_denial"][name] <= said["seconds_to_denial"][name] for name in attacks)
    assert said["clickhouse_rows"] == said["events"] > 26_000
    assert said["incidents"] == said["slack_messages"] == 3
    assert said["commands"] >= 4
    assert said["denied_calls"] > 10
    assert said["events_per_second"] > 0
    assert said["restored"] is True
    assert not list(tmp_path.iterdir())


def test_a_missing_part_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from streams.demo import run

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(json=True) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "tripswitch: the demo needs chdb: pip install 'tripswitch[embedded]'\n"


def test_a_policy_that_can_not_be_used_is_the_users_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from streams.cli import app

    monkeypatch.setenv("TRIPSWITCH_POLICY", str(tmp_path / "none.toml"))
    assert CliRunner().invoke(app, ["demo", "--json"]).exit_code == 2

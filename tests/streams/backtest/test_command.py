"""`tripswitch backtest` from the command line, on a stolen key and a looping agent."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from made_traffic import CASES, HOUR, as_lines, in_order
from typer.testing import CliRunner, Result

from hand_made import at
from streams.backtest.compare import differences
from streams.cli import app

Cli = Callable[..., Result]


@pytest.fixture
def cli(policy_file: Path) -> Cli:
    runner = CliRunner()
    return lambda *given: runner.invoke(app, ["backtest", *map(str, given), "--policy", str(policy_file)])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    stories = [
        [e for e in CASES[name]() if "bystander" not in e.subject]
        for name in ("spike_stolen_key", "loop_runaway_agent")
    ]
    (folder / "events.jsonl").write_bytes(as_lines(in_order(*stories)))
    labels = [
        {"identity": "key_spike", "attack": "theft", "start": at(7 * HOUR), "end": at(7 * HOUR + 180),
         "response": "throttle", "accept": ["spike"]},
        {"identity": "agent_loop", "attack": "loop", "start": at(2 * HOUR), "end": at(2 * HOUR + 90),
         "response": "suspend", "accept": ["loop"]},
    ]  # fmt: skip
    (folder / "labels.jsonl").write_text("".join(json.dumps(label) + "\n" for label in labels))
    return folder


@pytest.fixture
def deaf(policy_file: Path, tmp_path: Path) -> Path:
    """A policy that hears no loop."""
    path = tmp_path / "deaf.toml"
    text = re.sub(r"(?m)^(block_)?repeats = [\d.]+", r"\1repeats = 5000.0", policy_file.read_text())
    path.write_text(text)
    return path


def test_it_scores_and_writes(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    result = cli(corpus, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["against"] is None
    score = said["policy"]["score"]
    assert (score["attacks"], score["seen"], score["named"], score["contained"]) == (2, 1.0, 1.0, 1.0)
    assert said["policy"]["by_attack"].keys() == {"theft", "loop"}
    assert {"spike", "loop"} <= said["policy"]["by_kind"].keys()
    assert json.loads((tmp_path / "out" / "backtest.json").read_text()) == said
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["incidents"] == 2
    drawing = ET.parse(tmp_path / "out" / "backtest.svg").getroot()
    assert {"spike", "loop"} <= {element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")}


def test_two_policies_side_by_side(cli: Cli, corpus: Path, deaf: Path, tmp_path: Path) -> None:
    said = json.loads(cli(corpus, "--against", deaf, "--out", tmp_path / "out", "--json").stdout)
    assert said["against"]["score"]["seen"] == 0.5
    found: dict[Any, Any] = {(d["of"], d["measure"]): d for d in said["differences"]}
    seen = found["all", "seen"]
    assert (seen["policy"], seen["against"], seen["better"]) == (1.0, 0.5, False)
    assert found["attack loop", "cost_lost_share"]["better"] is False
    assert ("attack theft", "seen") not in found
    assert json.loads((tmp_path / "out" / "against" / "summary.json").read_text())["incidents"] == 1
    shown = cli(corpus, "--against", deaf).stdout
    assert re.search(r"attacks seen +100\.0% +50\.0% +worse", shown)
    assert re.search(r"(?m)^loop .*100\.0% → 0\.0%", shown)


def test_a_policy_differs_in_nothing_from_itself(cli: Cli, corpus: Path, policy_file: Path) -> None:
    assert json.loads(cli(corpus, "--against", policy_file, "--json").stdout)["differences"] == []


def test_shadow_needs_no_labels(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    one = cli("--shadow", corpus / "events.jsonl", "--json", "--out", tmp_path / "out")
    said = json.loads(one.stdout)
    assert {cut["identity"] for cut in said["cuts"]} == {"key_spike", "agent_loop"}
    assert said["cut_off_share"] == 1.0
    assert (tmp_path / "out" / "incidents.jsonl").read_text()
    assert json.loads(cli("--shadow", corpus, "--json").stdout) == said
    shown = cli("--shadow", corpus).stdout
    assert "2 identities (100.00%) would have been cut off" in shown
    assert "acme/key_spike" in shown


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["none"], "none: no such folder"),
        (["--shadow", "none.jsonl"], "none.jsonl: No such file or directory"),
        (["--shadow", "none.jsonl", "--against", "x"], "--shadow and --against: one or the other"),
        (["none", "--against", "x.toml"], "x.toml: No such file"),
    ],
)
def test_mistakes_are_one_line(
    cli: Cli, given: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli(*given)
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert line.startswith(f"tripswitch: {said}")


def test_differences_know_what_is_better(cli: Cli, corpus: Path) -> None:
    import msgspec

    from streams.backtest.run import Result

    ours = msgspec.convert(json.loads(cli(corpus, "--json").stdout)["policy"], Result)
    score = msgspec.structs.replace(ours.score, false_blocks=1, blocked_look_alikes={"launch": 1}, events=1)
    other = msgspec.structs.replace(ours, score=score)
    found = {(d.measure, d.better) for d in differences(ours, other)}
    assert found == {("false_blocks", False), ("blocked_look_alikes launch", False), ("events", None)}

"""The user's mistakes end in one line that says what, where and what to do, and in exit code 2."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_traffic import CASES, Traffic
from typer.testing import CliRunner, Result

from streams.cli import app

Cli = Callable[..., Result]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working directory, and nothing set in the environment."""
    for name in list(os.environ):
        if name.startswith(("KAFKA_", "CLICKHOUSE_", "SLACK_", "TRIPSWITCH_")):
            monkeypatch.delenv(name)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture
def cli() -> Cli:
    runner = CliRunner()
    return lambda *arguments, **options: runner.invoke(app, [str(argument) for argument in arguments], **options)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address of this machine at which nobody listens while the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def mistake(result: Result) -> str:
    """The one line of an answer to a user's mistake."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("tripswitch: ")
    return line.removeprefix("tripswitch: ")


def test_a_replay_says_what_it_found(cli: Cli, events_file: Callable[..., str], tmp_path: Path) -> None:
    result = cli("replay", events_file(CASES["loop_runaway_agent"]()), "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "290 events of 2 identities" in result.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["incidents"] == 1
    assert f"{summary['findings']} findings, 1 incidents, {summary['commands']} commands in {tmp_path}" in result.stdout
    assert result.stderr == ""


def test_a_replay_for_a_program(cli: Cli, events_file: Callable[..., str], tmp_path: Path) -> None:
    result = cli("replay", events_file(CASES["loop_runaway_agent"]()), "--out", tmp_path / "out", "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "summary.json").read_text())


def test_rejected_lines_are_shown_as_far_as_they_help(
    cli: Cli, events_file: Callable[..., str], tmp_path: Path
) -> None:
    events = events_file(b"{\n" * 8)
    result = cli("replay", events, "--out", tmp_path / "out")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith(f"{events}:1: rejected: ")
    assert lines[5] == f"{events}: 3 more lines rejected"


def test_standard_input_is_a_minus(cli: Cli, tmp_path: Path) -> None:
    from made_traffic import as_lines

    traffic = Traffic()
    traffic.every(1.0, 0, 12)
    result = cli("replay", "-", "--out", tmp_path / "out", "--json", input=as_lines(traffic.events))
    assert json.loads(result.stdout)["events"] == 12


def test_events_that_are_not_there(cli: Cli, tmp_path: Path) -> None:
    assert mistake(cli("replay", "none.jsonl", "--out", tmp_path / "out")) == "none.jsonl: No such file or directory"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[spike]\nwarmup = 1\n", "policy.toml: "),
        ("x = [", "policy.toml: not TOML: "),
        (None, "policy.toml: No such file or directory; name a policy"),
    ],
)
def test_a_policy_that_cannot_be_used(
    cli: Cli, events_file: Callable[..., str], tmp_path: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "policy.toml"
    if text is not None:
        path.write_text(text)
    line = mistake(cli("replay", events_file(b""), "--out", tmp_path / "out", "--policy", path))
    assert said in line
    assert mistake(cli("policy", "check", path)) == line


@pytest.mark.parametrize(
    ("text", "said"), [('{"identities": 5}', "$.identities"), ("{", "truncated"), (None, "No such file or directory")]
)
def test_a_directory_that_cannot_be_read(
    cli: Cli, events_file: Callable[..., str], tmp_path: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "who.json"
    if text is not None:
        path.write_text(text)
    line = mistake(cli("replay", events_file(b""), "--out", tmp_path / "out", "--directory", path))
    assert line.startswith(f"{path}: ")
    assert said in line


def test_settings_that_cannot_be_used(cli: Cli, events_file: Callable[..., str], tmp_path: Path) -> None:
    Path("tripswitch.toml").write_text("[kafka]\nbootstap = 'x'\n")
    line = mistake(cli("replay", events_file(b""), "--out", tmp_path / "out"))
    assert "tripswitch.toml" in line
    assert "bootstap" in line


def test_an_output_folder_that_is_a_file(cli: Cli, events_file: Callable[..., str], tmp_path: Path) -> None:
    events = events_file(b"")
    assert mistake(cli("replay", events, "--out", events)).startswith(f"{events}: ")


@pytest.mark.parametrize("action", ["revoke", "suspend", "throttle", "restore"])
@pytest.mark.parametrize("target", ["acme", "/key_1", "acme/", "/", ""])
def test_a_target_that_names_no_identity(cli: Cli, action: str, target: str) -> None:
    line = mistake(cli(action, target, "--reason", "x"))
    assert line == f"{target!r}: name the identity as TENANT/SUBJECT, for example acme/key_7f3a"


def test_an_order_without_a_reason(cli: Cli) -> None:
    assert mistake(cli("revoke", "acme/key_1", "--reason", "  ")).startswith("--reason is empty")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--until", "soon"], "--until soon: no time like"),
        (["--until", "2026-11-27T20:00:00"], "--until 2026-11-27T20:00:00: say in which time zone"),
        (["--until", "2020-01-01T00:00:00Z"], "--until 2020-01-01T00:00:00Z: it would end before it begins"),
        (["--from", "2020-01-01T00:00:00Z", "--until", "4h"], "--until 4h: it is over"),
        (["--until", "4h", "--max-multiplier", "0"], "--max-multiplier is how many times"),
    ],
)
def test_an_approval_of_nothing(cli: Cli, more: list[str], says: str) -> None:
    given = more if "--max-multiplier" in more else [*more, "--max-multiplier", "20"]
    assert mistake(cli("approve", "acme/key_1", "--reason", "launch", *given)).startswith(says)


def test_an_approval_is_of_one_identity(cli: Cli) -> None:
    line = mistake(cli("approve", "acme/*", "--reason", "launch", "--until", "4h", "--max-multiplier", "20"))
    assert line == "'acme/*': an approval is of one identity"


def test_an_order_without_a_key(cli: Cli) -> None:
    line = mistake(cli("revoke", "acme/key_1", "--reason", "x"))
    assert line == "signing key tripswitch-signing.pem: No such file or directory; `tripswitch keys new` makes one"


def test_keys_are_made_once(cli: Cli) -> None:
    result = cli("keys", "new")
    assert result.exit_code == 0
    assert "kid " in result.stdout
    assert Path("tripswitch-signing.pem").stat().st_mode & 0o777 == 0o600
    before = Path("tripswitch-signing.pem").read_bytes()
    assert "never overwritten" in mistake(cli("keys", "new"))
    assert Path("tripswitch-signing.pem").read_bytes() == before
    assert "PRIVATE" not in result.output


def test_a_persons_key_is_made_beside_the_others(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "TRIPSWITCH_OPERATORS" in mistake(cli("keys", "new", "--person", "alice"))
    monkeypatch.setenv("TRIPSWITCH_OPERATORS", "people.json")
    cli("keys", "new")
    for name in ("alice", "bob"):
        result = cli("keys", "new", "--person", name)
        assert result.exit_code == 0
        assert Path(f"tripswitch-{name}.pem").stat().st_mode & 0o777 == 0o600
    assert "never overwritten" in mistake(cli("keys", "new", "--person", "alice"))
    told = json.loads(cli("keys", "list", "--json").stdout)
    assert [(key["for"], key["signs"]) for key in told["keys"]] == [
        ("commands", True), ("alice's orders", False), ("bob's orders", False),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["", " ", "a/b", '"'])
def test_a_person_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TRIPSWITCH_OPERATORS", "people.json")
    assert "name a person" in mistake(cli("keys", "new", "--person", name))


def test_a_break_glass_key_is_trusted_by_gateways(cli: Cli) -> None:
    assert "`tripswitch keys new`" in mistake(cli("keys", "new", "--break-glass"))
    cli("keys", "new")
    before = json.loads(cli("keys", "list", "--json").stdout)["jwks_sha256"]
    assert "off line" in cli("keys", "new", "--break-glass", "--key", "vault.pem").stdout
    told = json.loads(cli("keys", "list", "--json").stdout)
    assert [key["for"] for key in told["keys"]] == ["commands", "break-glass"]
    assert told["jwks_sha256"] != before
    assert mistake(cli("keys", "new", "--break-glass", "--person", "a")).startswith("a person's key gives orders")


def test_a_key_that_signs_is_not_retired(cli: Cli) -> None:
    cli("keys", "new")
    [key] = json.loads(cli("keys", "list", "--json").stdout)["keys"]
    assert "signs commands now" in mistake(cli("keys", "retire", key["kid"]))
    assert "no such key" in mistake(cli("keys", "retire", "nobody"))


def test_past_decide_takes_a_key_that_gateways_know_for_that(cli: Cli) -> None:
    cli("keys", "new")
    words = ("killswitch", "break-glass", "revoke", "acme/key_1", "--reason", "x", "--key", "tripswitch-signing.pem")
    assert "gateways know no break-glass key" in mistake(cli(*words))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["acme/s1", "--scope", "session"], "--scope session needs --identity"),
        (["acme/*", "--scope", "credential"], "the whole tenant is acme/*"),
        (["acme/globex", "--scope", "tenant"], "the whole tenant is acme/*"),
    ],
)
def test_a_scope_that_cannot_be_meant(cli: Cli, words: list[str], said: str) -> None:
    assert said in mistake(cli("revoke", *words, "--reason", "x"))


def test_a_policy_is_checked_and_shown(cli: Cli, policy_file: Path) -> None:
    from streams.policy import read_policy

    version = read_policy(policy_file).version
    assert cli("policy", "check", policy_file).stdout == f"{policy_file}: valid, version {version}\n"
    shown: dict[str, Any] = json.loads(cli("policy", "show", policy_file).stdout)
    assert shown["version"] == version
    assert {"spike", "loop", "geo_shift", "risk", "response"} <= set(shown["policy"])


def test_a_section_of_the_policy_is_shown_as_it_is_written(cli: Cli, policy_file: Path) -> None:
    shown = cli("policy", "show", policy_file, "--section", "risk").stdout
    assert shown.startswith("[risk]")
    assert "\n[risk.points]\n" in shown
    assert "# an incident opens" in shown
    assert "[response]" not in shown
    one = cli("policy", "show", policy_file, "--section", "response.mode").stdout.splitlines()
    assert one[0] == "[response]"
    assert one[1].startswith('mode = "enforce"')
    said = json.loads(cli("policy", "show", policy_file, "--section", "risk.points", "--json").stdout)
    assert said["policy"].keys() == {"info", "low", "medium", "high", "critical"}


@pytest.mark.parametrize(
    ("section", "near"),
    [("rsik", "risk"), ("response.blok_risk", "response.block_risk"), ("spike.raito", "spike.interactive.ratio")],
)
def test_a_section_that_there_is_not(cli: Cli, policy_file: Path, section: str, near: str) -> None:
    line = mistake(cli("policy", "show", policy_file, "--section", section))
    assert line == f"{policy_file}: {section}: no such key; did you mean {near!r}?"


def _shell(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    code = "from streams.cli import main; main()"
    variables = os.environ | environment | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_broker_that_is_not_there(nobody: str) -> None:
    """From outside, because the Kafka client would write into the process's own standard error."""
    started = [_shell("init", KAFKA_BOOTSTRAP=nobody), _shell("run", "detect", KAFKA_BOOTSTRAP=nobody)]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2
        [line] = errors.splitlines()
        assert line.startswith(f"tripswitch: no Kafka broker answers at {nobody}: ")
        assert line.endswith("start it, or correct KAFKA_BOOTSTRAP")


@pytest.mark.parametrize("arguments", [["run", "dance"], ["dance"], ["replay"]], ids=" ".join)
def test_an_unknown_app_or_command_is_the_users_mistake(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr

"""The message: golden files, Slack's limits, and names that try to be more than names."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.incident import Incident
from sinks.slack.fake import block_faults, render_text
from sinks.slack.message import incident_message, standing, thread_reply
from sinks.slack.text import escape, money, shell_word

GOLDEN = Path(__file__).parents[2] / "golden" / "slack"
CASES: dict[str, dict[str, Any]] = {
    "alert": {"response": "alert", "command_ids": []},
    "throttled": {"response": "throttle", "severity": "high"},
    "contained": {"raised": ["2026-03-02T00:05:42.000Z"], "updated": "2026-03-02T00:05:42.000Z"},
    "closed": {
        "state": "closed",
        "closed": "2026-03-02T01:05:42.000Z",
        "updated": "2026-03-02T01:05:42.000Z",
        "response": "revoke",
        "command_ids": [f"cmd_{number}" for number in range(5)],
    },
    "tenant": {"identity": None, "kinds": ["tenant_spike"], "response": "alert", "command_ids": []},
    "hostile": {
        "tenant": "-<!channel>",
        "identity": "<@U123>`*x*`\n<https://evil.example|click> & co",
        "headline": "<!here> *model* <#C1|general> & `sh`\u202e",
    },
}


def changes(text: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({
        "tenant": text,
        "identity": st.none() | text,
        "headline": text,
        "incident_id": text,
        "command_ids": st.lists(text, max_size=30),
        "kinds": st.lists(st.sampled_from(["spike", "loop", "geo_shift", "quota"]), max_size=12),
        "response": st.sampled_from(["alert", "throttle", "downgrade", "suspend", "revoke"]),
        "severity": st.sampled_from(["info", "low", "medium", "high", "critical"]),
        "usd_per_minute": st.floats(0, 1e12),
        "baseline_usd_per_minute": st.floats(0, 1e12),
        "closed": st.none() | st.just("2026-03-02T01:05:42.000Z"),
        "state": st.sampled_from(["open", "closed"]),
        "raised": st.lists(st.just("2026-03-02T01:05:42.000Z"), max_size=3),
    })  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, incident: Callable[..., Incident]) -> None:
    message = incident_message(incident(**CASES[case]))
    assert message == json.loads((GOLDEN / f"{case}.json").read_text())
    assert block_faults(message) == []


@settings(deadline=None)
@given(changes(st.text() | st.text(alphabet="&<>`*\\'\n!@#", min_size=100) | st.sampled_from(["&" * 5000, "x" * 5000])))
def test_stays_within_slacks_limits_and_mentions_nobody(changed: dict[str, Any]) -> None:
    incident = replace(_plain(), **changed)
    for message in (incident_message(incident), thread_reply(incident)):
        assert block_faults(message) == []
        assert len(message["text"]) <= 3000
        written = json.dumps(message, ensure_ascii=False)
        dates = written.count("<!date^")
        assert written.count("<") == dates
        assert written.count(">") == dates
        for text in _mrkdwn(message):
            assert text["verbatim"]


@pytest.mark.parametrize("char", ["`", "*", "_", "~", "<", "&", "\n", "\u202e"])
def test_no_name_leaves_its_code_span(char: str, incident: Callable[..., Incident]) -> None:
    message = incident_message(incident(identity=f"A{char}b", tenant=f"T{char}d", incident_id=f"J{char}f"))
    for text in _mrkdwn(message):
        outside = "".join(text["text"].split("`")[::2])
        assert text["text"].count("`") % 2 == 0
        for name in "ATJ":
            assert f"{name}{char}" not in outside
        assert "\u202e" not in text["text"]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_shell_word_is_one_inert_word(name: str) -> None:
    word = shell_word(name)
    assert "`" not in word
    assert word.isprintable()
    if not word.startswith("$'"):
        assert shlex.split(word) == [name]


def test_the_command_can_be_pasted(incident: Callable[..., Incident]) -> None:
    shown = render_text(incident_message(incident(identity="svc; rm -rf $HOME & 'x'")))
    line = next(line for line in shown.splitlines() if "tripswitch restore" in line)
    typed = shlex.split(line.partition(": ")[2])
    assert typed == ["tripswitch", "restore", "acme/svc; rm -rf $HOME & 'x'", "--reason", "…"]


def test_a_tenant_that_begins_with_a_dash_is_no_option(incident: Callable[..., Incident]) -> None:
    assert 'tripswitch restore --reason "…" -- -/key_7f3a' in render_text(incident_message(incident(tenant="-")))


def test_a_name_too_long_to_copy_is_left_out_whole(incident: Callable[..., Incident]) -> None:
    shown = render_text(incident_message(incident(identity="k" * 1200)))
    assert "restore" not in shown


@pytest.mark.parametrize(
    ("response", "commands", "state", "expected"),
    [
        ("alert", [], "open", "open"),
        ("suspend", [], "open", "open"),
        ("throttle", ["c"], "open", "open"),
        ("suspend", ["c"], "open", "contained"),
        ("revoke", ["c"], "open", "contained"),
        ("revoke", ["c"], "closed", "closed"),
    ],
)
def test_standing(
    response: str, commands: list[str], state: str, expected: str, incident: Callable[..., Incident]
) -> None:
    assert standing(incident(response=response, command_ids=commands, state=state)) == expected


def test_what_was_given_back_is_not_shown_as_blocked(incident: Callable[..., Incident]) -> None:
    shown = render_text(incident_message(incident(in_force=None)))
    assert "OPEN · acme/key_7f3a · access given back · $69.12/min" in shown
    assert "tripswitch suspend acme/key_7f3a" in shown
    assert "tripswitch restore" not in shown


def test_a_response_without_a_command_is_not_told_as_done(incident: Callable[..., Incident]) -> None:
    shown = render_text(incident_message(incident(command_ids=[])))
    assert "OPEN · acme/key_7f3a · not blocked" in shown
    assert "nothing is blocked. The policy asks to suspend; no command was sent." in shown


def test_escape_never_cuts_an_entity() -> None:
    assert escape("a&b", 10) == "a&amp;b"
    assert escape("ab&&", 8) == "ab&amp;…"
    assert escape("ab\ncd") == "ab�cd"


@pytest.mark.parametrize(
    ("usd", "shown"), [(0, "$0.00"), (0.0004, "under $0.01"), (0.4, "$0.40"), (69.12, "$69.12"), (1234.5, "$1,234")]
)
def test_money(usd: float, shown: str) -> None:
    assert money(usd) == shown


def _plain() -> Incident:
    return Incident(
        "i", "t", "k", "2026-03-02T00:01:32.844Z", "2026-03-02T00:01:40.000Z", None, "open", ["loop"], 1.0, "low",
        1.0, 0.0, "h", "suspend", [], [],
    )  # fmt: skip


def _mrkdwn(message: dict[str, Any]) -> list[dict[str, Any]]:
    texts: list[dict[str, Any]] = []
    for block in message["blocks"]:
        texts += [block["text"]] if "text" in block else []
        texts += block.get("fields", []) + block.get("elements", [])
    return [text for text in texts if text["type"] == "mrkdwn"]

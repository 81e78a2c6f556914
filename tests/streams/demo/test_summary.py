"""The page at the end."""

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from streams.demo.board import Answer, Board, Denial, Suspect
from streams.demo.questions import QUESTIONS, Answered
from streams.demo.story import ATTACKS
from streams.demo.summary import as_json, show

T = 1_800_000_000.0


@pytest.fixture
def played() -> Any:
    board = Board([Suspect(attack, "acme", 3, 1000) for attack in ATTACKS], lambda text, style: None)
    for attack in ATTACKS[:2]:
        board.call(attack.identity, attack.name, Answer(T, T, 200, 10, 0.5))
        denial = Denial(403, "suspend", "why", "inc", "cmd")
        board.call(attack.identity, attack.name, Answer(T, T + 1.2345, 403, denial=denial))
    answers = [Answered(question, columns, [("x",) * len(columns)]) for question, columns, _ in QUESTIONS]
    return SimpleNamespace(
        board=board, rows=4, answers=answers, seconds=60.0, seconds_of_events=2.0, slack_messages=2, identities=113
    )


def test_a_missed_attack_is_null(played: Any) -> None:
    said = json.loads(as_json(played))
    assert said["seconds_to_denial"] == {"spike": 1.234, "theft": 1.234, "loop": None} or said["seconds_to_denial"] == {
        "spike": 1.235, "theft": 1.235, "loop": None,
    }  # fmt: skip
    assert (said["events"], said["events_per_second"], said["restored"]) == (4, 2.0, False)


@pytest.mark.parametrize("width", [100, 160])
def test_the_page_has_everything_and_cuts_nothing_off(played: Any, width: int) -> None:
    out = io.StringIO()
    show(played, Console(file=out, width=width, force_terminal=False))
    page = out.getvalue()
    assert "\x1b" not in page
    assert "…" not in page
    for words in (
        "MISSED",
        "403 suspend",
        "1.2 s",
        "$0.50",
        "What to try next",
        *(attack.identity for attack in ATTACKS),
    ):
        assert words in page
    for question, _, _ in QUESTIONS:
        assert question in " ".join(page.split())

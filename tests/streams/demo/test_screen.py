"""What is shown, without a terminal."""

import io
import time

import pytest
from rich.console import Console

from streams.demo.board import Answer, Board, Denial, Suspect
from streams.demo.screen import Plain, Screen, detail, headline, rates, sparkline
from streams.demo.story import ATTACKS

T = 1_800_000_000.0
REFUSED = Denial(403, "revoke", "why it was", "inc-1", "cmd-1")


@pytest.fixture
def board() -> Board:
    return Board([Suspect(attack, "acme", 3, 1000) for attack in ATTACKS], lambda text, style: None)


def test_a_sparkline_is_scaled_to_the_greatest() -> None:
    assert sparkline([0, 1, 50, 100], 0.0) == " ▁▄█"
    assert sparkline([0, 50], 200.0) == " ▂"
    assert sparkline([0.0, 0.0], 0.0) == "  "


def test_rates_have_a_cell_for_each_two_seconds(board: Board) -> None:
    suspect = board.suspects["loop"]
    for second, tokens in ((0, 10), (1, 20), (2, 5)):
        board.call(suspect.attack.identity, None, Answer(T + second, T + second, 200, tokens))
    assert rates(suspect, T + 4, 3) == [0, 900, 150]


def test_each_state_has_its_words(board: Board) -> None:
    suspect = board.suspects["theft"]
    assert headline(suspect) == "quiet"
    assert "acme" in detail(suspect)
    board.call(suspect.attack.identity, "theft", Answer(T, T, 200, 10, 0.1))
    assert headline(suspect) == f"ATTACK: {suspect.attack.title}"
    board.call(suspect.attack.identity, "theft", Answer(T + 2, T + 2, 403, denial=REFUSED))
    assert headline(suspect) == "DENIED, 403, in 2.0 s"
    assert "why it was" in detail(suspect)
    suspect.restored_at = T + 5
    assert headline(suspect) == "RESTORED"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (160, 45)])
def test_the_screen_fits_the_terminal(board: Board, width: int, height: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system=None)
    screen = Screen(console)
    for number in range(40):
        screen.tell(f"step {number} " + "x" * 200, "bold")
    screen.phase("live")
    screen.slack("OPEN · acme/key\nline", updated=True)
    console.print(screen.draw(board, time.time()))
    lines = out.getvalue().splitlines()
    assert len(lines) == height
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    for attack in ATTACKS:
        assert attack.identity in text
    for word in ("step 39", "OPEN · acme/key", "live", "bystanders denied"):
        assert word in text


def test_plain_lines_have_no_control_codes_and_a_slack_message_is_told_when_its_heading_changes() -> None:
    lines: list[str] = []
    plain = Plain(lines.append)
    plain.phase("live")
    plain.tell("DENIED", "bold green")
    plain.slack("OPEN\nline", updated=False)
    plain.slack("OPEN\nanother line", updated=True)
    plain.slack("CONTAINED", updated=True)
    told = [line.split(" s  ", 1)[1] for line in lines]
    assert told == ["-- live", "DENIED", "Slack │ OPEN", "      │ line", "Slack │ CONTAINED (edited)"]
    assert not any("\x1b" in line for line in lines)

"""The sample, moved to now."""

import gzip
import json
from pathlib import Path

import pytest

from schemas.directory import Directory
from schemas.times import format_millis, parse_millis
from streams.demo.history import SAMPLE, History, busiest_minute, read_history
from streams.demo.story import ATTACKS, PRICES
from streams.policy import Loaded
from streams.replay import replay

NOW = parse_millis("2026-11-21T12:00:00.000Z")


@pytest.fixture(scope="module")
def history() -> History:
    return read_history()


def _line(subject: str, at: int, *, status: int = 200, tokens: int = 10) -> bytes:
    data = {"model": "m", "status": status, "tenant": "acme", "input_tokens": tokens, "output_tokens": 1}
    event = {"specversion": "1.0", "type": "llm.usage.v1", "id": f"{subject}{at}", "source": "gateway/x"}
    return json.dumps(event | {"subject": subject, "time": format_millis(at), "data": data}).encode()


def test_the_past_ends_at_the_moment_asked_for_and_keeps_its_gaps() -> None:
    moved = list(History([_line("a", 1_000_000), _line("b", 1_060_500)]).until(NOW))
    assert [key for key, _ in moved] == [b"a", b"b"]
    times = [parse_millis(json.loads(value)["time"]) for _, value in moved]
    assert times == [NOW - 60_500, NOW]
    before = json.loads(_line("a", 1_000_000))
    assert json.loads(moved[0][1]) == before | {"time": format_millis(NOW - 60_500)}


def test_only_answered_calls_are_taken_as_a_model() -> None:
    past = History([_line("a", 0), _line("a", 10, status=429)]).pasts["a"]
    assert [call.data.status for call in past.calls] == [200]
    assert (past.tenant, past.busiest, past.busiest_tokens) == ("acme", 2, 22)


@pytest.mark.parametrize(
    ("used", "most"),
    [
        ([], (0, 0)),
        ([(0, 5)], (1, 5)),
        ([(0, 5), (59_999, 6)], (2, 11)),
        ([(0, 5), (60_000, 6)], (1, 6)),
        ([(0, 100), (70_000, 1), (80_000, 1)], (2, 100)),
    ],
)
def test_the_busiest_minute(used: list[tuple[int, int]], most: tuple[int, int]) -> None:
    assert busiest_minute(used) == most


def test_the_attacked_have_enough_of_a_past(history: History) -> None:
    assert len(history) > 20_000
    for attack in ATTACKS:
        past = history.pasts[attack.identity]
        assert len(past.calls) >= 40
        assert len({call.time.hour for call in past.calls}) >= 6
        assert len({(call.data.country, call.data.asn) for call in past.calls}) == 1


def test_every_model_has_a_price_and_it_is_the_samples(history: History) -> None:
    for past in history.pasts.values():
        for call in past.calls:
            said, price = call.data, PRICES[call.data.model]
            assert said.input_tokens is not None
            assert said.output_tokens is not None
            usd = (said.input_tokens * price[0] + said.output_tokens * price[1]) / 1e6
            assert said.cost_usd == pytest.approx(usd, abs=5e-5)  # made from tokens that were not whole


def test_nothing_is_found_in_the_sample(policy: Loaded, tmp_path: Path) -> None:
    summary = replay(str(SAMPLE), tmp_path, policy, Directory(), partitions=4)
    assert (summary.incidents, summary.commands, summary.rejected, summary.duplicates) == (0, 0, 0, 0)
    findings = map(json.loads, (tmp_path / "findings.jsonl").read_text().splitlines())
    assert {finding["severity"] for finding in findings} <= {"info", "low"}


def test_the_sample_is_small_and_says_where_it_comes_from() -> None:
    assert SAMPLE.stat().st_size < 1_500_000
    said = (SAMPLE.parent / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for name in ("Azure", "CC-BY 4.0", "Splitwise", "Mooncake", "Apache-2.0"):
        assert name in said
    with gzip.open(SAMPLE) as file:
        assert f"{sum(1 for _ in file):,} usage events" in said

"""Quotas in the directory: what can be said, and what is refused with its place."""

from pathlib import Path

import pytest

from schemas.directory import Directory, DirectoryError, Entry, Tenant, read_directory
from schemas.quota import MOST, Limit, Quota, limits_of, start_of, used, window_of
from schemas.times import parse_millis

TOML = """
[tenants.acme]
quotas = [{per = "month", usd = 5000.0}]

[identities.key_1]
quotas = [{per = "day", usd = 50.0, requests = 10000}, {per = "minute", tokens = 200000}]
"""
JSON = """{"tenants": {"acme": {"quotas": [{"per": "month", "usd": 5000}]}}, "identities": {"key_1": {"quotas":
 [{"per": "day", "usd": 50, "requests": 10000}, {"per": "minute", "tokens": 200000}]}}}"""

SEVEN = """[{per = "day", usd = 1, tokens = 1, requests = 1}, {per = "hour", usd = 1, tokens = 1, requests = 1},
 {per = "minute", usd = 1}]"""


@pytest.mark.parametrize(("name", "text"), [("d.toml", TOML), ("d.json", JSON)])
def test_quotas_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    directory = read_directory(tmp_path / name)
    assert directory == Directory(
        {"key_1": Entry(quotas=[Quota("day", usd=50.0, requests=10000.0), Quota("minute", tokens=200000.0)])},
        {"acme": Tenant([Quota("month", usd=5000.0)])},
    )


@pytest.mark.parametrize(
    ("quotas", "message"),
    [
        ('[{per = "day"}]', r"give `tokens`, `requests` or `usd` - at `\$\.identities\[\.\.\.\]\.quotas\[0\]`"),
        ('[{per = "day", usd = -1.0}]', r"> 0.0 - at `\$\.identities\[\.\.\.\]\.quotas\[0\]\.usd`"),
        ('[{per = "day", usd = 0.0}]', "> 0.0"),
        ('[{per = "day", usd = inf}]', "<= 1"),
        ('[{per = "day", usd = nan}]', "> 0.0"),
        ('[{per = "week", usd = 1.0}]', r"'week' - at `\$\.identities\[\.\.\.\]\.quotas\[0\]\.per`"),
        ("[{usd = 1.0}]", "missing required field `per`"),
        ('[{per = "day", eur = 1.0}]', "unknown field `eur`"),
        ('[{per = "day", usd = 1.0}, {per = "day", usd = 2.0}]', "two limits of usd per day"),
        (SEVEN, f"{MOST} limits at the most"),
    ],
)  # fmt: skip
def test_impossible_quotas_are_refused(tmp_path: Path, quotas: str, message: str) -> None:
    (tmp_path / "d.toml").write_text(f"[identities.key_1]\nquotas = {quotas}")
    with pytest.raises(DirectoryError, match=message):
        read_directory(tmp_path / "d.toml")


def test_a_tenants_quotas_are_checked_too(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text('[tenants.acme]\nquotas = [{per = "day", usd = 1.0}, {per = "day", usd = 2.0}]')
    with pytest.raises(DirectoryError, match="two limits of usd per day"):
        read_directory(tmp_path / "d.toml")


def test_limits_come_with_the_longest_time_first() -> None:
    of = limits_of([Quota("minute", requests=5.0), Quota("month", usd=9.0, tokens=1.0)])
    assert of == [Limit(3, 2, 9.0), Limit(3, 0, 1.0), Limit(0, 1, 5.0)]


@pytest.mark.parametrize(
    ("per", "last", "first"),
    [
        (0, "2026-03-31T23:58:59.999Z", "2026-03-31T23:59:00.000Z"),
        (1, "2026-03-31T22:59:59.999Z", "2026-03-31T23:00:00.000Z"),
        (2, "2026-03-30T23:59:59.999Z", "2026-03-31T00:00:00.000Z"),
        (3, "2026-02-28T23:59:59.999Z", "2026-03-01T00:00:00.000Z"),
        (3, "2027-12-31T23:59:59.999Z", "2028-01-01T00:00:00.000Z"),
    ],
)
def test_windows_begin_with_the_calendars(per: int, last: str, first: str) -> None:
    end, start = parse_millis(last), parse_millis(first)
    assert window_of(per, start) == window_of(per, end) + 1
    assert start_of(per, start) == start
    assert start_of(per, start + 59_999) == start
    assert start_of(per, end) < end


def test_how_much_is_used_is_said_in_its_unit() -> None:
    assert used(Limit(2, 2, 50.0), 50.125) == "$50.12 of $50.00 a day"
    assert used(Limit(0, 0, 200000.0), 250000.0) == "250,000 of 200,000 tokens a minute"

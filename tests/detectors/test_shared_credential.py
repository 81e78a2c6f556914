"""Credentials that several parties use, and parties that are one."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_traffic import BERLIN, DUBLIN, HOUR, LAGOS, Traffic, in_order

from detectors import Config
from schemas.finding import Finding

Found = Callable[..., list[Finding]]
NOW = 30 * HOUR
AGENT = "openai-python/2.8.1"


def place(number: int) -> dict[str, Any]:
    """One of many countries, with a network of its own."""
    return {"country": f"X{number}", "asn": 60_000 + number, "lat": None, "lon": None}


def settled(**common: Any) -> Traffic:
    """An identity that has called from Berlin for thirty hours."""
    traffic = Traffic(**(BERLIN | {"user_agent": AGENT} | common))
    traffic.quietly(30, per_hour=10)
    return traffic


def resold(traffic: Traffic, customers: int, seconds: float, start: float = NOW, calls: int = 60) -> None:
    for n in range(calls):
        traffic.call(start + n * seconds, **place(n % customers))


def test_resale_is_told_with_the_third_new_country(findings: Found, policy: Config) -> None:
    traffic = settled()
    resold(traffic, 5, 8.0)
    found = findings(traffic.events, "shared_credential")
    assert found[0].severity == "high"
    assert found[0].observed == policy.shared_credential.countries == 3
    assert found[0].evidence.cause is not None
    assert found[0].evidence.cause.id == traffic.events[-60 + 2].id
    assert "calls from 3 countries and 3 networks within 10 min that it never called from before" in found[0].reason
    assert "the last of them AS60002 in X2" in found[0].reason


def test_it_is_told_again_once_a_minute(findings: Found) -> None:
    traffic = settled()
    resold(traffic, 5, 8.0, calls=75)
    assert 8 <= len(findings(traffic.events, "shared_credential")) <= 10


def test_customers_between_the_owners_own_calls(findings: Found) -> None:
    traffic = settled()
    resold(traffic, 6, 20.0)
    traffic.every(7.0, NOW, NOW + 1200)
    found = findings(in_order(traffic.events), "shared_credential")
    assert found
    assert found[0].evidence.details["pattern"] == "countries"


def test_new_places_that_are_further_apart_are_no_resale(findings: Found, policy: Config) -> None:
    traffic = settled()
    minutes = policy.shared_credential.window_minutes
    resold(traffic, 6, (minutes / 2 + 0.1) * 60, calls=40)
    assert not findings(traffic.events, "shared_credential")


def test_networks_of_one_country_are_told_when_they_are_more(findings: Found, policy: Config) -> None:
    many = policy.shared_credential.networks
    few, all_of_them = settled(), settled()
    for n in range(30):
        few.call(NOW + n * 10.0, **(BERLIN | {"asn": 60_000 + n % (many - 1)}))
        all_of_them.call(NOW + n * 10.0, **(BERLIN | {"asn": 60_000 + n % many}))
    assert not findings(few.events, "shared_credential")
    found = findings(all_of_them.events, "shared_credential")
    assert {f.evidence.details["pattern"] for f in found} == {"networks"}
    assert found[0].severity == "medium"


def test_two_clients_at_once(findings: Found, policy: Config) -> None:
    traffic = settled()
    for n in range(10):
        traffic.call(NOW + n * 60.0, **(LAGOS | {"user_agent": "curl/8.10.1"} if n % 2 else {}))
    hint, found, *later = findings(traffic.events, "shared_credential")
    assert (hint.severity, hint.observed) == ("low", policy.shared_credential.alternations - 1)
    assert found.evidence.details["pattern"] == "clients"
    assert found.severity == "medium"
    assert found.observed == policy.shared_credential.alternations
    assert "AS37282 in NG" in found.reason
    assert "curl/8.10.1" in found.reason
    assert later[-1].severity == "high"
    assert later[-1].observed >= policy.shared_credential.high_alternations


def test_countries_whose_hashes_end_alike_are_two(findings: Found) -> None:
    """The hashes of FR and ID have their last eight bits in common."""
    traffic = settled(country="FR", asn=6830)
    for n in range(6):
        traffic.call(NOW + n * 60.0, **({"country": "ID", "asn": 24940, "user_agent": "curl/8.10.1"} if n % 2 else {}))
    assert findings(traffic.events, "shared_credential")[-1].severity == "medium"


def there_and_back(*calls: str) -> Traffic:
    """A call a minute, from home (h) or from elsewhere (e) with another client."""
    traffic = settled()
    for n, where in enumerate("".join(calls)):
        traffic.call(NOW + n * 60.0, **(LAGOS | {"user_agent": "curl/8.10.1"} if where == "e" else {}))
    return traffic


@pytest.mark.parametrize("calls", ["heehh", "hheeehh", "eehhe", "hehehe"])
def test_two_clients_that_both_work_are_told_by_two_jumps(findings: Found, calls: str) -> None:
    assert findings(there_and_back(calls).events, "shared_credential")[-1].severity == "medium"


@pytest.mark.parametrize("calls", ["hehhhhhh", "heeeeeeeee", "eeeeehhhhh", "heeh", "hhhhheh"])
def test_a_single_look_is_weak_evidence_at_the_most(findings: Found, calls: str) -> None:
    assert {f.severity for f in findings(there_and_back(calls).events, "shared_credential")} <= {"low"}


def test_whoever_takes_two_clients_behind_a_vpn_and_back_is_one(findings: Found) -> None:
    traffic = settled()
    for n in range(24):
        there = LAGOS if 8 <= n < 16 else {}
        traffic.call(NOW + n * 60.0, **(there | {"user_agent": (AGENT, "curl/8.10.1")[n // 2 % 2]}))
    assert {f.severity for f in findings(traffic.events, "shared_credential")} <= {"low"}


def test_new_places_one_after_the_other_are_no_two_clients(findings: Found) -> None:
    traffic = settled()
    for n in range(8):
        traffic.call(NOW + n * 150.0, **(place(n // 4) | {"user_agent": (AGENT, "curl/8.10.1")[n % 2]}))
    assert not findings(traffic.events, "shared_credential")


def test_two_new_places_in_turn_are_two_clients(findings: Found, policy: Config) -> None:
    """While the owner sleeps."""
    traffic = settled()
    # The second place is no jump yet: it may be the next that one tries.
    for n in range(policy.shared_credential.alternations + 2):
        traffic.call(NOW + n * 20.0, **(place(n % 2) | {"user_agent": ("curl/8.10.1", "okhttp/5.1.0")[n % 2]}))
    assert findings(traffic.events, "shared_credential")[-1].evidence.details["pattern"] == "clients"


@pytest.mark.parametrize(
    "there",
    [
        LAGOS,
        LAGOS | {"user_agent": None},
        BERLIN | {"asn": 21928, "user_agent": "curl/8.10.1"},
        DUBLIN | {"user_agent": "curl/8.10.1"},
        {"country": None, "asn": None, "user_agent": "curl/8.10.1"},
    ],
    ids=["one client", "no client named", "a phone's network", "another region of the same network", "no place"],
)
def test_what_is_no_second_client(findings: Found, there: dict[str, Any]) -> None:
    traffic = settled()
    for n in range(40):
        traffic.call(NOW + n * 60.0, **(there if n % 2 else {}))
    assert not findings(traffic.events, "shared_credential")


def test_a_second_client_long_after_the_first_is_none(findings: Found, policy: Config) -> None:
    traffic = settled()
    for n in range(20):
        at = NOW + n * (policy.shared_credential.window_minutes * 60 + 1)
        traffic.call(at, **(LAGOS | {"user_agent": "curl/8.10.1"} if n % 2 else {}))
    assert not findings(traffic.events, "shared_credential")


def test_a_look_from_elsewhere_now_and_then_is_no_second_client(findings: Found, policy: Config) -> None:
    """While the service at home never pauses."""
    traffic, pause = settled(), policy.shared_credential.window_minutes * 60 + 60
    traffic.every(60.0, NOW, NOW + 5 * HOUR)
    for n in range(int(5 * HOUR / pause)):
        traffic.call(NOW + n * pause + 30, **(LAGOS | {"user_agent": "curl/8.10.1"}))
    assert [f.severity for f in findings(in_order(traffic.events), "shared_credential")] == ["low"]


def test_many_addresses_of_one_network_are_one_place(findings: Found) -> None:
    """Autoscaling: more clients, another version of them, the same network."""
    traffic = settled()
    for n in range(200):
        traffic.call(NOW + n * 3.0, ip=f"3.5.{n}.1", user_agent=f"{AGENT}.{n % 5}")
    assert not findings(traffic.events, "shared_credential")


@pytest.mark.parametrize("places", [2, 3, 4])
def test_a_service_in_several_regions_from_its_first_day(findings: Found, places: int) -> None:
    traffic = Traffic(user_agent=AGENT)
    for n in range(2000):
        traffic.call(n * 60.0, **place(n % places), user_agent=f"region-{n % places}")
    assert not findings(traffic.events, "shared_credential")


def test_two_offices_that_are_known(findings: Found) -> None:
    """The second opens after a day; from the day after they work at the same time, each with its own client."""
    traffic = settled()
    traffic.every(600.0, NOW, NOW + 24 * HOUR, **LAGOS)
    for n in range(200):
        traffic.call(NOW + 25 * HOUR + n * 60.0, **(LAGOS | {"user_agent": "curl/8.10.1"} if n % 2 else {}))
    assert not findings(in_order(traffic.events), "shared_credential")


def test_an_identity_that_is_everywhere_has_no_new_places(findings: Found) -> None:
    traffic = Traffic(user_agent=AGENT)
    for n in range(400):
        traffic.call(n * 3.0, **place(n % 100))
    resold(traffic, 8, 8.0, start=2 * HOUR)
    assert not findings(traffic.events, "shared_credential")


def test_customers_do_not_become_known(findings: Found) -> None:
    traffic = settled()
    for day in range(3):
        resold(traffic, 5, 8.0, start=NOW + day * 23 * HOUR)
    times = [f.time[:10] for f in findings(in_order(traffic.events), "shared_credential")]
    assert len(set(times)) == 3


def test_where_one_has_not_been_for_a_month_is_new_again(findings: Found) -> None:
    day = 24 * HOUR
    traffic = Traffic(user_agent=AGENT, **BERLIN)
    for n in range(3 * 24):
        traffic.call(n * HOUR + 60, **place(n % 4))
    traffic.every(HOUR, 0, 50 * day)
    before, after = list(traffic.events), Traffic(user_agent=AGENT)
    resold(traffic, 4, 8.0, start=5 * day)
    assert not findings(in_order(traffic.events), "shared_credential")
    resold(after, 4, 8.0, start=50 * day + 60)
    assert findings(in_order(before, after.events), "shared_credential", close=False)


@given(
    moves=st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 2), st.integers(0, 3)), max_size=80),
)
def test_less_new_places_than_tell_and_one_client_are_never_told(
    findings: Found, moves: list[tuple[int, int, int]]
) -> None:
    """Home and two other places, however one goes between them."""
    traffic, at = settled(), NOW
    for seconds, where, _ in moves:
        at += seconds / 10
        traffic.call(at, **(place(where) if where else BERLIN))
    assert not findings(traffic.events, "shared_credential")


def test_whoever_is_back_at_once_is_weak_evidence(findings: Found) -> None:
    """The first call from elsewhere came after a pause, and the next one from home again."""
    traffic = settled()
    traffic.call(NOW + 3600, **(LAGOS | {"user_agent": "curl/8.10.1"}))
    traffic.call(NOW + 3700)
    [hint] = findings(traffic.events, "shared_credential")
    assert (hint.severity, hint.observed) == ("low", 1)
    assert "1 jump with no pause" in hint.reason

"""Machines that are suddenly somewhere else, and those that were moved."""

from collections.abc import Callable
from typing import Any

import pytest
from made_traffic import BERLIN, DUBLIN, HOUR, LAGOS, Traffic, in_order

from detectors import Config
from schemas.finding import Finding

Found = Callable[..., list[Finding]]
HOURS = 8.0
NOW = HOURS * HOUR


def settled(**common: Any) -> Traffic:
    """An identity that has called from Berlin for eight hours."""
    traffic = Traffic(**(BERLIN | common))
    traffic.quietly(HOURS, per_hour=20)
    return traffic


def test_a_new_network_in_a_new_country_is_told_once(findings: Found, policy: Config) -> None:
    traffic = settled()
    traffic.every(60.0, NOW, NOW + 1200, **LAGOS)
    [found] = findings(traffic.events, "geo_shift")
    assert found.observed == policy.geo_shift.calls_to_tell
    assert found.evidence.cause is not None
    assert found.evidence.cause.id == traffic.events[-20 + policy.geo_shift.calls_to_tell - 1].id
    assert found.evidence.details == {"country": "NG", "asn": 37282, "pattern": "place"}
    assert (found.severity, found.evidence.deterministic, found.evidence.extreme) == ("medium", False, False)


def test_fewer_calls_than_tell_are_not_told(findings: Found, policy: Config) -> None:
    traffic = settled()
    for n in range(policy.geo_shift.calls_to_tell - 1):
        traffic.call(NOW + n, **LAGOS)
    assert not findings(traffic.events, "geo_shift")


def test_travel_that_nothing_can_travel(findings: Found, policy: Config) -> None:
    traffic = settled()
    for n in range(20):
        traffic.call(NOW + n * 30.0, **(LAGOS if n % 2 else BERLIN))
    found = findings(traffic.events, "geo_shift")
    travel = [f for f in found if f.evidence.details["pattern"] == "travel"]
    assert len(travel) == 1
    assert travel[0].severity == "high"
    assert travel[0].observed >= policy.geo_shift.alternations


def test_travel_that_a_plane_can_travel_is_only_a_new_place(findings: Found) -> None:
    traffic = settled()
    for n in range(6):
        at = NOW + n * 9 * HOUR
        for call in range(4):
            traffic.call(at + call * 60, **(LAGOS if n % 2 else BERLIN))
    patterns = [f.evidence.details["pattern"] for f in findings(traffic.events, "geo_shift")]
    assert "travel" not in patterns


@pytest.mark.parametrize("accuracy", [0.0, 2000.0])
def test_distance_is_less_what_the_positions_may_be_wrong_by(findings: Found, accuracy: float) -> None:
    """Berlin to Dublin is 1,300 km; two positions that may each be 2,000 km off prove no travel."""
    traffic = settled(accuracy_km=accuracy)
    for n in range(20):
        traffic.call(NOW + n * 30.0, **((DUBLIN | {"asn": 3212} if n % 2 else BERLIN) | {"accuracy_km": accuracy}))
    patterns = [f.evidence.details["pattern"] for f in findings(traffic.events, "geo_shift")]
    assert patterns == (["place"] if accuracy else ["travel"])


@pytest.mark.parametrize(
    "place",
    [
        {**BERLIN, "asn": 3320},
        DUBLIN,
        {**BERLIN, "country": None},
        {**LAGOS, "asn": None},
        {**BERLIN, "city": "Potsdam"},
    ],
    ids=["new network, known country", "region failover", "no country", "no network", "another city"],
)
def test_what_is_no_new_place(findings: Found, place: dict[str, Any]) -> None:
    traffic = settled()
    traffic.every(30.0, NOW, NOW + 1800, **place)
    assert not findings(traffic.events, "geo_shift")


def test_an_identity_without_history_may_be_anywhere(findings: Found, policy: Config) -> None:
    traffic = Traffic()
    for n in range(policy.geo_shift.warm_up_calls - 1):
        traffic.call(n * 60.0, **(LAGOS if n % 2 else BERLIN))
    assert not findings(traffic.events, "geo_shift")


def test_calls_of_a_few_hours_are_no_history(findings: Found, policy: Config) -> None:
    traffic = Traffic(**BERLIN)
    hours = policy.geo_shift.warm_up_hours - 1
    traffic.every(30.0, 0, hours * HOUR - 60)
    traffic.every(30.0, hours * HOUR - 50, hours * HOUR - 1, **LAGOS)
    traffic.every(1.0, hours * HOUR - 20, hours * HOUR, **LAGOS)
    assert not findings(in_order(traffic.events), "geo_shift")


def test_events_that_cross_the_hour_out_of_order_make_no_history(findings: Found) -> None:
    """Two gateways' records interleave around one full hour: that is two distinct hours, not sixty."""
    traffic = Traffic(**BERLIN)
    for n in range(60):
        traffic.call(HOUR + (0.5 if n % 2 else -0.5) + n / 1000)
    traffic.every(1.0, HOUR + 5, HOUR + 25, **LAGOS)
    assert not findings(traffic.events, "geo_shift")


def test_a_place_is_trusted_after_a_day(findings: Found, policy: Config) -> None:
    traffic = settled()
    day = policy.geo_shift.trusted_after_hours * HOUR
    traffic.every(HOUR, NOW, NOW + day + 2 * HOUR, **LAGOS)
    traffic.every(60.0, NOW + day + 3 * HOUR, NOW + day + 4 * HOUR, **{**LAGOS, "asn": 29465})
    assert [f.evidence.details["asn"] for f in findings(traffic.events, "geo_shift")] == [37282]


def test_a_place_under_suspicion_vouches_for_nothing(findings: Found) -> None:
    traffic = settled()
    traffic.every(10.0, NOW, NOW + 60, **LAGOS)
    traffic.every(10.0, NOW + 60, NOW + 120, **{**LAGOS, "asn": 29465})
    assert [f.evidence.details["asn"] for f in findings(traffic.events, "geo_shift")] == [37282, 29465]


def test_many_new_places_do_not_push_out_where_it_always_was(findings: Found) -> None:
    traffic = settled()
    for n in range(30):
        traffic.call(NOW + n * 10.0, country=f"X{n}", asn=60_000 + n)
    traffic.every(10.0, NOW + 400, NOW + 600)
    found = findings(traffic.events, "geo_shift")
    assert not [f for f in found if f.evidence.details["country"] == "DE"]

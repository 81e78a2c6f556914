"""Machines that are suddenly somewhere else, and those that were moved."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from made_traffic import BERLIN, DUBLIN, HOUR, LAGOS, START_MS, Events, Traffic, in_order

from detectors import Config
from schemas.finding import Finding
from schemas.times import parse_millis

Found = Callable[..., list[Finding]]
HOURS = 26.0
NOW = HOURS * HOUR


def settled(**common: Any) -> Traffic:
    """An identity that has called from Berlin for a day and two hours."""
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
    assert found.evidence.details == {"country": "NG", "asn": 37282, "pattern": "place", "client": "known"}
    assert found.evidence.shared == "asn:37282/NG"
    assert "AS37282 in NG, a network and a country never seen in 520 calls over 26 h" in found.reason
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
    # Once, and again after five minutes.
    assert len(travel) == 2
    assert travel[0].severity == "high"
    assert travel[0].observed >= policy.geo_shift.alternations
    assert "within 6 min" in travel[1].reason


def test_who_hardly_has_a_history_is_weak_evidence_at_the_most(findings: Found) -> None:
    """Two calls from home, then two from abroad: nobody knows yet where it is at home."""
    traffic = Traffic(**BERLIN)
    traffic.call(0)
    traffic.call(HOUR)
    traffic.every(30.0, 2 * HOUR, 2 * HOUR + 300, **LAGOS)
    assert {f.severity for f in findings(traffic.events, "geo_shift")} <= {"low"}


def test_where_positions_are_unknown_nothing_travels(findings: Found) -> None:
    traffic = settled(lat=None, lon=None)
    for n in range(20):
        traffic.call(NOW + n * 60.0, **((LAGOS if n % 2 else BERLIN) | {"lat": None, "lon": None}))
    assert [f.evidence.details["pattern"] for f in findings(traffic.events, "geo_shift")] == ["place"]


def test_calls_under_way_when_an_identity_moves_are_no_travel(findings: Found) -> None:
    traffic = settled()
    for n in range(20):
        traffic.call(NOW + n, **(LAGOS if n % 2 else BERLIN))
    traffic.every(30.0, NOW + 20, NOW + 1800, **LAGOS)
    assert [f.severity for f in findings(traffic.events, "geo_shift")] == ["medium"]


def test_a_vpn_that_is_on_now_and_then_is_no_travel(findings: Found) -> None:
    traffic = settled()
    for n in range(6):
        start = NOW + n * 1.5 * HOUR
        traffic.every(60.0, start, start + 0.75 * HOUR, **(LAGOS if n % 2 else BERLIN))
    assert [f.severity for f in findings(in_order(traffic.events), "geo_shift")] == ["medium"]


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
    patterns = {f.evidence.details["pattern"] for f in findings(traffic.events, "geo_shift")}
    assert patterns == ({"place"} if accuracy else {"travel"})


ELSEWHERE = {**BERLIN, "asn": 3320, "user_agent": "curl/8"}


def test_a_new_network_with_a_new_client_is_somebody_else_wherever_he_is(findings: Found, policy: Config) -> None:
    traffic = settled(user_agent="openai-python/2.8.1")
    traffic.every(30.0, NOW, NOW + 1800, **ELSEWHERE)
    found, busy, *_ = findings(traffic.events, "geo_shift")
    assert (found.severity, busy.severity) == ("medium", "high")
    assert "a network with a client never seen" in found.reason
    assert busy.observed == policy.geo_shift.busy_calls


def test_a_busy_client_whose_network_and_country_are_new_too_is_a_stranger(findings: Found, policy: Config) -> None:
    traffic = settled(user_agent="openai-python/2.8.1")
    traffic.every(30.0, NOW, NOW + 1800, **LAGOS, user_agent="curl/8")
    place, stranger, *_ = findings(traffic.events, "geo_shift")
    assert (place.evidence.details["pattern"], stranger.evidence.details["pattern"]) == ("place", "stranger")
    assert stranger.observed == policy.geo_shift.busy_calls
    assert "a network, a country and a client never seen" in stranger.reason
    # Colleagues may have moved there, too; but not with new clients, all of them.
    assert place.evidence.shared
    assert stranger.evidence.shared is None


@pytest.mark.parametrize("there", [ELSEWHERE, LAGOS, DUBLIN | {"user_agent": "curl/8"}])
def test_who_is_new_in_part_is_no_stranger(findings: Found, there: dict[str, Any]) -> None:
    traffic = settled(user_agent="openai-python/2.8.1")
    traffic.every(30.0, NOW, NOW + 1800, **there)
    assert "stranger" not in {f.evidence.details["pattern"] for f in findings(traffic.events, "geo_shift")}


def test_while_a_stranger_stays_one_is_reminded(findings: Found, policy: Config) -> None:
    """What else is found hours later must not be taken for all there is."""
    traffic = settled(user_agent="openai-python/2.8.1")
    traffic.every(30.0, NOW, NOW + 2 * HOUR, **ELSEWHERE)
    reminders = [f for f in findings(traffic.events, "geo_shift") if f.evidence.details["pattern"] == "still"]
    assert {f.severity for f in reminders} == {"info"}
    assert all(f.observed % policy.geo_shift.busy_calls == 0 for f in reminders)
    times = [parse_millis(f.time) for f in reminders]
    assert all(b - a >= policy.geo_shift.remind_minutes * 60_000 for a, b in pairwise(times))
    assert len(times) >= 8


def test_a_stranger_who_stays_for_hours_is_no_news(findings: Found, policy: Config) -> None:
    traffic = settled(user_agent="openai-python/2.8.1")
    traffic.every(30.0, NOW, NOW + 9 * HOUR, **ELSEWHERE)
    last = parse_millis(findings(traffic.events, "geo_shift")[-1].time)
    hours = (last - START_MS - NOW * 1000) / HOUR / 1000
    assert policy.geo_shift.remind_hours - 0.5 <= hours <= policy.geo_shift.remind_hours


def test_nobody_is_reminded_of_a_known_client(findings: Found) -> None:
    traffic = settled()
    traffic.every(30.0, NOW, NOW + 2 * HOUR, **LAGOS)
    assert [f.evidence.details["pattern"] for f in findings(traffic.events, "geo_shift")] == ["place"]


def test_the_owner_s_next_call_shows_that_there_are_two(findings: Found, policy: Config) -> None:
    traffic = settled()
    traffic.call(NOW, **BERLIN)
    traffic.call(NOW + 60, **LAGOS)
    traffic.call(NOW + 120, **BERLIN)
    [found] = findings(traffic.events, "geo_shift")
    assert (found.severity, found.evidence.details["pattern"]) == ("high", "travel")
    assert found.observed == policy.geo_shift.alternations == 2
    assert found.evidence.details["asn"] == LAGOS["asn"]
    assert f"2 jumps between AS{LAGOS['asn']} and its usual place" in found.reason


def test_where_it_has_been_for_an_hour_it_may_have_moved(findings: Found) -> None:
    traffic = settled()
    traffic.every(300.0, NOW, NOW + 2 * HOUR, **LAGOS)
    traffic.call(NOW + 2 * HOUR + 60, **BERLIN)
    assert [f.evidence.details["pattern"] for f in findings(traffic.events, "geo_shift")] == ["place"]


def test_a_traveller_with_a_new_phone_is_not_busy(findings: Found) -> None:
    traffic = settled(user_agent="openai-python/2.8.1")
    traffic.every(600.0, NOW, NOW + 8 * HOUR, **LAGOS, user_agent="phone/1")
    assert {f.severity for f in findings(traffic.events, "geo_shift")} == {"medium", "info"}


def test_whoever_often_has_another_client_may_have_one_in_a_new_network(findings: Found) -> None:
    traffic = settled()
    for n in range(40):
        traffic.call(n * 700.0, user_agent=f"client/{n}", event_id=f"client-{n}")
    traffic.every(30.0, NOW, NOW + 1800, **ELSEWHERE)
    assert {f.severity for f in findings(in_order(traffic.events), "geo_shift")} == {"low", "info"}


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ({**BERLIN, "asn": 3320}, "a network never"),
        (DUBLIN, "a country never"),
    ],
    ids=["new network", "new country, known network"],
)
def test_half_of_a_new_place_is_weak_evidence(findings: Found, place: dict[str, Any], what: str) -> None:
    traffic = settled(user_agent="openai-python/2.8.1")
    traffic.every(30.0, NOW, NOW + 1800, **place)
    [found] = findings(traffic.events, "geo_shift")
    assert found.severity == "low"
    assert what in found.reason


@pytest.mark.parametrize(
    "place",
    [{**BERLIN, "country": None}, {**LAGOS, "asn": None}, {**BERLIN, "city": "Potsdam", "lat": 52.4}],
    ids=["no country", "no network", "another city"],
)
def test_what_is_no_new_place(findings: Found, place: dict[str, Any]) -> None:
    traffic = settled()
    traffic.every(30.0, NOW, NOW + 1800, **place)
    assert not findings(traffic.events, "geo_shift")


def test_two_known_halves_are_no_new_place(findings: Found) -> None:
    """A service in two regions of two clouds from its first calls on."""
    traffic = Traffic(**BERLIN)
    for n in range(200):
        traffic.call(n * 120.0, **(LAGOS if n % 2 else BERLIN))
    traffic.every(60.0, NOW, NOW + 600, **{**BERLIN, "asn": LAGOS["asn"]})
    assert not findings(traffic.events, "geo_shift")


def test_a_retry_is_no_second_call(findings: Found, policy: Config) -> None:
    traffic = settled()
    for n in range(10):
        traffic.call(NOW + n, attempt=n, status=503, **LAGOS)
    assert not findings(traffic.events, "geo_shift")
    traffic.every(1.0, NOW + 20, NOW + 20 + policy.geo_shift.calls_to_tell, **LAGOS)
    assert len(findings(traffic.events, "geo_shift")) == 1


def test_who_changes_networks_at_each_call_is_told(findings: Found) -> None:
    traffic = settled()
    for n in range(2):
        traffic.call(NOW + n * 5.0, country=f"X{n}", asn=60_000 + n)
    [found] = findings(traffic.events, "geo_shift")
    assert found.severity == "medium"
    assert found.reason.startswith("2 calls in 5 s from 2 such places, the last AS60001 in X1, ")


# -- an identity without much of a history ----------------------------------------------------------------------------


def neighbours(count: int, hours: float, **common: Any) -> list[Any]:
    """Identities that call from Berlin twice an hour."""
    events: list[Any] = []
    for n in range(count):
        traffic = Traffic(f"key_near_{n}", **(BERLIN | {"tenant": f"tenant-{n}"} | common))
        traffic.every(HOUR / 2, n, hours * HOUR)
        events += traffic.events
    return events


def test_an_identity_without_history_may_be_anywhere(findings: Found) -> None:
    traffic = Traffic()
    for n in range(40):
        traffic.call(n * 60.0, **(LAGOS if n % 2 else BERLIN))
    assert not findings(traffic.events, "geo_shift")


def test_calls_at_one_go_are_one_visit(findings: Found) -> None:
    """Be they ever so many: a second office is not told after one session in the first."""
    traffic = Traffic(**BERLIN)
    traffic.every(1.0, 0, 600)
    traffic.every(1.0, 700, 730, **LAGOS)
    assert not findings(traffic.events, "geo_shift")


def test_events_out_of_order_make_no_visits(findings: Found) -> None:
    traffic = Traffic(**BERLIN)
    for n in range(60):
        traffic.call(HOUR + (60 if n % 2 else 0) + n / 1000)
    traffic.every(1.0, HOUR + 65, HOUR + 85, **LAGOS)
    assert not findings(traffic.events, "geo_shift")


@pytest.mark.parametrize(("others", "severity"), [(0, "low"), (40, "medium")])
def test_a_country_from_which_nobody_calls_is_soon_told(findings: Found, others: int, severity: str) -> None:
    """After four visits of its own: the others' countries speak for an identity that has little of a past."""
    traffic = Traffic(**BERLIN)
    traffic.every(6 * HOUR, HOUR, 25 * HOUR)
    traffic.every(5.0, 25.5 * HOUR, 25.5 * HOUR + 20, **LAGOS)
    found = findings(in_order(traffic.events, neighbours(others, 26)), "geo_shift")
    assert [(f.identity, f.severity) for f in found] == [("key_1", severity)]


@pytest.mark.parametrize(("hours", "severity"), [(8.0, "low"), (23.0, "low"), (26.0, "medium")])
def test_on_its_first_day_nobody_knows_where_an_identity_is_at_night(
    findings: Found, hours: float, severity: str
) -> None:
    traffic = Traffic(**BERLIN)
    traffic.quietly(hours, per_hour=20)
    traffic.every(60.0, hours * HOUR, hours * HOUR + 1200, **LAGOS)
    assert [f.severity for f in findings(traffic.events, "geo_shift")] == [severity]


@pytest.mark.parametrize(("agent", "severity"), [("curl/8", "medium"), ("openai-python/2.8.1", "low")])
def test_a_new_country_with_a_new_client_is_somebody_else_in_whatever_network(
    findings: Found, agent: str, severity: str
) -> None:
    """A network that spans countries, as those of clouds and of VPNs do, says little."""
    traffic = settled(user_agent="openai-python/2.8.1")
    traffic.every(30.0, NOW, NOW + 300, **(LAGOS | {"asn": BERLIN["asn"], "user_agent": agent}))
    assert [f.severity for f in findings(traffic.events, "geo_shift")] == [severity]


def test_on_its_first_day_customers_in_turn_are_weak_evidence_too(findings: Found) -> None:
    """More new places than an identity's row has room for, each seen once before the next."""
    traffic = Traffic(**BERLIN)
    traffic.quietly(8, per_hour=20)
    for n in range(30):
        traffic.call(8 * HOUR + n * 8.0, **(LAGOS | {"country": f"X{n % 6}", "asn": 64_500 + n % 6}))
    assert {f.severity for f in findings(traffic.events, "geo_shift")} == {"low"}


@pytest.mark.parametrize("kind", ["geo_shift", "shared_credential"])
def test_strangers_who_name_an_identity_do_not_make_it_travel(findings: Found, kind: str) -> None:
    """A flood of calls that anybody may send under any name, and the owner at work as ever."""
    traffic = settled(user_agent="openai-python/2.8.1")
    forged = LAGOS | {"user_agent": "curl/8", "identity_trust": "request_body"}
    for n in range(60):
        traffic.call(NOW + n * 20.0, **(forged if n % 3 else {}))
    assert not findings(traffic.events, kind)


def test_a_country_from_which_many_call_takes_more_of_a_past(findings: Found) -> None:
    traffic = Traffic(**LAGOS)
    traffic.every(HOUR, HOUR, 5 * HOUR)
    traffic.every(5.0, 5.5 * HOUR, 5.5 * HOUR + 20, **BERLIN)
    found = findings(in_order(traffic.events, neighbours(40, 6)), "geo_shift")
    assert [f.severity for f in found if f.identity == "key_1"] == ["low"]


@pytest.mark.parametrize(("colleagues", "told"), [(1, True), (2, False)])
def test_where_colleagues_regularly_are_is_no_new_place(findings: Found, colleagues: int, told: bool) -> None:
    office = neighbours(colleagues, 9, tenant="acme", **LAGOS)
    traffic = settled()
    traffic.every(5.0, NOW + 10, NOW + 60, **LAGOS)
    found = findings(in_order(traffic.events, office), "geo_shift")
    assert bool(found) == told


OWN = {"user_agent": "nw-desk/1.12"}
THEIRS = {"user_agent": "okhttp/4.12.0"}


def where_colleagues_are(traffic: Traffic, client: dict[str, Any], calls: int = 20) -> Events:
    """Goes back and forth each minute between where it always is and where two colleagues are, with a client there."""
    for n in range(calls):
        traffic.call(NOW + n * 60.0, **(BERLIN if n % 2 else LAGOS | client))
    return in_order(traffic.events, neighbours(2, HOURS, tenant="acme", **LAGOS))


def test_two_clients_at_once_are_told_though_colleagues_vouch_for_the_place(findings: Found, policy: Config) -> None:
    first, *others = findings(where_colleagues_are(settled(**OWN), THEIRS), "geo_shift")
    assert (first.severity, first.evidence.details["pattern"]) == ("high", "travel")
    assert first.observed == policy.geo_shift.client_alternations > policy.geo_shift.alternations
    assert {f.evidence.details["pattern"] for f in others} == {"travel"}


@pytest.mark.parametrize("client", [OWN, {"user_agent": "phone/3"}], ids=["a VPN on and off", "phone and laptop"])
def test_clients_of_its_own_are_no_two(findings: Found, client: dict[str, Any]) -> None:
    traffic = settled(**OWN)
    traffic.call(20 * HOUR, event_id="phone at home", user_agent="phone/3")
    assert not findings(where_colleagues_are(traffic, client), "geo_shift")


def test_a_client_that_goes_home_too_is_no_second_one(findings: Found) -> None:
    """It was renewed while the VPN is on and off."""
    traffic = settled(**OWN)
    events = where_colleagues_are(traffic, THEIRS, calls=2)
    traffic.call(NOW + 70.0, **(BERLIN | THEIRS))
    for n in range(3, 20):
        traffic.call(NOW + n * 60.0, **((BERLIN if n % 2 else LAGOS) | THEIRS))
    assert not findings(in_order(events, traffic.events[-18:]), "geo_shift")


def test_one_more_client_of_many_is_no_second_one(findings: Found) -> None:
    traffic = settled(**OWN)
    for n in range(40):
        traffic.call(n * 700.0, user_agent=f"client/{n}", event_id=f"client-{n}")
    assert not findings(where_colleagues_are(traffic, THEIRS), "geo_shift")


def test_who_has_moved_to_colleagues_with_a_new_client_is_no_two(findings: Found) -> None:
    traffic = settled(**OWN)
    traffic.every(60.0, NOW, NOW + 6 * HOUR, **(LAGOS | THEIRS))
    traffic.call(NOW + 20.0, event_id="still under way", **BERLIN)
    assert not findings(in_order(traffic.events, neighbours(2, HOURS, tenant="acme", **LAGOS)), "geo_shift")


def test_who_is_under_suspicion_vouches_for_nobody(findings: Found) -> None:
    """Keys of one tenant that are stolen one after the other, and used from the same network."""
    stolen = [settled() if n == 0 else Traffic(f"key_{n + 1}", **BERLIN) for n in range(4)]
    for n, traffic in enumerate(stolen):
        if n:
            traffic.quietly(HOURS, seed=n, per_hour=20)
        traffic.every(30.0, NOW + n * 2 * HOUR, NOW + 8 * HOUR, **LAGOS)
    found = findings(in_order(*(traffic.events for traffic in stolen)), "geo_shift")
    assert sorted(f.identity for f in found if f.severity == "medium") == ["key_1", "key_2", "key_3", "key_4"]


# -- suspicion and trust ----------------------------------------------------------------------------------------------


def test_a_place_is_trusted_after_a_day(findings: Found, policy: Config) -> None:
    traffic = settled()
    day = policy.geo_shift.trusted_after_hours * HOUR
    traffic.every(HOUR, NOW, NOW + day + 2 * HOUR, **LAGOS)
    traffic.every(60.0, NOW + day + 3 * HOUR, NOW + day + 4 * HOUR, **{**LAGOS, "asn": 29465})
    found = [(f.evidence.details["asn"], f.severity) for f in findings(traffic.events, "geo_shift")]
    assert found == [(37282, "medium"), (29465, "low")]


def test_what_travels_impossibly_is_not_trusted_for_staying(findings: Found, policy: Config) -> None:
    traffic = settled()
    for n in range(int((policy.geo_shift.trusted_after_hours + 2) * 60)):
        traffic.call(NOW + n * 60.0, **(LAGOS if n % 2 else BERLIN))
    traffic.every(60.0, traffic_end := NOW + 27 * HOUR, traffic_end + HOUR, **{**LAGOS, "country": "GH"})
    found = [
        (f.evidence.details["country"], f.evidence.details["pattern"]) for f in findings(traffic.events, "geo_shift")
    ]
    # First by the owner's call, whose country is not the one in question.
    assert list(dict.fromkeys(found)) == [("", "travel"), ("NG", "travel"), ("GH", "place")]


def test_a_place_under_suspicion_vouches_for_nothing(findings: Found) -> None:
    """Neither for its network nor for its country; but that the country is new is told once."""
    traffic = settled()
    traffic.every(10.0, NOW, NOW + 60, **LAGOS)
    traffic.every(10.0, NOW + 60, NOW + 180, **{**LAGOS, "asn": 29465})
    traffic.every(10.0, NOW + 180, NOW + 300, **{**LAGOS, "country": "GH"})
    found = [
        (f.evidence.details["country"], f.evidence.details["asn"], f.severity)
        for f in findings(traffic.events, "geo_shift")
    ]
    assert found == [("NG", 37282, "medium"), ("NG", 29465, "low"), ("GH", 37282, "medium")]


def test_many_new_places_do_not_push_out_where_it_always_was(findings: Found) -> None:
    traffic = settled()
    for n in range(30):
        traffic.call(NOW + n * 10.0, country=f"X{n}", asn=60_000 + n)
    traffic.every(10.0, NOW + 400, NOW + 600)
    found = findings(traffic.events, "geo_shift")
    assert not [f for f in found if f.evidence.details["country"] == "DE"]


def test_many_new_places_are_told_once_a_minute(findings: Found) -> None:
    traffic = settled()
    for n in range(300):
        traffic.call(NOW + n * 1.0, country=f"X{n % 40}", asn=60_000 + n % 40)
    assert 3 <= len(findings(traffic.events, "geo_shift")) <= 6

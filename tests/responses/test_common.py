"""What several identities of a tenant show at once is weak evidence against each of them."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from responses.common import Shown, Together, damped, is_common, is_unheard
from schemas.finding import Finding

Make = Callable[..., Finding]
HOUR = 3_600_000


def test_the_third_identity_makes_it_common(finding: Make) -> None:
    shown: Shown = {}
    answers = [
        is_common(shown, finding(0, identity=who, shared="model:m"), at * 60_000, HOUR, 3)
        for at, who in enumerate(["a", "a", "b", "c", "a"])
    ]
    assert answers == [False, False, False, True, True]


def test_it_must_be_within_the_time_and_the_same_thing(finding: Make) -> None:
    shown: Shown = {}
    for who, shared, at in (
        ("a", "model:m", 0),
        ("b", "model:m", HOUR),
        ("c", "model:m", 2 * HOUR),
        ("d", "asn:1/DE", 2 * HOUR),
    ):
        assert not is_common(shown, finding(0, identity=who, shared=shared), at, HOUR - 1, 2)


def test_what_names_nothing_shared_is_an_identitys_own(finding: Make) -> None:
    shown: Shown = {}
    assert not any(is_common(shown, finding(0, identity=who), 0, HOUR, 2) for who in "abc")
    assert shown == {}


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=300))
def test_what_is_remembered_is_bounded(finding: Make, steps: list[tuple[int, int]]) -> None:
    shown: Shown = {}
    for at, (who, what) in enumerate(steps):
        is_common(shown, finding(0, identity=f"i{who}", shared=f"s{what}"), at, HOUR, 3)
    assert len(shown) <= 64
    assert all(len(identities) <= 3 for identities in shown.values())


def test_a_damped_finding_blocks_nobody_alone(finding: Make) -> None:
    weak = damped(finding(0, "model_shift", "critical", deterministic=True, extreme=True))
    assert (weak.severity, weak.evidence.deterministic, weak.evidence.extreme) == ("low", False, False)


def test_what_everybody_was_damped_for_is_told_of_the_tenant(story: Callable[[], Any]) -> None:
    """Weak findings made it common before anybody was told: without the tenant's incident nobody would hear of it."""
    s = story()
    for n in range(3):
        s.find(n, "drift", "low", identity=f"key_{n}", shared="more usage")
    for n in range(5):
        s.find(600 + n * 60, "drift", "medium", identity=f"key_{n}", shared="more usage", workload="batch")
    assert (s.incident.identity, s.incident.tenant, s.incident.kinds) == (None, "acme", ["tenant_spike"])
    assert s.incident.finding_ids != []
    assert "at least 3 identities of the tenant" in s.incident.headline
    assert s.commands == []


def test_another_kind_of_evidence_keeps_its_name(story: Callable[[], Any]) -> None:
    s = story()
    for n, severity in enumerate(("low", "low", "low", "high", "high", "high")):
        s.find(n, "geo_shift", severity, identity=f"key_{n}", shared="asn:1/US", deterministic=True)
    assert (s.incident.identity, s.incident.kinds, s.incident.severity) == (None, ["geo_shift"], "medium")


@pytest.mark.parametrize(
    ("severities", "shared"), [(["low"] * 9, "more usage"), (["low"] * 3 + ["high"] * 2, "more usage"), (["high"], "")]
)
def test_what_is_weak_or_of_few_is_not_told_of_the_tenant(
    story: Callable[[], Any], severities: list[str], shared: str
) -> None:
    s = story()
    for n, severity in enumerate(severities):
        s.find(n * 5, "drift", severity, identity=f"key_{n}", shared=shared or None)
    assert None not in {incident.identity for incident in s.incidents.values()}


def test_the_tenant_is_told_once_while_it_lasts(finding: Make) -> None:
    held: dict[str, Together] = {}

    def told(minute: int, who: str, *, common: bool = True) -> bool:
        one = finding(0, identity=who, severity="medium", shared="more usage")
        return is_unheard(held, one, minute * 60_000, HOUR, 3, common=common)

    assert [told(minute, f"key_{minute % 7}") for minute in range(0, 200, 10)].count(True) == 1
    assert [told(minute, f"key_{minute}") for minute in (300, 310, 320, 330)] == [False, False, True, False]
    assert not any(told(500 + n, f"key_{n}", common=n > 0) for n in range(50))
    assert not any(told(minute, f"key_{minute}") for minute in (900, 961, 1022, 1083))


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.booleans()), max_size=300))
def test_what_is_remembered_of_the_damped_is_bounded(finding: Make, steps: list[tuple[int, int, bool]]) -> None:
    held: dict[str, Together] = {}
    for at, (who, what, common) in enumerate(steps):
        is_unheard(held, finding(0, identity=f"i{who}", shared=f"s{what}"), at, HOUR, 3, common=common)
    assert len(held) <= 64
    assert all(len(of.identities) <= 3 for of in held.values())


def test_a_tenants_move_blocks_nobody(story: Callable[[], Any]) -> None:
    s = story()
    for n in range(12):
        s.find(n * 60, "geo_shift", "medium", identity=f"key_{n}", shared="asn:1/US")
    assert {incident.identity for incident in s.incidents.values()} == {"key_0", "key_1"}
    for n in range(12):
        s.find(1000 + n * 60, "spike", "low", identity=f"key_{n}")
    assert s.commands == []

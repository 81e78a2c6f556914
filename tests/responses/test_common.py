"""What several identities of a tenant show at once is weak evidence against each of them."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from responses.common import Shown, damped, is_common
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


def test_a_tenants_move_blocks_nobody(story: Callable[[], Any]) -> None:
    s = story()
    for n in range(12):
        s.find(n * 60, "geo_shift", "medium", identity=f"key_{n}", shared="asn:1/US")
    assert {incident.identity for incident in s.incidents.values()} == {"key_0", "key_1"}
    for n in range(12):
        s.find(1000 + n * 60, "spike", "low", identity=f"key_{n}")
    assert s.commands == []

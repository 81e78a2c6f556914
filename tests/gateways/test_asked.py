"""The sample of callers that a gateway asks about."""

import hashlib

from tripswitch_gateway.asked import Asked


def short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_it_tells_hashes_and_begins_anew() -> None:
    asked = Asked()
    for tenant, name in (("acme", "key_1"), ("acme", "key_1"), ("-", "sk-secret")):
        asked.note(tenant, name)
    told = asked.take()
    assert sorted(told) == sorted([[short("acme\0key_1"), short("key_1")], [short("-\0sk-secret"), short("sk-secret")]])
    assert "secret" not in str(told)
    assert asked.take() == []


def test_it_is_bounded() -> None:
    asked = Asked()
    for n in range(1000):
        asked.note("acme", f"key_{n}\ud800")
    assert len(asked.take()) == 64

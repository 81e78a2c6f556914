import hashlib
import json
from pathlib import Path

import pytest

from tripswitch_gateway.guard.callers import MAX_CREDENTIAL, MAX_NAME, BadCaller, Caller, CallerReader
from tripswitch_gateway.guard.config import GuardConfig, NamedIn
from tripswitch_gateway.guard.known_keys import KnownKeys

SHA = hashlib.sha256(b"sk-1").hexdigest()
NAMED = NamedIn(identity="x-identity", tenant="x-tenant", credential="x-cred", session="x-session", end_user="x-user")


@pytest.fixture
def keys(tmp_path: Path) -> KnownKeys:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({SHA: {"identity": "key_7f3a", "tenant": "acme", "credential_id": "cred_1"}}))
    return KnownKeys(path)


def read(config: GuardConfig, keys: KnownKeys | None = None, **headers: str) -> Caller | None:
    return CallerReader(config, keys).read(
        [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    )


@pytest.mark.parametrize("value", ["Bearer sk-1", "bearer   sk-1", " sk-1 "])
def test_a_credential_is_known_by_its_hash_whatever_its_scheme(value: str) -> None:
    config = GuardConfig(credential_prefix="key_", tenant="acme")
    assert read(config, authorization=value) == Caller(f"key_{SHA}", "acme", f"key_{SHA}")


@pytest.mark.parametrize("header", ["authorization", "x_api_key", "api_key"])
def test_the_table_names_the_owner_of_a_key(keys: KnownKeys, header: str) -> None:
    assert read(GuardConfig(), keys, **{header: "sk-1"}) == Caller("key_7f3a", "acme", "cred_1")


def test_a_key_that_is_not_in_the_table_is_its_hash(keys: KnownKeys) -> None:
    hashed = hashlib.sha256(b"sk-2").hexdigest()
    assert read(GuardConfig(), keys, x_api_key="sk-2") == Caller(hashed, "-", hashed)


def test_what_the_gateway_says_goes_before_the_table(keys: KnownKeys) -> None:
    config = GuardConfig(headers=NAMED)
    said = {"x_identity": "svc", "x_tenant": "globex", "x_session": "s-1", "x_user": "ü"}
    assert read(config, keys, authorization="Bearer sk-1", **said) == Caller("svc", "globex", "cred_1", "s-1", "ü")
    assert read(config, keys, **said, x_cred="c") == Caller("svc", "globex", "c", "s-1", "ü")


def test_names_are_not_believed_unless_configured(keys: KnownKeys) -> None:
    assert read(GuardConfig(), keys, x_identity="somebody-else", x_api_key="sk-1") == Caller(
        "key_7f3a", "acme", "cred_1"
    )
    assert read(GuardConfig(), keys, x_identity="somebody-else") is None


def test_nobody_is_nobody(keys: KnownKeys) -> None:
    assert read(GuardConfig(headers=NAMED), keys, x_tenant="acme", accept="*/*", authorization="") is None


def test_the_same_key_in_two_headers_is_one_caller() -> None:
    assert read(GuardConfig(), authorization="Bearer sk-1", x_api_key="sk-1") is not None


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ([(b"authorization", b"Bearer sk-1"), (b"x-api-key", b"sk-2")], "ambiguous_caller"),
        ([(b"authorization", b"Bearer sk-1"), (b"authorization", b"Bearer sk-2")], "ambiguous_caller"),
        ([(b"x-identity", b"mine"), (b"x-identity", b"theirs")], "ambiguous_caller"),
        ([(b"x-identity", b"mine"), (b"x-identity", b"mine")], "ambiguous_caller"),
        ([(b"authorization", b"Bearer sk-1, Bearer sk-2")], "malformed_header"),
        ([(b"authorization", b"Bearer sk-1 sk-2")], "malformed_header"),
        ([(b"authorization", b" ")], "malformed_header"),
        ([(b"x-identity", b"\xff")], "malformed_header"),
        ([(b"x-identity", b"x" * (MAX_NAME + 1))], "header_too_large"),
        ([(b"x-api-key", b"x" * (MAX_CREDENTIAL + 1))], "header_too_large"),
    ],
)
def test_who_cannot_be_told_for_sure_is_refused_without_an_echo(headers: list[tuple[bytes, bytes]], kind: str) -> None:
    with pytest.raises(BadCaller) as caught:
        CallerReader(GuardConfig(headers=NAMED), None).read(headers)
    assert (caught.value.kind, caught.value.status) == (kind, 431 if kind == "header_too_large" else 400)
    for _, value in headers:
        for word in value.split():
            assert word == b"Bearer" or word.decode("latin-1") not in str(caught.value)


def test_a_changed_table_is_taken_and_a_broken_one_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({SHA: {"identity": "a"}}))
    keys = KnownKeys(path)
    path.write_text(json.dumps({SHA: {"identity": "another"}}))
    keys.refresh()
    found = keys.find(SHA)
    assert found is not None
    assert found.identity == "another"
    path.write_text("{")
    keys.refresh()
    keys.refresh()
    path.unlink()
    keys.refresh()
    keys.refresh()
    assert keys.find(SHA) == found
    assert len(keys) == 1
    assert [record.message.partition(str(path))[2] for record in caplog.records] == [
        ": not JSON; the keys stay as they were",
        ": No such file or directory; the keys stay as they were",
    ]

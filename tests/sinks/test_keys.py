"""Key files: read again when they change, replaced as a whole, and never a way for anything secret to get out."""

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from sinks.keys import (
    BadKey,
    KeyFile,
    keys_sha256,
    new_keys,
    new_private_key,
    public_keys,
    read_jwks,
    write_jwks,
)  # fmt: skip


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    new_keys(tmp_path / "key.pem", tmp_path / "jwks.json")
    return tmp_path / "jwks.json"


def test_an_entry_says_what_its_key_is_for(jwks: Path, tmp_path: Path) -> None:
    glass = new_private_key(tmp_path / "glass.pem", role="break-glass")
    alice = new_private_key(tmp_path / "alice.pem", person="alice")
    write_jwks(jwks, [*read_jwks(jwks), glass, alice])
    assert [(key.role, key.person) for key in public_keys(jwks)] == [
        ("commands", None), ("break-glass", None), ("commands", "alice"),
    ]  # fmt: skip
    for name in ("key.pem", "glass.pem", "alice.pem"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert all({"d", "p", "q", "dp", "dq", "qi"}.isdisjoint(entry) for entry in read_jwks(jwks))


def test_a_private_key_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("precious")
    with pytest.raises(FileExistsError, match="never overwritten"):
        new_private_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_text() == "precious"


def test_changed_keys_are_noticed(jwks: Path, tmp_path: Path) -> None:
    keys = KeyFile(jwks)
    before = keys.sha256
    assert not keys.refresh()
    entry = new_private_key(tmp_path / "next.pem")
    write_jwks(jwks, [*read_jwks(jwks), entry])
    assert keys.refresh()
    assert entry["kid"] in keys
    assert keys.sha256 != before
    # Written anew, with nothing in it changed.
    jwks.write_text(json.dumps(json.loads(jwks.read_text())))
    assert not keys.refresh()


def test_a_file_that_has_gone_bad_leaves_the_last_good_keys(jwks: Path) -> None:
    keys = KeyFile(jwks)
    [key] = keys
    jwks.write_text("{")
    with pytest.raises(BadKey, match="not a JWKS file"):
        keys.refresh()
    assert key.kid in keys


def test_the_hash_names_the_keys_and_nothing_else(jwks: Path, tmp_path: Path) -> None:
    entry = new_private_key(tmp_path / "next.pem", role="break-glass")
    entries = [*read_jwks(jwks), entry]
    write_jwks(jwks, entries)
    first = KeyFile(jwks).sha256
    kids = sorted(str(one["kid"]) for one in entries)
    assert first == keys_sha256(kids) == hashlib.sha256("\n".join(kids).encode()).hexdigest()
    write_jwks(jwks, entries[::-1])
    assert KeyFile(jwks).sha256 == first


@pytest.mark.parametrize("changes", [{"tripswitch_role": "root"}, {"tripswitch_person": 5}, {"n": "!"}, {"n": None}])
def test_an_entry_that_cannot_be_meant(jwks: Path, changes: dict[str, Any]) -> None:
    [entry] = read_jwks(jwks)
    write_jwks(jwks, [{**entry, **changes}])
    with pytest.raises(BadKey, match=str(jwks)):
        KeyFile(jwks)


@pytest.mark.parametrize("changes", [{"kty": "oct"}, {"kid": 7}, {"use": "enc"}, {"alg": "PS256"}])
def test_a_key_for_something_else_is_passed_over(jwks: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    entry = new_private_key(tmp_path / "next.pem")
    first = KeyFile(jwks).sha256
    write_jwks(jwks, [*read_jwks(jwks), {**entry, **changes}])
    assert KeyFile(jwks).sha256 == first
    write_jwks(jwks, [{**entry, **changes}])
    with pytest.raises(BadKey, match="RSA key for RS256"):
        KeyFile(jwks)


def test_a_jwks_file_is_replaced_as_a_whole(jwks: Path) -> None:
    before = jwks.read_text()
    with pytest.raises(TypeError):
        write_jwks(jwks, [{"kid": object()}])
    assert jwks.read_text() == before
    assert sorted(path.name for path in jwks.parent.iterdir()) == ["jwks.json", "key.pem"]

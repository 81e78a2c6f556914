"""A worker's keys: changed files are taken up while it runs, and a bad one leaves the last good key signing."""

import logging
from pathlib import Path

import pytest

from sinks.keys import BadKey, new_keys, new_private_key, read_jwks, write_jwks
from streams.keyring import Keyring
from streams.rotation import Rotation
from streams.settings import Signing


@pytest.fixture
def signing(tmp_path: Path) -> Signing:
    new_keys(tmp_path / "key.pem", tmp_path / "jwks.json")
    return Signing(key=str(tmp_path / "key.pem"), jwks=str(tmp_path / "jwks.json"), issuer="https://example.test")


def test_a_rotation_step_by_step(signing: Signing) -> None:
    keys, rotation = Keyring(signing, ""), Rotation(signing)
    old = keys.signer.kid
    assert not rotation.publish()
    assert not keys.refresh()
    assert (keys.signer.kid, rotation.new in keys.commands.keys) == (old, True)
    rotation.switch()
    assert keys.refresh()
    assert keys.signer.kid == rotation.new
    assert not keys.refresh()
    rotation.retire()
    # What the old key signed is no longer trusted: whatever is left of it is ordered anew.
    assert keys.refresh()
    assert [key.kid for key in keys.commands.keys] == [rotation.new]


def test_an_interrupted_rotation_goes_on_with_its_key(signing: Signing) -> None:
    first = Rotation(signing)
    first.publish()
    again = Rotation(signing)
    assert again.publish()
    assert again.new == first.new
    assert len(read_jwks(Path(signing.jwks))) == 2


def test_a_compromised_key_is_trusted_no_more_and_the_new_one_signs(signing: Signing) -> None:
    keys, rotation = Keyring(signing, ""), Rotation(signing)
    rotation.distrust()
    assert keys.refresh()
    assert keys.signer.kid == rotation.new
    assert [key.kid for key in keys.commands.keys] == [rotation.new]


def test_a_key_signs_once_gateways_can_know_it(
    signing: Signing, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = Keyring(signing, "")
    old = keys.signer.kid
    entry = new_private_key(tmp_path / "next.pem")
    (tmp_path / "next.pem").replace(signing.key)
    with caplog.at_level(logging.ERROR):
        assert not keys.refresh()
        assert not keys.refresh()
    assert len(caplog.records) == 1
    assert keys.signer.kid == old
    write_jwks(Path(signing.jwks), [*read_jwks(Path(signing.jwks)), entry])
    assert keys.refresh()
    assert keys.signer.kid == entry["kid"]


def test_a_bad_file_leaves_the_last_good_key(signing: Signing, caplog: pytest.LogCaptureFixture) -> None:
    keys = Keyring(signing, "")
    old = keys.signer.kid
    secret = Path(signing.key).read_text()
    Path(signing.key).write_text(secret[: len(secret) // 2])
    Path(signing.jwks).write_text("{")
    with caplog.at_level(logging.ERROR):
        assert not keys.refresh()
    assert keys.signer.kid == old
    assert old in keys.commands.keys
    assert secret.splitlines()[1] not in caplog.text


def test_a_worker_does_not_start_with_a_key_that_gateways_do_not_have(signing: Signing, tmp_path: Path) -> None:
    write_jwks(Path(signing.jwks), [new_private_key(tmp_path / "other.pem")])
    with pytest.raises(BadKey, match=r"is not in .*jwks\.json"):
        Keyring(signing, "")


def test_people_have_a_file_of_their_own(signing: Signing, tmp_path: Path) -> None:
    alice = new_private_key(tmp_path / "alice.pem", person="alice")
    write_jwks(tmp_path / "people.json", [alice])
    keys = Keyring(Signing(signing.key, signing.jwks, signing.issuer, str(tmp_path / "people.json")), "")
    assert keys.requests.keys.get(alice["kid"]) is not None
    assert keys.commands.keys.get(alice["kid"]) is None
    assert keys.requests.keys.get(keys.signer.kid) is None
    bob = new_private_key(tmp_path / "bob.pem", person="bob")
    write_jwks(tmp_path / "people.json", [alice, bob])
    keys.refresh()
    assert keys.requests.keys.get(bob["kid"]) is not None

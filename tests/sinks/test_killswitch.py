"""Commands as signed records: keys that stay secret, tokens that only their signer could make."""

import base64
import hmac
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jws
from joserfc.jwk import RSAKey
from msgspec.structs import replace

from schemas.command import STRICTNESS, TOKEN_TYPE, Command, Limits, claims, from_claims, record_key
from schemas.topics import AUDIT, KILLSWITCH
from sinks.keys import BadKey, new_keys
from sinks.killswitch import REQUEST_TYPE, Signer, Verifier
from tripswitch_gateway import CommandVerifier, KeyFile, Refused

ISSUER = "https://tripswitch.example/ssf"
NOW = 1_772_409_600_000
COMMAND = Command(
    command_id="cmd-1",
    time="2026-03-02T00:00:00.000Z",
    tenant="acme",
    identity="key_1",
    scope="identity",
    subject="key_1",
    action="suspend",
    epoch=NOW,
    expires_at="2026-03-02T00:15:00.000Z",
    mode="enforce",
    reason="because",
    incident_id="inc-1",
    finding_ids=["f-1"],
    policy="p1",
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("keys")
    new_keys(folder / "signing.pem", folder / "jwks.json")
    return folder / "signing.pem", folder / "jwks.json"


@pytest.fixture(scope="module")
def signer(keys: tuple[Path, Path]) -> Signer:
    return Signer.read(keys[0], issuer=ISSUER, contact="the on-call")


@pytest.fixture(scope="module")
def verifier(keys: tuple[Path, Path]) -> Verifier:
    return Verifier.read(keys[1])


def header_of(token: bytes) -> dict[str, Any]:
    head = token.split(b".")[0]
    made: dict[str, Any] = json.loads(base64.urlsafe_b64decode(head + b"=" * (-len(head) % 4)))
    return made


def segment(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def test_the_private_key_is_its_owners_alone(tmp_path: Path) -> None:
    kid = new_keys(tmp_path / "a" / "signing.pem", tmp_path / "b" / "jwks.json")
    assert stat.S_IMODE((tmp_path / "a" / "signing.pem").stat().st_mode) == 0o600
    [entry] = json.loads((tmp_path / "b" / "jwks.json").read_text())["keys"]
    assert set(entry) == {"kty", "n", "e", "kid", "alg", "use"}
    assert (entry["kty"], entry["kid"], entry["alg"], entry["use"]) == ("RSA", kid, "RS256", "sig")


@pytest.mark.parametrize("there", ["signing.pem", "jwks.json"])
def test_no_key_is_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    with pytest.raises(FileExistsError, match=there):
        new_keys(tmp_path / "signing.pem", tmp_path / "jwks.json")
    assert (tmp_path / there).read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_what_is_signed_is_read_back(signer: Signer, verifier: Verifier, keys: tuple[Path, Path]) -> None:
    token = signer.token({"a": "ü", "n": 1}, REQUEST_TYPE)
    assert json.loads(verifier.payload(token, REQUEST_TYPE)) == {"a": "ü", "n": 1}
    [entry] = json.loads(keys[1].read_text())["keys"]
    assert header_of(token) == {"alg": "RS256", "typ": REQUEST_TYPE, "kid": entry["kid"]}


@pytest.mark.parametrize(
    ("signed", "asked"), [(REQUEST_TYPE, TOKEN_TYPE), (TOKEN_TYPE, REQUEST_TYPE), ("JWT", REQUEST_TYPE)]
)
def test_a_token_for_another_purpose_is_refused(signer: Signer, verifier: Verifier, signed: str, asked: str) -> None:
    """A command must never pass for a person's order, nor the other way round."""
    with pytest.raises(ValueError, match="for another purpose"):
        verifier.payload(signer.token({"a": 1}, signed), asked)


def test_a_token_without_a_type_is_refused(verifier: Verifier, keys: tuple[Path, Path]) -> None:
    key = RSAKey.import_key(keys[0].read_bytes())
    token = jws.serialize_compact({"alg": "RS256", "kid": key.thumbprint()}, b"{}", key, ["RS256"]).encode()
    with pytest.raises(ValueError, match="for another purpose"):
        verifier.payload(token, REQUEST_TYPE)


def test_the_public_key_is_no_shared_secret(verifier: Verifier, keys: tuple[Path, Path]) -> None:
    """The oldest forgery: HS256 with what everybody may read as its key."""
    key = RSAKey.import_key(keys[0].read_bytes())
    for secret in (key.as_pem(private=False), keys[1].read_bytes(), key.as_dict(private=False)["n"].encode()):
        header = {"alg": "HS256", "typ": REQUEST_TYPE, "kid": key.thumbprint()}
        signed = b".".join(map(segment, (json.dumps(header).encode(), b'{"action":"restore"}')))
        # By hand: the library would not make such a token.
        token = signed + b"." + segment(hmac.digest(secret, signed, "sha256"))
        with pytest.raises(ValueError, match="not signed by a key that is trusted"):
            verifier.payload(token, REQUEST_TYPE)


def test_no_signature_is_none(verifier: Verifier, signer: Signer) -> None:
    head = segment(json.dumps({"alg": "none", "typ": REQUEST_TYPE}).encode())
    body = signer.token({"a": 1}, REQUEST_TYPE).split(b".")[1]
    with pytest.raises(ValueError, match="not signed by a key that is trusted"):
        verifier.payload(head + b"." + body + b".", REQUEST_TYPE)


def test_another_key_is_not_trusted_whatever_it_calls_itself(
    tmp_path: Path, verifier: Verifier, keys: tuple[Path, Path]
) -> None:
    new_keys(tmp_path / "signing.pem", tmp_path / "jwks.json")
    thief = RSAKey.import_key((tmp_path / "signing.pem").read_bytes())
    trusted = RSAKey.import_key(keys[0].read_bytes())
    for kid in (thief.thumbprint(), trusted.thumbprint()):
        token = jws.serialize_compact(
            {"alg": "RS256", "typ": REQUEST_TYPE, "kid": kid}, b"{}", thief, ["RS256"]
        ).encode()
        with pytest.raises(ValueError, match="not signed by a key that is trusted"):
            verifier.payload(token, REQUEST_TYPE)


def test_a_changed_payload_is_refused_and_not_repeated(signer: Signer, verifier: Verifier) -> None:
    head, _, signature = signer.token({"action": "suspend"}, REQUEST_TYPE).split(b".")
    forged = segment(b'{"action":"hunter2"}')
    with pytest.raises(ValueError, match="not signed by a key that is trusted") as caught:
        verifier.payload(b".".join([head, forged, signature]), REQUEST_TYPE)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("token", [b"", b".", b"..", b"a.b.c", b"\xff.\xff.\xff", b"{}", b"x" * 100_000])
def test_what_is_no_token_is_refused(verifier: Verifier, token: bytes) -> None:
    with pytest.raises(ValueError, match="not signed by a key that is trusted"):
        verifier.payload(token, REQUEST_TYPE)


def test_a_command_goes_to_the_gateways_and_to_the_audit(signer: Signer) -> None:
    records = signer.records(COMMAND, NOW)
    assert [record.topic for record in records] == [KILLSWITCH, AUDIT]
    assert len({(record.key, record.value) for record in records}) == 1
    assert records[0].key == record_key("acme", "identity", "key_1")
    assert dict(records[0].headers)["ce_id"] == b"cmd-1"


def test_a_shadow_command_goes_to_the_audit_alone(signer: Signer, verifier: Verifier) -> None:
    [record] = signer.records(replace(COMMAND, mode="shadow"), NOW)
    assert record.topic == AUDIT
    [event] = json.loads(verifier.payload(record.value, TOKEN_TYPE))["events"].values()
    assert event["ext"]["mode"] == "shadow"


@pytest.mark.parametrize("action", STRICTNESS)
@pytest.mark.parametrize("scope", ["identity", "credential", "session", "end_user", "tenant"])
def test_gateways_take_every_command(signer: Signer, keys: tuple[Path, Path], action: Any, scope: Any) -> None:
    """The writer's bytes, read by the distribution that gateways have."""
    limits = {"throttle": Limits(rpm=6), "downgrade": Limits(model="small")}.get(action)
    subject = {"identity": "key_1", "tenant": "acme"}.get(scope, "thé 猫")
    identity = None if scope == "tenant" else "key_1"
    command = replace(COMMAND, action=action, scope=scope, subject=subject, identity=identity, limits=limits)
    receiver = CommandVerifier(KeyFile(keys[1]), ISSUER, clock_ms=lambda: NOW)
    record = signer.records(command, NOW)[0]
    read = receiver.verify(record.key.encode(), record.value)
    assert (read.action, read.scope, read.tenant, read.identity, read.subject) == (
        action,
        scope,
        "acme",
        identity,
        subject,
    )
    assert (read.epoch, read.not_before, read.expires_at) == (NOW, NOW, NOW + 900_000)
    with pytest.raises(Refused):
        receiver.verify(record_key("acme", scope, "else").encode(), record.value)


def test_a_key_that_is_not_there_says_what_makes_one(tmp_path: Path) -> None:
    for read in (lambda path: Signer.read(path, issuer=ISSUER, contact=""), Verifier.read):
        with pytest.raises(BadKey, match=r"none: No such file or directory; `tripswitch keys new` makes one"):
            read(tmp_path / "none")


def test_a_file_that_is_no_private_rsa_key_is_named(tmp_path: Path) -> None:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for content, said in (
        (b"", "no RSA private key"),
        (b"hello", "no RSA private key"),
        (curve, "no RSA private key"),
        (public, "public key can't sign"),
    ):
        (tmp_path / "k.pem").write_bytes(content)
        with pytest.raises(BadKey, match=said) as caught:
            Signer.read(tmp_path / "k.pem", issuer=ISSUER, contact="")
        assert str(tmp_path / "k.pem") in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"keys": 5}', b'{"keys": [{}]}', b'{"keys": [{"kty": "XX"}]}', b"\xff"]
)
def test_a_file_that_is_no_jwks_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "jwks.json").write_bytes(content)
    with pytest.raises(BadKey, match=r"jwks\.json: not a JWKS file"):
        Verifier.read(tmp_path / "jwks.json")


def test_the_golden_break_glass_command_is_what_we_write() -> None:
    """The file binds us and the gateways."""
    golden = json.loads((Path(__file__).parents[1] / "golden" / "break_glass.json").read_text(encoding="utf-8"))
    [event] = golden["claims"]["events"].values()
    issued, contact = event["ext"]["not_before"], event["ext"]["contact"]
    command = from_claims(json.dumps(golden["claims"]).encode())
    made = claims(command, issuer=golden["claims"]["iss"], issued=issued, contact=contact, break_glass=True)
    assert made == golden["claims"]
    assert (event["ext"]["break_glass"], event["ext"]["manual"]) == (True, True)
    assert golden["record_key"] == record_key(command.tenant, command.scope, command.subject)


def test_a_command_signed_again_is_the_same_but_for_when(signer: Signer, verifier: Verifier) -> None:
    first = signer.records(COMMAND, NOW)[0]
    said = json.loads(verifier.payload(first.value, TOKEN_TYPE))
    again = signer.again(COMMAND, said, NOW + 5000)
    assert (again.topic, again.key) == (first.topic, first.key)
    assert json.loads(verifier.payload(again.value, TOKEN_TYPE)) == {**said, "iat": said["iat"] + 5}

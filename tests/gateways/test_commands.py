import base64
import contextlib
import hashlib
import hmac
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tripswitch_gateway import CommandVerifier, KeyFile, KeysUnreadable, Refused, record_key

Claims = Callable[..., dict[str, Any]]
NOW_MS = 1_795_223_525_000
KEY = record_key("acme", "identity", "key_7f3a").encode()


def b64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def reason_of(verifier: CommandVerifier, key: bytes | None, value: bytes | None) -> str:
    with pytest.raises(Refused) as refusal:
        verifier.verify(key, value)
    return refusal.value.reason


def ext_of(claims: dict[str, Any]) -> dict[str, Any]:
    [event] = claims["events"].values()
    return event["ext"]


@pytest.mark.parametrize("action", ["throttle", "downgrade", "suspend", "revoke", "restore"])
@pytest.mark.parametrize(
    ("scope", "subject"),
    [("identity", "key_7f3a"), ("credential", "c1"), ("session", "s1"), ("end_user", "u1"), ("tenant", "acme")],
)
def test_a_signed_command_is_read(
    verifier: CommandVerifier, signer: Any, claims: Claims, action: str, scope: str, subject: str
) -> None:
    key, value = signer.record(claims(action, scope, subject))
    command = verifier.verify(key, value)
    assert (command.action, command.scope, command.subject) == (action, scope, subject)
    assert command.identity == (None if scope == "tenant" else "key_7f3a")
    assert command.key == key.decode()
    assert command.reason_user == "This key was paused automatically."
    assert (command.limits is not None) == (action in ("throttle", "downgrade"))


def test_record_key_is_the_contracts() -> None:
    framed = b"\x00\x00\x00\x05\xc3\xa9\xc3\xa9x" + b"\x00\x00\x00\x08identity" + b"\x00\x00\x00\x01k"
    assert record_key("ééx", "identity", "k") == hashlib.sha256(framed).hexdigest()


def test_record_key_does_not_run_parts_together() -> None:
    assert record_key("ab", "identity", "c") != record_key("a", "identity", "bc")


def test_an_old_command_is_obeyed(verifier: CommandVerifier, signer: Any, claims: Claims) -> None:
    verifier.verify(*signer.record(claims(now_ms=NOW_MS - 86_400_000 * 365)))


def test_forged_signature(verifier: CommandVerifier, stranger: Any, claims: Claims) -> None:
    assert reason_of(verifier, *stranger.record(claims())) == "signature"


def test_claims_changed_after_signing(verifier: CommandVerifier, signer: Any, claims: Claims) -> None:
    head, _, signature = signer.sign(claims()).split(b".")
    changed = b64(json.dumps(claims(epoch=NOW_MS + 1)).encode())
    assert reason_of(verifier, KEY, b".".join([head, changed, signature])) == "signature"


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "RS384", "PS256", "ES256", None, 1, ["RS256"]])
def test_no_other_algorithm(verifier: CommandVerifier, signer: Any, claims: Claims, alg: object) -> None:
    header = b64(json.dumps({"alg": alg, "typ": "secevent+jwt", "kid": signer.kid}).encode())
    payload = b64(json.dumps(claims()).encode())
    assert reason_of(verifier, KEY, header + b"." + payload + b".") == "algorithm"


def test_a_jws_has_three_parts(verifier: CommandVerifier, signer: Any, claims: Claims) -> None:
    value = signer.sign(claims())
    head, payload, _ = value.split(b".")
    for wrong in (head, head + b".", head + b"." + payload, value + b".", value + b".AAAA", b"." + value, b"..", b""):
        assert reason_of(verifier, KEY, wrong) == "malformed"
    assert reason_of(verifier, KEY, head + b"." + payload + b".") == "signature"
    assert reason_of(verifier, KEY, value[:-4]) == "signature"


@pytest.mark.parametrize("command_id", [None, "", 7])
def test_a_command_has_an_id(verifier: CommandVerifier, signer: Any, claims: Claims, command_id: object) -> None:
    assert reason_of(verifier, KEY, signer.sign(claims() | {"jti": command_id})) == "malformed"


@pytest.mark.parametrize("payload", [b"", b"[]", b"7", b"\xff", b'{"jti": 1' + b"0" * 5000 + b"}", b"[" * 40_000])
def test_a_signed_payload_that_is_no_object(verifier: CommandVerifier, signer: Any, payload: bytes) -> None:
    assert reason_of(verifier, KEY, signer.sign_bytes(payload)) == "malformed"


@pytest.mark.parametrize("reasons", [{"de": "gesperrt"}, {}, None])
def test_reasons_in_other_languages(verifier: CommandVerifier, signer: Any, claims: Claims, reasons: object) -> None:
    made = claims()
    [event] = made["events"].values()
    event["reason_user"] = reasons
    assert verifier.verify(KEY, signer.sign(made)).reason_user == ("gesperrt" if reasons else "")
    event["reason_user"] = "gesperrt"
    assert reason_of(verifier, KEY, signer.sign(made)) == "malformed"


def test_public_key_as_hmac_secret(verifier: CommandVerifier, signer: Any, claims: Claims) -> None:
    header = b64(json.dumps({"alg": "HS256", "typ": "secevent+jwt", "kid": signer.kid}).encode())
    body = header + b"." + b64(json.dumps(claims()).encode())
    signature = hmac.digest(signer.key.as_pem(private=False), body, "sha256")
    assert reason_of(verifier, KEY, body + b"." + b64(signature)) == "algorithm"


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "", None, 1])
def test_wrong_type(verifier: CommandVerifier, signer: Any, claims: Claims, typ: object) -> None:
    header = b64(json.dumps({"alg": "RS256", "typ": typ, "kid": signer.kid}).encode())
    assert reason_of(verifier, KEY, header + b"." + b64(json.dumps(claims()).encode()) + b".AA") == "type"


@pytest.mark.parametrize("kid", ["another", "", None, 7, {"a": 1}])
def test_unknown_kid(verifier: CommandVerifier, claims: Claims, kid: object) -> None:
    header = b64(json.dumps({"alg": "RS256", "typ": "secevent+jwt", "kid": kid}).encode())
    assert reason_of(verifier, KEY, header + b"." + b64(json.dumps(claims()).encode()) + b".AA") == "unknown-kid"


def test_keys_that_the_header_points_to_are_not_believed(
    verifier: CommandVerifier, stranger: Any, claims: Claims
) -> None:
    assert reason_of(verifier, KEY, stranger.sign(claims(), jku="https://forger.example/jwks")) == "signature"


@pytest.mark.parametrize("header", [{"crit": ["exp"], "exp": 1}, {"b64": False}])
def test_header_extensions_are_refused(
    verifier: CommandVerifier, signer: Any, claims: Claims, header: dict[str, object]
) -> None:
    head = b64(json.dumps({"alg": "RS256", "typ": "secevent+jwt", "kid": signer.kid} | header).encode())
    assert reason_of(verifier, KEY, head + b"." + b64(json.dumps(claims()).encode()) + b".AA") == "malformed"


def test_wrong_issuer(verifier: CommandVerifier, signer: Any, claims: Claims) -> None:
    assert reason_of(verifier, *signer.record(claims() | {"iss": "https://elsewhere.example"})) == "issuer"


@pytest.mark.parametrize("aud", [["others"], "others", [], None, {"tripswitch-gateways": 1}])
def test_wrong_audience(verifier: CommandVerifier, signer: Any, claims: Claims, aud: object) -> None:
    assert reason_of(verifier, *signer.record(claims() | {"aud": aud})) == "audience"


@pytest.mark.parametrize("aud", ["tripswitch-gateways", ["others", "tripswitch-gateways"]])
def test_audience_among_others(verifier: CommandVerifier, signer: Any, claims: Claims, aud: object) -> None:
    verifier.verify(*signer.record(claims() | {"aud": aud}))


def test_record_key_of_another(verifier: CommandVerifier, signer: Any, claims: Claims) -> None:
    value = signer.sign(claims())
    other = record_key("acme", "identity", "key_other").encode()
    for key in (other, KEY.upper(), b"", None):
        assert reason_of(verifier, key, value) == "key-mismatch"


def test_the_refusal_of_a_signed_command_names_it(verifier: CommandVerifier, signer: Any, claims: Claims) -> None:
    with pytest.raises(Refused) as refusal:
        verifier.verify(b"", signer.sign(claims(command_id="cmd-9")))
    assert refusal.value.command_id == "cmd-9"


def test_the_refusal_of_a_forged_command_names_nothing(
    verifier: CommandVerifier, stranger: Any, claims: Claims
) -> None:
    with pytest.raises(Refused) as refusal:
        verifier.verify(*stranger.record(claims()))
    assert refusal.value.command_id is None


def test_tombstone(verifier: CommandVerifier) -> None:
    assert reason_of(verifier, KEY, None) == "tombstone"


def test_oversized(verifier: CommandVerifier, signer: Any, claims: Claims) -> None:
    assert reason_of(verifier, *signer.record(claims(contact="x" * 70_000))) == "oversized"


def test_from_the_future(verifier: CommandVerifier, signer: Any, claims: Claims) -> None:
    assert reason_of(verifier, *signer.record(claims(now_ms=NOW_MS + 301_000))) == "from-the-future"
    assert reason_of(verifier, *signer.record(claims(not_before=NOW_MS + 301_000))) == "from-the-future"
    verifier.verify(*signer.record(claims(now_ms=NOW_MS + 60_000)))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("action", "destroy"),
        ("action", None),
        ("scope", "universe"),
        ("tenant", ""),
        ("tenant", 7),
        ("tenant", "\ud800"),
        ("subject", None),
        ("identity", ["key_7f3a"]),
        ("epoch", -1),
        ("epoch", 1.5),
        ("epoch", True),
        ("epoch", "17"),
        ("epoch", 2**63),
        ("not_before", None),
        ("expires_at", "tomorrow"),
        ("expires_at", -1),
        ("on_expiry", "explode"),
        ("limits", [60]),
        ("limits", {"rpm": -1}),
        ("limits", {"rpm": float("nan")}),
        ("limits", {"rpm": True}),
        ("in_flight", "maybe"),
        ("http_status", 200),
        ("http_status", "403"),
        ("finding_ids", "f-1"),
        ("finding_ids", [1]),
        ("manual", "yes"),
        ("contact", 5),
    ],
)
def test_wrong_field(verifier: CommandVerifier, signer: Any, claims: Claims, member: str, value: object) -> None:
    wrong = claims()
    ext_of(wrong)[member] = value
    assert reason_of(verifier, KEY, signer.sign(wrong)) == "malformed"


def test_absent_expiry_is_not_for_ever(verifier: CommandVerifier, signer: Any, claims: Claims) -> None:
    lost = claims()
    del ext_of(lost)["expires_at"]
    assert reason_of(verifier, KEY, signer.sign(lost)) == "malformed"


@pytest.mark.parametrize("action", ["throttle", "downgrade"])
@pytest.mark.parametrize("limits", [None, {}, {"rpm": None, "model": None}])
def test_half_a_measure_says_how_much(
    verifier: CommandVerifier, signer: Any, claims: Claims, action: str, limits: object
) -> None:
    assert reason_of(verifier, *signer.record(claims(action, limits=limits))) == "malformed"


def test_exactly_one_event(verifier: CommandVerifier, signer: Any, claims: Claims) -> None:
    two = claims()
    two["events"] |= claims("restore")["events"]
    for events in (two["events"], {}, [], None, {"uri": "text"}):
        assert reason_of(verifier, KEY, signer.sign(claims() | {"events": events})) == "malformed"


def test_event_of_another_action(verifier: CommandVerifier, signer: Any, claims: Claims) -> None:
    mixed = claims("restore")
    ext_of(mixed)["action"] = "suspend"
    assert reason_of(verifier, KEY, signer.sign(mixed)) == "event-mismatch"


@pytest.mark.parametrize("forbidden", ["exp", "sub"])
def test_claims_that_ssf_forbids(verifier: CommandVerifier, signer: Any, claims: Claims, forbidden: str) -> None:
    assert reason_of(verifier, KEY, signer.sign(claims() | {forbidden: 1})) == "malformed"


def test_the_standard_subject_must_be_ours(verifier: CommandVerifier, signer: Any, claims: Claims) -> None:
    for member in ("user", "tenant"):
        other = claims()
        other["sub_id"][member]["id"] = "someone-else"
        assert reason_of(verifier, KEY, signer.sign(other)) == "subject-mismatch"
    assert reason_of(verifier, *signer.record(claims(identity="key_other"))) == "subject-mismatch"
    assert reason_of(verifier, *signer.record(claims(scope="tenant", subject="globex"))) == "subject-mismatch"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.binary(max_size=70))
def test_garbage_is_only_ever_refused(verifier: CommandVerifier, value: bytes, key: bytes) -> None:
    reason_of(verifier, key, value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_JSON, _JSON, st.binary(max_size=300))
def test_garbage_headers_are_only_ever_refused(
    verifier: CommandVerifier, header: object, payload: object, signature: bytes
) -> None:
    parts = [b64(json.dumps(header).encode()), b64(json.dumps(payload).encode()), b64(signature)]
    reason_of(verifier, KEY, b".".join(parts))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.data())
def test_signed_garbage_is_refused_or_read(
    verifier: CommandVerifier, signer: Any, claims: Claims, data: st.DataObject
) -> None:
    command = claims()
    ext = ext_of(command)
    place = data.draw(st.sampled_from([command, ext, command["sub_id"], *command["events"].values()]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(_JSON)
    # Any other exception fails the test.
    with contextlib.suppress(Refused):
        verifier.verify(KEY, signer.sign(command))


def test_deep_json_is_refused(verifier: CommandVerifier, signer: Any) -> None:
    deep = b"[" * 40_000
    assert reason_of(verifier, KEY, b64(deep)) == "malformed"


class TestKeyFile:
    def test_rotation_is_seen(self, jwks: Path, signer: Any, stranger: Any, claims: Claims) -> None:
        verifier = CommandVerifier(KeyFile(jwks), claims()["iss"], clock_ms=lambda: NOW_MS)
        rotated = stranger.jwk() | {"kid": "2026-12-a"}
        value = stranger.sign(claims(), kid="2026-12-a")
        assert reason_of(verifier, KEY, value) == "unknown-kid"
        jwks.write_text(json.dumps({"keys": [signer.jwk(), rotated]}), encoding="utf-8")
        assert verifier.verify(KEY, value).subject == "key_7f3a"
        assert verifier.verify(KEY, signer.sign(claims())).subject == "key_7f3a"

    def test_a_withdrawn_key_is_out(self, jwks: Path, signer: Any, stranger: Any, claims: Claims) -> None:
        verifier = CommandVerifier(KeyFile(jwks), claims()["iss"], clock_ms=lambda: NOW_MS)
        jwks.write_text(json.dumps({"keys": [stranger.jwk() | {"kid": "new"}]}), encoding="utf-8")
        assert reason_of(verifier, KEY, signer.sign(claims())) == "unknown-kid"

    @pytest.mark.parametrize("content", ["", "{", '{"keys": []}', "[]", '{"keys": [1]}'])
    def test_a_file_gone_bad_leaves_the_keys(self, jwks: Path, signer: Any, claims: Claims, content: str) -> None:
        verifier = CommandVerifier(KeyFile(jwks), claims()["iss"], clock_ms=lambda: NOW_MS)
        jwks.write_text(content, encoding="utf-8")
        verifier.verify(KEY, signer.sign(claims()))
        jwks.unlink()
        verifier.verify(KEY, signer.sign(claims()))

    def test_a_replaced_file_of_the_same_time_is_seen(self, jwks: Path, signer: Any, stranger: Any) -> None:
        keys = KeyFile(jwks)
        stat = jwks.stat()
        other = jwks.with_name("next.json")
        other.write_text(json.dumps({"keys": [stranger.jwk() | {"kid": signer.kid[::-1]}]}), encoding="utf-8")
        os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        other.replace(jwks)
        assert keys.get(signer.kid) is None
        assert keys.generation == 2

    @pytest.mark.parametrize("content", ["", "{", '{"keys": []}', "[]", '{"keys": [{"kty": "RSA", "kid": "a"}]}'])
    def test_no_start_without_keys(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "jwks.json"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(KeysUnreadable, match=r"jwks\.json"):
            KeyFile(path)
        with pytest.raises(KeysUnreadable, match="No such file"):
            KeyFile(tmp_path / "absent.json")

    def test_a_symmetric_key_is_never_taken(self, jwks: Path, signer: Any) -> None:
        secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "mac", "alg": "RS256"}
        jwks.write_text(json.dumps({"keys": [secret, signer.jwk()]}), encoding="utf-8")
        assert KeyFile(jwks).get("mac") is None

"""The guard's answers, over a list of blocks that was filled by hand; and its process, over a broker."""

import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import unused_port

from tripswitch_gateway import CommandVerifier, KeyFile, RevocationList
from tripswitch_gateway.guard.app import Guard
from tripswitch_gateway.guard.config import GuardConfig, NamedIn

Claims = Callable[..., dict[str, Any]]
TOPICS = ("llm.killswitch", "llm.killswitch.acks")
CALLER = [(b"x-identity", b"key_7f3a"), (b"x-tenant", b"acme"), (b"x-session", b"s-1")]
CONFIG = GuardConfig(headers=NamedIn(identity="x-identity", tenant="x-tenant", session="x-session"))


@pytest.fixture
def blocks(jwks: Path, claims: Claims) -> RevocationList:
    """Read to its end, as far as anybody can tell; follows nothing."""
    blocks = RevocationList({}, CommandVerifier(KeyFile(jwks), claims()["iss"]), gateway="guard-1")
    blocks.ready.set()
    return blocks


@pytest.fixture
def obey(blocks: RevocationList, signer: Any, jwks: Path, claims: Claims) -> Callable[[dict[str, Any]], None]:
    verifier = CommandVerifier(KeyFile(jwks), claims()["iss"])

    def obey(claims: dict[str, Any]) -> None:
        blocks.table.apply(verifier.verify(*signer.record(claims)), time.time_ns() // 1_000_000)

    return obey


def test_a_caller_on_whom_there_is_nothing_goes_on(blocks: RevocationList) -> None:
    answer = Guard(CONFIG, blocks).answer("/auth/v1/chat/completions", CALLER)
    assert (answer.status, answer.body) == (200, b"")
    assert dict(answer.headers) == {b"x-tripswitch-identity": b"key_7f3a", b"x-tripswitch-tenant": b"acme"}


def test_a_blocked_caller_is_told_why_at_every_path_below_the_prefix(
    blocks: RevocationList, obey: Any, live_claims: Claims
) -> None:
    obey(live_claims())
    guard = Guard(CONFIG, blocks)
    for path in ("/auth", "/auth/", "/auth/v1/chat/completions", "/auth/../metrics"):
        answer = guard.answer(path, CALLER)
        assert answer.status == 403
        assert dict(answer.headers)[b"x-tripswitch-incident"] == b"inc-1"
        error = json.loads(answer.body)["error"]
        assert (error["type"], error["message"]) == ("tripswitch_denied", "This key was paused automatically.")
    assert guard.answer("/auth", [(b"x-identity", b"other"), (b"x-tenant", b"acme")]).status == 200
    assert guard.answer("/authority", CALLER).status == 404
    obey(live_claims("restore"))
    assert guard.answer("/auth", CALLER).status == 200


@pytest.mark.parametrize(
    ("scope", "subject", "header"),
    [("session", "s-1", None), ("tenant", "acme", None), ("credential", hashlib.sha256(b"sk-1").hexdigest(), b"sk-1")],
)
def test_every_scope_is_checked(
    blocks: RevocationList, obey: Any, live_claims: Claims, scope: str, subject: str, header: bytes | None
) -> None:
    obey(live_claims(scope=scope, subject=subject))
    more = [] if header is None else [(b"x-api-key", header)]
    assert Guard(CONFIG, blocks).answer("/auth", CALLER + more).status == 403


def test_over_a_rate_is_429_with_a_time_to_come_back(blocks: RevocationList, obey: Any, live_claims: Claims) -> None:
    obey(live_claims("throttle", limits={"rpm": 6, "tpm": None, "model": None}))
    guard = Guard(CONFIG, blocks)
    first, second = guard.answer("/auth", CALLER), guard.answer("/auth", CALLER)
    assert (first.status, dict(first.headers)[b"x-tripswitch-incident"]) == (200, b"inc-1")
    assert second.status == 429
    assert 1 <= int(dict(second.headers)[b"retry-after"]) <= 10


def test_a_downgrade_names_the_only_model(blocks: RevocationList, obey: Any, live_claims: Claims) -> None:
    obey(live_claims("downgrade", limits={"rpm": None, "tpm": None, "model": "small\r\nx: ü"}))
    answer = Guard(CONFIG, blocks).answer("/auth", CALLER)
    assert answer.status == 200
    assert dict(answer.headers)[b"x-tripswitch-model"] == b"small%0D%0Ax: %C3%BC"


def test_for_auth_request_every_denial_is_403_and_carries_what_the_caller_gets(
    blocks: RevocationList, obey: Any, live_claims: Claims
) -> None:
    guard = Guard(CONFIG, blocks)
    assert guard.answer("/nginx", CALLER) == guard.answer("/auth", CALLER)
    obey(live_claims("throttle", limits={"rpm": 0, "tpm": None, "model": None}))
    plain, carried = guard.answer("/auth", CALLER), guard.answer("/nginx", CALLER)
    headers = dict(carried.headers)
    assert (carried.status, carried.body, headers[b"x-tripswitch-status"]) == (403, b"", b"429")
    assert headers[b"retry-after"] == dict(plain.headers)[b"retry-after"]
    assert b"content-type" not in headers
    assert json.loads(headers[b"x-tripswitch-body"]) == json.loads(plain.body)
    unknown = dict(guard.answer("/nginx", []).headers)
    assert (unknown[b"x-tripswitch-status"], unknown[b"www-authenticate"]) == (b"401", b"Bearer")


def test_however_long_the_reason_it_fits_into_a_header(blocks: RevocationList, obey: Any, live_claims: Claims) -> None:
    claims = live_claims()
    [event] = claims["events"].values()
    event["reason_user"] = {"en": "🔥" * 3000}
    obey(claims)
    body = dict(Guard(CONFIG, blocks).answer("/nginx", CALLER).headers)[b"x-tripswitch-body"]
    assert len(body) <= 4096
    assert body.isascii()
    assert json.loads(body)["error"]["message"].startswith("🔥" * 48)


def test_who_brings_nothing_is_refused_unless_that_is_allowed(blocks: RevocationList) -> None:
    answer = Guard(CONFIG, blocks).answer("/auth", [(b"accept", b"*/*")])
    assert (answer.status, dict(answer.headers)[b"www-authenticate"]) == (401, b"Bearer")
    assert json.loads(answer.body)["error"]["type"] == "no_credential"
    assert Guard(GuardConfig(anonymous="allow"), blocks).answer("/auth", []).status == 200


@pytest.mark.parametrize(("on_stale", "unread"), [("last_known", 503), ("closed", 503), ("open", 200)])
def test_an_unread_list_judges_nobody(blocks: RevocationList, on_stale: Any, unread: int) -> None:
    blocks.ready.clear()
    answer = Guard(CONFIG, blocks, on_stale=on_stale).answer("/auth", CALLER)
    assert answer.status == unread
    assert unread == 200 or b"retry-after" in dict(answer.headers)


def test_a_stale_list_that_is_to_close_is_told(jwks: Path, claims: Claims) -> None:
    verifier = CommandVerifier(KeyFile(jwks), claims()["iss"])
    blocks = RevocationList({}, verifier, gateway="guard-1", on_stale="closed")
    blocks.ready.set()
    answer = Guard(CONFIG, blocks, on_stale="closed").answer("/auth", CALLER)
    assert (answer.status, dict(answer.headers)[b"retry-after"]) == (503, b"5")
    assert b"x-tripswitch-incident" not in dict(answer.headers)


def test_metrics_count_answers_and_hold_no_name(blocks: RevocationList, obey: Any, live_claims: Claims) -> None:
    obey(live_claims())
    guard = Guard(CONFIG, blocks)
    for _ in range(3):
        guard.answer("/auth", CALLER)
    guard.answer("/nginx", [])
    told = guard.answer("/metrics", []).body.decode()
    assert 'tripswitch_guard_answers_total{status="401"} 1' in told
    assert 'tripswitch_guard_answers_total{status="403"} 3' in told
    assert "tripswitch_ready 1" in told
    assert "key_7f3a" not in told


def test_health_tells_a_list_that_nobody_follows(blocks: RevocationList) -> None:
    guard = Guard(CONFIG, blocks)
    assert guard.answer("/healthz", []).status == 500
    readiness = guard.answer("/readyz", [])
    assert readiness.status == 503
    assert json.loads(readiness.body)["ready"] is False


SECRET = "sk-do-not-log-me"


@contextmanager
def running(folder: Path, port: int, environment: dict[str, str], *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "TRIPSWITCH_"))}
    command = [sys.executable, "-m", "tripswitch_gateway.guard", "--listen", f"127.0.0.1:{port}", *flags]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=inherited | environment, cwd=folder, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ask(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    """0 where nobody listens."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        try:
            connection.request("POST", path, b"x" * 200_000, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
        except ConnectionError:
            return 0, b""
        return response.status, response.read()


@pytest.mark.usefixtures("beating")
def test_the_process_cuts_off_ends_in_order_and_never_logs_a_credential(
    broker: Any, signer: Any, jwks: Path, live_claims: Claims, tmp_path: Path, wait_until: Any
) -> None:
    broker.create(*TOPICS)
    port = unused_port()
    environment = {
        "KAFKA_BOOTSTRAP": broker.bootstrap,
        "TRIPSWITCH_JWKS": str(jwks),
        "TRIPSWITCH_ISSUER": live_claims()["iss"],
    }
    hashed = hashlib.sha256(SECRET.encode()).hexdigest()
    with running(tmp_path, port, environment) as process:
        wait_until(lambda: ask(port, "/readyz")[0] == 200, "ready")
        assert ask(port, "/healthz")[0] == 200
        assert ask(port, "/auth/v1/models", authorization=f"Bearer {SECRET}")[0] == 200
        block = live_claims(scope="credential", subject=hashed, tenant="-", identity=hashed)
        broker.send("llm.killswitch", *signer.record(block))
        wait_until(lambda: ask(port, "/auth/v1/models", authorization=f"Bearer {SECRET}")[0] == 403, "denied")
        assert ask(port, "/auth", x_api_key=SECRET, authorization="Bearer other")[0] == 400
        assert ask(port, "/auth", x_api_key=SECRET * 10_000)[0] == 431
        # A proxy keeps its connections open: the end does not wait for that.
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as kept:
            kept.request("GET", "/healthz")
            assert kept.getresponse().read()
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: ask(port, "/healthz")[0] == 0, "closed to newcomers")
        assert process.wait(20) == 0
    log = (tmp_path / "log").read_text()
    assert SECRET not in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("", "KAFKA_BOOTSTRAP"),
        ('[guard]\nkeys = "absent.json"', "absent.json"),
        ("[guard]\nanonymous = 1", "anonymous"),
    ],
)
def test_the_users_mistake_is_one_line_and_exit_2(tmp_path: Path, toml: str, told: str) -> None:
    (tmp_path / "tripswitch.toml").write_text(toml)
    with running(tmp_path, unused_port(), {} if not toml else {"KAFKA_BOOTSTRAP": "x:1"}) as process:
        assert process.wait(20) == 2
    [line] = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("tripswitch-guard: ")
    assert told in line


def test_a_port_that_is_taken_is_the_users_mistake(tmp_path: Path, jwks: Path, broker: Any) -> None:
    environment = {
        "KAFKA_BOOTSTRAP": broker.bootstrap, "TRIPSWITCH_JWKS": str(jwks), "TRIPSWITCH_ISSUER": "https://i.example",
    }  # fmt: skip
    taken = int(broker.bootstrap.rpartition(":")[2])
    with running(tmp_path, taken, environment) as process:
        assert process.wait(20) == 2
    assert f"cannot listen on 127.0.0.1:{taken}" in (tmp_path / "log").read_text()

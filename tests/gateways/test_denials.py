from dataclasses import replace

import pytest

from tripswitch_gateway import ALLOWED, DENIED, STALE, Command, Decision, denial_answer

COMMAND = Command(
    key="00" * 32,
    command_id="cmd-1",
    incident_id="inc-1",
    action="suspend",
    scope="identity",
    tenant="acme",
    identity="k1",
    subject="k1",
    epoch=1,
    not_before=0,
    expires_at=1_795_227_125_007,
    on_expiry="restore",
    reason_admin="231 near-identical calls",
    reason_user="This key was paused.",
    contact="#ai-platform",
)


def test_a_block_says_what_why_until_when_and_whom_to_ask() -> None:
    status, headers, body = denial_answer(Decision(allowed=False, status=403, command=COMMAND))
    assert (status, headers) == (403, {"X-Tripswitch-Incident": "inc-1"})
    assert body == {
        "error": {
            "type": "tripswitch_denied",
            "action": "suspend",
            "message": "This key was paused.",
            "incident_id": "inc-1",
            "command_id": "cmd-1",
            "reason": "231 near-identical calls",
            "contact": "#ai-platform",
            "expires_at": "2026-11-21T02:12:05.007Z",
        }
    }


def test_no_expiry_is_null() -> None:
    _, _, body = denial_answer(Decision(allowed=False, status=403, command=replace(COMMAND, expires_at=None)))
    assert isinstance(body["error"], dict)
    assert body["error"]["expires_at"] is None


@pytest.mark.parametrize(("wait", "header"), [(0.01, "1"), (1.0, "1"), (1.2, "2"), (60.0, "60")])
def test_over_a_rate_says_when_to_come_back(wait: float, header: str) -> None:
    status, headers, _ = denial_answer(Decision(allowed=False, status=429, command=COMMAND, retry_after_s=wait))
    assert (status, headers["Retry-After"]) == (429, header)


def test_an_incident_id_cannot_add_headers() -> None:
    odd = replace(COMMAND, incident_id="inc\r\nSet-Cookie: a=é")
    _, headers, _ = denial_answer(Decision(allowed=False, status=403, command=odd))
    assert headers["X-Tripswitch-Incident"] == "incSet-Cookie: a="


def test_an_allowed_call_has_no_denial() -> None:
    with pytest.raises(ValueError, match="allowed"):
        denial_answer(ALLOWED)


def test_an_answer_for_a_stale_kill_switch() -> None:
    status, headers, body = denial_answer(STALE)
    assert (status, headers) == (503, {"Retry-After": "5"})
    error = body["error"]
    assert isinstance(error, dict)
    assert (error["type"], error["reason"], error["command_id"]) == (DENIED, "kill switch stale", None)

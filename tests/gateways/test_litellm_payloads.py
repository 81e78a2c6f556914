"""What is made of LiteLLM's StandardLoggingPayload; the hooks are tried with a real proxy in tests/integration."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.usage import decode_usage
from tripswitch_gateway import SettingsError
from tripswitch_gateway.callers import Caller
from tripswitch_gateway.events import usage_event
from tripswitch_gateway.litellm.naming import ANONYMOUS, Naming, names_of_metadata
from tripswitch_gateway.litellm.payloads import ended_ms, usage_of

HASH = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b"


def payload(**changed: Any) -> dict[str, Any]:
    """As LiteLLM 1.106 makes it, as far as we read it."""
    return {
        "id": "chatcmpl-7f0c1e52",
        "session_id": "",
        "call_type": "acompletion",
        "stream": True,
        "response_cost": 0.04125,
        "status": "success",
        "custom_llm_provider": "bedrock",
        "prompt_tokens": 8500,
        "completion_tokens": 1150,
        "startTime": 1795223401.118,
        "endTime": 1795223409.902,
        "model": "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "metadata": {
            "user_api_key_hash": HASH,
            "user_api_key_alias": "invoice-bot-prod",
            "user_api_key_org_id": "org-acme",
            "user_api_key_team_id": "team-finops",
            "user_api_key_user_id": "svc-invoice-bot",
            "user_api_key_request_route": "/v1/chat/completions",
            "requester_ip_address": "203.0.113.40",
            "user_agent": "openai-python/1.99.1",
            "mcp_tool_call_metadata": None,
            "usage_object": {"prompt_tokens_details": {"cached_tokens": 6100}},
        },
        "cache_hit": None,
        "response": {"choices": [{"message": {"tool_calls": [{"function": {"name": "search"}}]}}]},
        "error_information": {"error_code": "", "error_class": ""},
    } | changed


def test_a_served_call() -> None:
    used = usage_of(payload())
    assert used == {
        "provider": "bedrock",
        "model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "route": "/v1/chat/completions",
        "status": 200,
        "error": None,
        "latency_ms": 8784.0,
        "ip": "203.0.113.40",
        "user_agent": "openai-python/1.99.1",
        "streaming": True,
        "tool": "search",
        "input_tokens": 8500,
        "output_tokens": 1150,
        "cached_tokens": 6100,
        "cost_usd": 0.04125,
        "usage_missing": False,
    }
    assert ended_ms(payload()) == 1795223409902


def test_an_answer_from_the_cache_costs_nothing() -> None:
    used = usage_of(payload(cache_hit=True))
    assert (used["input_tokens"], used["cached_tokens"], used["cost_usd"]) == (8500, 8500, 0.0)


def test_a_failed_call_has_no_tokens() -> None:
    error = {"error_code": "429", "error_class": "RateLimitError", "error_message": "the prompt said: …"}
    used = usage_of(payload(status="failure", prompt_tokens=0, completion_tokens=0, error_information=error))
    assert (used["status"], used["error"]) == (429, "RateLimitError")
    assert not used.keys() & {"input_tokens", "output_tokens", "cost_usd"}
    assert "prompt said" not in json.dumps(used)


@pytest.mark.parametrize("code", ["", None, "None", "200", "9999", "invalid_api_key"])
def test_a_failure_without_a_status_is_one_of_ours(code: Any) -> None:
    assert usage_of(payload(status="failure", error_information={"error_code": code}))["status"] == 500


def test_a_client_that_hung_up_leaves_an_estimate() -> None:
    error = {"error_code": "499", "error_class": "ClientDisconnected"}
    used = usage_of(payload(error_information=error))
    assert (used["status"], used["usage_missing"], used["output_tokens"]) == (499, True, 1150)


def test_zeros_that_nobody_counted_are_unknown() -> None:
    used = usage_of(payload(prompt_tokens=0, completion_tokens=0, metadata={}))
    assert (used["input_tokens"], used["output_tokens"], used["usage_missing"]) == (None, None, True)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text("a\ud800", max_size=5)
PARTS = ["message", "tool_calls", "function", "name", "error_code", "error_class", "usage_object", "choices"]
ANY = PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(st.sampled_from(PARTS), PLAIN | st.lists(PLAIN, max_size=2))


@given(st.dictionaries(st.sampled_from(sorted(payload())), ANY))
def test_no_payload_hides_a_call(changed: dict[str, Any]) -> None:
    told = payload(**changed)
    event = usage_event(Caller("k"), "gateway/1", usage_of(told), ended_ms=ended_ms(told))
    decode_usage(json.dumps(event, allow_nan=False).encode())


def names(**changed: Any) -> dict[str, object]:
    return names_of_metadata(payload()["metadata"]) | changed


def test_the_alias_names_the_identity_and_the_hash_the_credential() -> None:
    caller = Naming().caller(names(), "s-1", "u-1")
    assert (caller.identity, caller.credential, caller.tenant) == ("invoice-bot-prod", HASH, "org-acme")
    assert (caller.session, caller.end_user, caller.kind, caller.trust) == ("s-1", "u-1", "api_key", "authenticated")


@pytest.mark.parametrize(
    ("changed", "identity", "tenant"),
    [
        ({"key_alias": None}, HASH, "org-acme"),
        ({"key_alias": None, "key_hash": None, "org_id": None}, "svc-invoice-bot", "team-finops"),
        ({"key_alias": "", "key_hash": "", "user_id": "", "org_id": "", "team_id": ""}, ANONYMOUS, "-"),
        # Who names a key like another's hash must not have that other one blocked.
        ({"key_alias": "F" * 64}, HASH, "org-acme"),
    ],
)
def test_the_first_name_that_is_there(changed: dict[str, Any], identity: str, tenant: str) -> None:
    caller = Naming().caller(names(**changed))
    assert (caller.identity, caller.tenant) == (identity, tenant)
    assert (caller.trust is None) == (identity == ANONYMOUS)


def test_a_key_that_was_not_hashed_does_not_go_out() -> None:
    caller = Naming().caller(names(key_alias=None, key_hash="secret-1"))
    assert caller.identity == caller.credential == hashlib.sha256(b"secret-1").hexdigest()


def test_the_order_is_the_operators() -> None:
    naming = Naming.read({"TRIPSWITCH_LITELLM_IDENTITY": "user_id, key_hash", "TRIPSWITCH_LITELLM_TENANT": "team_id"})
    caller = naming.caller(names())
    assert (caller.identity, caller.tenant) == ("svc-invoice-bot", "team-finops")
    assert Naming.read({}) == Naming()
    with pytest.raises(SettingsError, match=r"TRIPSWITCH_LITELLM_TENANT: 'user' is none of org_id, team_id"):
        Naming.read({"TRIPSWITCH_LITELLM_TENANT": "user"})

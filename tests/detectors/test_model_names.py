from hypothesis import given
from hypothesis import strategies as st

from detectors.model_names import bare_name, is_among


def test_one_model_has_many_names() -> None:
    names = [
        "claude-opus-4-5", "Claude-Opus-4-5", "claude-opus-4-5-20251101", "anthropic/claude-opus-4-5@20251101",
        "us.anthropic.claude-opus-4-5-20251101-v1:0", "bedrock/eu.anthropic.claude-opus-4-5-v2",
        "claude-opus-4-5-latest",
    ]  # fmt: skip
    assert {bare_name(name) for name in names} == {"claude-opus-4-5"}
    assert bare_name("gpt-5-mini-2025-08-07") == "gpt-5-mini"


def test_different_models_keep_different_names() -> None:
    names = [
        "gpt-5",
        "gpt-5.1",
        "gpt-5-mini",
        "gpt-4o",
        "claude-opus-4-5",
        "claude-opus-4-1",
        "llama-3.1-70b",
        "v2",
        "",
    ]
    assert len({bare_name(name) for name in names}) == len(names)


def test_a_grant_is_a_name_or_a_pattern() -> None:
    granted = ["gpt-5-mini", "claude-haiku-*", "mistral/*"]
    assert all(is_among(model, granted) for model in ("openai/gpt-5-mini", "anthropic/claude-haiku-4-5", "mistral/any"))
    assert not any(is_among(model, granted) for model in ("gpt-5", "claude-opus-4-5", "gpt-5-mini-high", "magistral"))
    assert not is_among("gpt-5", [])


@given(name=st.text(max_size=40))
def test_a_bare_name_stays_as_it_is_and_is_granted(name: str) -> None:
    assert bare_name(bare_name(name)) == bare_name(name) or not name.isascii()
    assert is_among(name, [name])

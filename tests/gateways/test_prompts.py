from typing import Any

import pytest

from tripswitch_gateway.prompts import fingerprint, prompt_text


def test_case_and_spacing_do_not_matter() -> None:
    assert fingerprint("Who  are\nyou?") == fingerprint(" who are you? ") != fingerprint("who are we?")
    assert len(fingerprint("\ud800")) == 32


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}, "a\nb"),
        ({"messages": [{"content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]}]}, "a"),
        ({"system": "a", "messages": [{"content": [{"type": "tool_result", "content": [{"text": "b"}]}]}]}, "a\nb"),
        ({"instructions": "a", "input": [{"role": "user", "content": "b"}, {"output": "c"}]}, "a\nb\nc"),
        ({"input": ["a", "b"]}, "a\nb"),
        ({"prompt": "a"}, "a"),
        ({"contents": [{"parts": [{"text": "a"}]}]}, "a"),
        ({"input": [1, 2], "prompt": None, "messages": "no", "temperature": 1}, "no"),
        ({}, ""),
    ],
)
def test_what_a_model_would_read(body: dict[str, Any], text: str) -> None:
    assert prompt_text(body) == text


def test_a_deep_prompt_is_cut_off_and_not_followed() -> None:
    nested: Any = "x"
    for _ in range(100_000):
        nested = [nested]
    assert prompt_text({"messages": nested}) == ""

"""Fingerprints of prompts: the same prompt is recognised when it comes again, and its text stays in the gateway."""

import hashlib
from collections.abc import Iterator, Mapping

_DEEPEST = 6


def fingerprint(prompt: str) -> str:
    """32 hex digits of a hash of the prompt, the same whatever its case and spacing."""
    return hashlib.blake2b(" ".join(prompt.lower().split()).encode(errors="replace"), digest_size=16).hexdigest()


def prompt_text(body: Mapping[str, object]) -> str:
    """All text of a request that a model would read: ``system``, ``instructions``, ``messages``, ``prompt``, ``input``.

    Texts of a list of messages or parts are joined by line breaks; what is not text (pictures, token numbers) is left
    out.
    """
    members = ("system", "instructions", "messages", "prompt", "input", "contents")
    return "\n".join(text for name in members for text in _texts(body.get(name), 0))


def _texts(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth >= _DEEPEST:
        return
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, depth + 1)
    elif isinstance(value, Mapping):
        # A message has `content`, a part of one has `text` or, from a tool, `content` or `output`.
        for name in ("content", "parts", "text", "output"):
            yield from _texts(value.get(name), depth + 1)

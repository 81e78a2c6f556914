"""What the guard answers, and how nginx has to be told."""

import json
from typing import NamedTuple
from urllib.parse import quote

from tripswitch_gateway.decisions import Decision
from tripswitch_gateway.denials import denial_answer
from tripswitch_gateway.guard.callers import BadCaller, Caller

Headers = list[tuple[bytes, bytes]]

# nginx reads all of an answer's headers into one buffer, and the reason travels in one of them. The shortest texts fit
# even where each character is written as an escaped pair.
_MAX_BODY_IN_HEADER = 4096
_LONGEST_TEXTS = (1024, 256, 48)
_VISIBLE = "".join(map(chr, range(0x20, 0x7F)))


class Answer(NamedTuple):
    """An HTTP response; ``headers`` without content-length."""

    status: int
    headers: Headers
    body: bytes = b""


def allowed(caller: Caller | None, decision: Decision) -> Answer:
    """200. The headers say for whom the caller was taken, and the only model that it may use, if there is one."""
    headers: Headers = []
    if caller is not None:
        headers.append((b"x-tripswitch-identity", _visible(caller.identity)))
        headers.append((b"x-tripswitch-tenant", _visible(caller.tenant)))
    if decision.model is not None:
        headers.append((b"x-tripswitch-model", _visible(decision.model)))
    if decision.command is not None:
        headers.append((b"x-tripswitch-incident", _visible(decision.command.incident_id)))
    return Answer(200, headers)


def denied(decision: Decision) -> Answer:
    """What the command says, with its reason."""
    status, headers, body = denial_answer(decision)
    return _json(status, body, [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()])


def bad_caller(error: BadCaller) -> Answer:
    """The caller's mistake."""
    headers: Headers = [(b"www-authenticate", b"Bearer")] if error.status == 401 else []
    return _json(error.status, {"error": {"type": error.kind, "message": str(error)}}, headers)


def unavailable(kind: str, message: str, retry_after_s: int) -> Answer:
    """503: nobody can say yet whether the caller is blocked."""
    headers = [(b"retry-after", str(retry_after_s).encode())]
    return _json(503, {"error": {"type": kind, "message": message}}, headers)


def for_auth_request(answer: Answer) -> Answer:
    """The same for nginx's auth_request, which knows 200, 401 and 403 and drops the body: every denial is a 403, whose
    headers hold the status and the body that the caller should get."""
    if answer.status == 200:
        return answer
    extra = [(b"x-tripswitch-status", str(answer.status).encode()), (b"x-tripswitch-body", _shortened(answer.body))]
    kept = [(name, value) for name, value in answer.headers if name != b"content-type"]
    return Answer(403, kept + extra)


def _json(status: int, body: object, headers: Headers) -> Answer:
    # ASCII, so that it may travel in a header too.
    return Answer(status, [(b"content-type", b"application/json"), *headers], json.dumps(body).encode())


def _shortened(body: bytes) -> bytes:
    content = json.loads(body)["error"]
    for longest in _LONGEST_TEXTS:
        texts = {name: text[:longest] if isinstance(text, str) else text for name, text in content.items()}
        body = json.dumps({"error": texts}).encode()
        if len(body) <= _MAX_BODY_IN_HEADER:
            break
    return body


def _visible(text: str) -> bytes:
    """A header's value: a line break would start a header of its own. What is not visible ASCII is percent-encoded."""
    if not (text.isascii() and text.isprintable()):
        text = quote(text, safe=_VISIBLE)
    return text.encode()
